"""What is damaged in a folder is fetched anew, and what arrived is looked at once more."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheUnreadableError,
    CacheWriteError,
    DescriptionCorruptError,
)
from mocha_pipe.teacher_cache.sharing import exchange, merge, pull, push
from tests.shared import as_nobody


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.mark.parametrize(
    "name", ["zarr.json", "images.parquet", "regions.parquet", "hidden/zarr.json", "targets/zarr.json"]
)
def test_pull_fetches_descriptions_and_tables_that_are_damaged(
    finished: Path, copied: Path, place: str, tools: Any, name: str
) -> None:
    push(finished, f"{place}/coco")
    tools.flip(copied / name, 30)
    assert pull(f"{place}/coco", copied).files > 0
    assert tools.content(copied) == tools.content(finished)


@pytest.mark.parametrize("name", ["zarr.json", "visual/zarr.json"])
def test_push_sends_descriptions_that_are_damaged_there(finished: Path, place: str, tools: Any, name: str) -> None:
    push(finished, f"{place}/coco")
    tools.put(f"{place}/coco/{name}", b"{")
    assert push(finished, f"{place}/coco").files == 1
    assert tools.remote(f"{place}/coco") == tools.content(finished)


def test_the_description_of_another_cache_does_not_come_back(
    source: DetectionSource, helpers: SimpleNamespace, copied: Path, tmp_path: Path
) -> None:
    """The same regions, seen by another teacher: nothing but the shards tells them apart."""
    spec = replace(helpers.spec, prompt="What is this {label}?")
    helpers.build(
        source,
        tmp_path / "other",
        helpers.Teacher(spec=spec, damage=lambda found, _: replace(found, hidden=found.hidden * 2)),
    )
    (copied / "zarr.json").unlink()
    before = helpers.file_tree(copied)
    with pytest.raises(DescriptionCorruptError) as refused:
        pull(str(tmp_path / "other"), copied)
    assert str(refused.value) == (
        f"{copied}/zarr.json is damaged: it is missing or empty, and no shard shows that the rest is of "
        f"{tmp_path / 'other'}; copy that to another place: `mocha-pipe cache pull {tmp_path / 'other'} {copied}-2`"
    )
    assert helpers.file_tree(copied) == before


def test_repair_fetches_only_what_is_at_fault(finished: Path, copied: Path, place: str, tools: Any) -> None:
    push(finished, f"{place}/coco")
    tools.flip(copied / "visual/c.1.0")
    assert pull(f"{place}/coco", copied).files == 0, "its size is right"
    inodes = {name: (copied / name).stat().st_ino for name in tools.content(finished)}
    assert pull(f"{place}/coco", copied, repair=True).files == 3, "a shard's files have one owner"
    changed = {name for name, inode in inodes.items() if (copied / name).stat().st_ino != inode}
    assert changed == {"hidden/c.1.0", "visual/c.1.0", "targets/c.1.0"}
    assert tools.content(copied) == tools.content(finished)


def test_repair_deletes_nothing_that_the_source_lacks(finished: Path, copied: Path, place: str, tools: Any) -> None:
    tools.flip(copied / "hidden/c.1.0")
    content = tools.content(copied)
    part = Path(shutil.copytree(finished, copied.parent / "part"))
    for name in ("hidden", "visual", "targets"):
        (part / name / "c.1.0").unlink()
    push(part, f"{place}/coco")
    with pytest.raises(CacheCorruptError) as refused:
        pull(f"{place}/coco", copied, repair=True)
    assert str(refused.value) == (
        f"{copied}/hidden/c.1.0 is damaged: it is at fault, and {place}/coco has no other; run "
        f"`mocha-pipe cache verify {copied} --repair --data DATA`"
    )
    assert tools.content(copied) == content


def test_a_folder_in_the_place_of_a_file_goes_when_it_is_empty(finished: Path, copied: Path, tools: Any) -> None:
    path = copied / "hidden/c.1.0"
    path.unlink()
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(CacheWriteError) as refused:
        pull(str(finished), copied, repair=True)
    assert str(refused.value) == (
        f"{path} must be a file of the cache; it is a folder that holds something; move it away with "
        f"`mv {path} {path}.aside` and run the same command again"
    )
    (path / "notes.txt").unlink()
    pull(str(finished), copied, repair=True)
    assert tools.content(copied) == tools.content(finished)


def put_folder(path: Path) -> None:
    """Let an empty folder have a file's place."""
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)


IN_THE_WAY = ["hidden/zarr.json", "hidden/c.1.0", "targets/zarr.json", "targets/c.1.0", "projection.safetensors"]


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_an_empty_folder_in_the_place_of_a_file_is_nothing(finished: Path, copied: Path, tools: Any, name: str) -> None:
    for travel in (lambda: pull(str(finished), copied), lambda: push(finished, str(copied))):
        put_folder(copied / name)
        assert travel().shards_missing == 0
        assert tools.content(copied) == tools.content(finished)


def a_folder(copied: Path, name: str, source: Path) -> str:
    return f"{copied}/{name} is damaged: it is a folder; run `mocha-pipe cache pull {source} {copied} --repair`"


def test_a_folder_in_the_place_of_a_list_is_damage(finished: Path, copied: Path, tools: Any) -> None:
    """Nobody knows what it said: the shard may have had a list that the source, with other rows, lacks."""
    name = "quarantine/shard-1.json"
    put_folder(copied / name)
    for travel in (
        lambda: pull(str(finished), copied),
        lambda: push(finished, str(copied)),
        lambda: merge(copied, [str(finished)]),
    ):
        with pytest.raises(CacheCorruptError) as refused:
            travel()
        assert str(refused.value) == a_folder(copied, name, finished)
    pull(str(finished), copied, repair=True)
    assert tools.content(copied) == tools.content(finished)
    assert not (copied / name).exists()


def test_merge_mends_what_it_carries_and_names_other_folders(finished: Path, copied: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(finished, tmp_path / "part"))
    (part / "hidden/c.1.0").unlink()
    put_folder(copied / "hidden/c.1.0")
    assert merge(copied, [str(part), str(finished)]).shards_missing == 0, "the second source has it"
    put_folder(copied / "targets/c.1.0")
    with pytest.raises(CacheCorruptError) as refused:
        merge(copied, [str(finished)])
    assert str(refused.value) == a_folder(copied, "targets/c.1.0", finished)


def test_a_folder_in_the_place_of_a_file_behind_a_url_is_named(finished: Path, place: str, tools: Any) -> None:
    push(finished, f"{place}/coco")
    tools.put(f"{place}/coco/quarantine/shard-1.json/notes.txt", b"mine")
    with pytest.raises(CacheCorruptError) as refused:
        push(finished, f"{place}/coco")
    assert str(refused.value) == (
        f"{place}/coco/quarantine/shard-1.json is damaged: it is a folder; remove it and the other files of its shard "
        f"there and push again from a sound copy: `mocha-pipe cache push FOLDER {place}/coco`"
    )


@pytest.mark.parametrize("name", ["hidden", "targets"])
@pytest.mark.parametrize("repair", [False, True])
def test_a_dangling_link_in_the_place_of_a_folder_holds_nothing(
    finished: Path, copied: Path, tools: Any, name: str, repair: bool
) -> None:
    shutil.rmtree(copied / name)
    (copied / name).symlink_to(copied.parent / "gone")
    pull(str(finished), copied, repair=repair)
    assert tools.content(copied) == tools.content(finished)
    assert not (copied / name).is_symlink()


@pytest.mark.parametrize("name", ["hidden", "quarantine"])
def test_a_file_in_the_place_of_a_folder_is_named(finished: Path, copied: Path, name: str) -> None:
    shutil.rmtree(copied / name, ignore_errors=True)
    path = copied / name
    path.write_text("mine")
    for travel in (
        lambda: pull(str(finished), copied),
        lambda: pull(str(finished), copied, repair=True),
        lambda: push(finished, str(copied)),
        lambda: merge(copied, [str(finished)]),
    ):
        with pytest.raises(CacheWriteError) as refused:
            travel()
        assert str(refused.value) == (
            f"{path} must be a folder of the cache; it is a file; move it away with `mv {path} {path}.aside` and run "
            "the same command again"
        )


def test_a_source_that_is_refused_leaves_no_half_cache(finished: Path, copied: Path, place: str, tools: Any) -> None:
    (copied / "targets/zarr.json").write_text("{")
    there = copied.parent / "there"
    for travel in (lambda: pull(str(copied), there), lambda: push(copied, str(there))):
        with pytest.raises(CacheCorruptError, match=r"targets/zarr\.json is damaged: "):
            travel()
        assert not there.exists()


def test_a_projection_that_we_may_not_read_is_named_where_it_lies(finished: Path, copied: Path, place: str) -> None:
    path, there = copied / "projection.safetensors", copied.parent / "open/there"
    there.parent.mkdir()
    there.parent.chmod(0o777)
    path.chmod(0)
    with as_nobody(copied):
        for to in (str(there), f"{place}/coco"):
            with pytest.raises(CacheUnreadableError) as refused:
                push(copied, to)
            assert str(refused.value) == (
                f"{path} cannot be read (Permission denied); let its owner run `chmod -R a+rX {copied}`"
            )
    assert not there.exists()


def test_links_to_what_is_elsewhere_are_fetched(finished: Path, copied: Path, tools: Any) -> None:
    """As git-annex leaves them in a clone that has not got their content."""
    for name in ("hidden/c.1.0", "regions.parquet"):
        (copied / name).unlink()
        (copied / name).symlink_to("../.git/annex/objects/xx")
    [*links, table] = verify_cache(copied).findings[::-1]
    assert [(link.kind, link.message) for link in links] == [
        ("elsewhere", "it is a link to ../.git/annex/objects/xx, which is not there")
    ]
    assert table.file == "regions.parquet"
    pull(str(finished), copied)
    assert tools.content(copied) == tools.content(finished)


def test_rows_that_are_not_those_of_the_sender_are_noticed(
    finished: Path, rival: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens between the check of a file and the end of the transfer."""
    (copied / "hidden/c.1.0").unlink()
    real = exchange.confirm_received

    def meddle(source: Any, there: Any, sums: Any) -> None:
        shutil.copy(rival / "hidden/c.1.0", copied / "hidden/c.1.0")
        real(source, there, sums)

    monkeypatch.setattr(exchange, "confirm_received", meddle)
    with pytest.raises(CacheCorruptError) as refused:
        pull(str(finished), copied)
    assert str(refused.value) == (
        f"{copied}/hidden/c.1.0 is damaged: its rows are not those of {finished}; run "
        f"`mocha-pipe cache verify {copied} --repair --data DATA`"
    )


def test_what_was_sent_is_looked_at_once_more(
    finished: Path, place: str, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exchange.confirm_sent

    def meddle(source: Any, there: Any, names: Any) -> None:
        content = (finished / "hidden/c.1.0").read_bytes()
        tools.put(f"{place}/coco/hidden/c.1.0", content[:-8] + 8 * b"\0")
        real(source, there, names)

    monkeypatch.setattr(exchange, "confirm_sent", meddle)
    with pytest.raises(
        CacheCorruptError, match=r"coco/hidden/c\.1\.0 is damaged: its index fails the checksum; remove"
    ):
        push(finished, f"{place}/coco")


def test_the_shard_of_another_owner_is_no_damage(
    finished: Path, rival: Path, place: str, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exchange.confirm_sent

    def replace_it(source: Any, there: Any, names: Any) -> None:
        tools.put(f"{place}/coco/hidden/c.1.0", (rival / "hidden/c.1.0").read_bytes())
        real(source, there, names)

    monkeypatch.setattr(exchange, "confirm_sent", replace_it)
    assert push(finished, f"{place}/coco").shards_missing == 0


def test_a_complete_cache_where_nobody_may_write_takes_part(finished: Path, copied: Path, tmp_path: Path) -> None:
    for path in [copied, *copied.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert merge(tmp_path / "merged", [str(copied)]).shards_missing == 0
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    assert merge(copied, [str(finished)]).files == 0
    assert pull(str(finished), copied).files == 0
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
