"""The `mocha-pipe cache` commands: what they print, how they exit, and that they fit together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import shard_path

Command = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("one_teacher")


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "cache"))


@pytest.fixture
def broken(world: Path, tmp_path: Path) -> Path:
    """The world with an image that nobody can read."""
    root = Path(shutil.copytree(world, tmp_path / "broken"))
    image = root / "images/train/00003.jpg"
    image.write_bytes(image.read_bytes()[:400])
    return root


def on(world: Path, cache: Path) -> list[Any]:
    return ["--data", world / "data.yaml", "--teacher", "miniature", "--cache", cache]


def flip_bit(path: Path, at: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def files_of(folder: Path) -> dict[str, bytes]:
    shards = (path for path in folder.rglob("*") if path.name.startswith("c."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in shards}


def test_plan_counts_what_a_build_does_and_times_it(command: Command, world: Path, built: Path, tmp_path: Path) -> None:
    new = command("cache", "plan", *on(world, tmp_path / "new"), "--sample", 8, "--json")
    assert new.exit_code == 0, new.stderr
    plan = json.loads(new.stdout)
    rows = RegionCache.open(built).plan.rows
    assert (plan["images"], plan["regions"], plan["to_embed"]) == (6, rows, rows)
    assert plan["sample"] >= 8
    assert 0 < plan["teacher_time"]["low"] <= plan["teacher_time"]["seconds"] <= plan["teacher_time"]["high"]
    assert not (tmp_path / "new").exists(), "a plan makes nothing"
    (tmp_path / "new").mkdir()
    empty = command("cache", "plan", *on(world, tmp_path / "new"), "--sample", 8, "--json")
    assert json.loads(empty.stdout)["to_embed"] == rows, "an empty folder is as good as none"
    done = command("cache", "plan", *on(world, built), "--sample", 8)
    assert "0 (" in next(line for line in done.stdout.splitlines() if line.startswith("to embed"))
    cost = plan["region"]
    assert cost["bytes"] == 2 * (128 + 128)
    assert cost["tokens"] > 64, "the picture's and the prompt's"
    assert f"{cost['tokens']:.0f} tokens; {cost['operations'] / 1e9:.3g} Gflop; 512 B" in done.stdout


def test_the_plan_foretells_the_bytes_of_the_arrays(command: Command, world: Path, built: Path, tmp_path: Path) -> None:
    plan = json.loads(
        command("cache", "plan", *on(world, tmp_path / "new"), "--dim", 8, "--sample", 8, "--json").stdout
    )
    sizes = {name: shard_path(built / name, 0).stat().st_size for name in ("hidden", "visual", "targets")}
    assert {name: plan["bytes"][name] for name in sizes} == sizes


def test_build_says_what_it_did_and_skips_what_is_there(command: Command, world: Path, copied: Path) -> None:
    before = files_of(copied)
    again = command("cache", "build", *on(world, copied), "--dim", 8)
    assert again.exit_code == 0, again.stderr
    assert "already complete" in again.stdout
    assert "(0 embedded here, 0 reused, 0 equal to others, 0 set aside)" in again.stdout, "by this call"
    assert "(0 computed now, 0 left to others)" in again.stdout
    values = json.loads(command("cache", "build", *on(world, copied), "--dim", 8, "--json").stdout)
    assert (values["skipped"], values["embedded"], values["computed_shards"]) == (True, 0, 0)
    assert files_of(copied) == before


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_data_set_without_boxes_is_one_line(command: Command, world: Path, tmp_path: Path, verb: str) -> None:
    root = Path(shutil.copytree(world, tmp_path / "empty"))
    for label in (root / "labels/train").iterdir():
        label.write_text("")
    result = command("cache", verb, *on(root, tmp_path / "c"))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: a teacher cache needs 2 or more different regions; {root} has none; draw more boxes, or "
        "pass other data: --data"
    )
    assert not (tmp_path / "c").exists()


def test_no_marker_goes_before_the_cache_is_known(command: Command, world: Path, copied: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "complete.json").write_text('{"stage": "distill"}')
    result = command("cache", "build", *on(world, run), "--retry-failed")
    assert result.exit_code == 2
    assert (run / "complete.json").read_text() == '{"stage": "distill"}'


def test_only_the_first_process_of_a_job_speaks_and_marks_the_end(
    command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        second = command("cache", "build", *on(world, tmp_path / "c"), "--dim", 8)
    assert (second.exit_code, second.stdout) == (0, "")
    assert "note: " not in second.stderr
    assert RegionCache.open(tmp_path / "c").is_complete
    assert not (tmp_path / "c/complete.json").exists()
    first = command("cache", "build", *on(world, tmp_path / "c"), "--dim", 8)
    assert "note: the miniature teacher" not in first.stdout
    assert (tmp_path / "c/complete.json").exists()


def test_unreadable_images_are_listed_and_the_exit_code_is_1(command: Command, broken: Path, tmp_path: Path) -> None:
    result = command("cache", "build", *on(broken, tmp_path / "c"), "--dim", 8)
    assert result.exit_code == 1
    aside = [line for line in result.stderr.splitlines() if line.startswith("set aside: row ")]
    assert aside
    assert all("images/train/00003.jpg" in line and "cannot be read as an image" in line for line in aside)
    assert f"--reuse {tmp_path / 'c'}" in result.stderr
    assert "--retry-failed" in result.stderr
    values = json.loads(command("cache", "build", *on(broken, tmp_path / "c"), "--dim", 8, "--json").stdout)
    assert values["skipped"]
    assert values["set_aside"] == len(aside)


def test_retry_failed_tries_only_what_was_set_aside(command: Command, broken: Path, tmp_path: Path) -> None:
    command("cache", "build", *on(broken, tmp_path / "c"), "--dim", 8)
    again = command("cache", "build", *on(broken, tmp_path / "c"), "--dim", 8, "--retry-failed", "--json")
    assert again.exit_code == 1
    values = json.loads(again.stdout)
    assert (values["skipped"], values["embedded"]) == (False, 0)
    assert values["set_aside"] > 0


def test_mended_images_are_built_with_reuse(
    command: Command, world: Path, broken: Path, built: Path, tmp_path: Path
) -> None:
    command("cache", "build", *on(broken, tmp_path / "c"), "--dim", 8)
    aside = len(RegionCache.open(tmp_path / "c").quarantine())
    refused = command("cache", "build", *on(world, tmp_path / "c"), "--dim", 8)
    assert refused.exit_code == 2
    assert "1 image changed" in refused.stderr
    assert f"--reuse {tmp_path / 'c'}" in refused.stderr
    mended = command("cache", "build", *on(world, tmp_path / "m"), "--dim", 8, "--reuse", tmp_path / "c", "--json")
    assert mended.exit_code == 0, mended.stderr
    values = json.loads(mended.stdout)
    assert (values["embedded"], values["reused"]) == (aside, values["rows"] - aside)
    hidden = RegionCache.open(tmp_path / "m").rows("hidden")
    expected = RegionCache.open(built).rows("hidden")
    # Other neighbours in a batch round differently.
    assert abs(hidden.block(0, values["rows"]) - expected.block(0, values["rows"])).max() < 5e-3


def test_flags_are_checked_before_anything_is_read(command: Command) -> None:
    result = command("cache", "build", "--data", "nowhere.yaml", "--part=-1/2", "--engine", "spark", "--batch", "0")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: the command line: teacher.batch must be at least 1, found 0\n"
        "error: the command line: cache.engine must be 'local' or 'ray', found 'spark'\n"
        "error: the command line: cache.part must be INDEX/COUNT, counted from 0, found '-1/2': eight parts are "
        "0/8, 1/8 ... 7/8\n",
    )


def test_verify_of_a_sound_cache(command: Command, built: Path) -> None:
    result = command("cache", "verify", built)
    assert result.exit_code == 0
    assert result.stdout.rstrip().endswith("shards: hidden 1, visual 1, targets 1: all sound")
    report = json.loads(command("cache", "verify", built, "--json").stdout)
    assert report["findings"] == []


def test_verify_names_the_file_at_fault_and_exits_1(command: Command, copied: Path) -> None:
    flip_bit(shard_path(copied / "visual", 0))
    result = command("cache", "verify", copied)
    assert result.exit_code == 1
    assert result.stdout.startswith("damaged: visual/c.0.0: ")
    assert "1 at fault" in result.stdout


@pytest.mark.parametrize("array", ["hidden", "targets"])
def test_repair_computes_the_same_bytes_again_with_the_teacher_of_the_cache(
    command: Command, world: Path, built: Path, copied: Path, array: str
) -> None:
    flip_bit(shard_path(copied / array, 0))
    result = command("cache", "verify", copied, "--repair", "--data", world / "data.yaml")
    assert result.exit_code == 0, result.stderr
    embedded = RegionCache.open(built).plan.rows if array == "hidden" else 0
    assert result.stdout.endswith(
        f"repaired: {int(array == 'hidden')} shards computed again, {embedded} regions embedded\n"
    )
    assert files_of(copied) == files_of(built), "the width of the targets is the cache's own, not the default"
    assert command("cache", "verify", copied).exit_code == 0


def test_audit_agrees_with_a_sound_cache_and_not_with_other_rows(command: Command, world: Path, copied: Path) -> None:
    audit = ["cache", "audit", copied, "--rows", 6, "--data", world / "data.yaml"]
    result = command(*audit)
    assert result.exit_code == 0, result.stderr
    assert "they agree" in result.stdout
    cache = RegionCache.open(copied)
    from mocha_pipe.teacher_cache.store.layout import write_shard

    rows = cache.plan.rows
    turned = cache.rows("hidden").block(0, rows)[::-1].copy()
    write_shard(copied / "hidden", cache.plan, 0, turned)
    assert command("cache", "verify", copied).exit_code == 0, "no checksum can see that"
    result = command(*audit)
    assert result.exit_code == 1
    assert "cosine below" in result.stdout


def test_info_is_for_people_and_for_scripts(command: Command, built: Path) -> None:
    text = command("cache", "info", built).stdout
    assert "8 wide, 1 of 1 shards" in text
    assert "{'" not in text
    assert json.loads(command("cache", "info", built, "--json").stdout)["dim"] == 8


def test_a_cache_travels_to_another_folder_and_back(command: Command, built: Path, tmp_path: Path) -> None:
    place = tmp_path / "share/coco"
    assert command("cache", "push", built, place).stdout.endswith("; 0 were there\n")
    assert command("cache", "push", built, place).stdout.startswith("0 files travelled, 0 B; ")
    assert command("cache", "pull", place, tmp_path / "mine").exit_code == 0
    assert files_of(tmp_path / "mine") == files_of(built)
    assert command("cache", "pull", place, tmp_path / "targets", "--targets").exit_code == 0
    assert list(files_of(tmp_path / "targets")) == ["targets/c.0.0"]
    listed = json.loads(command("cache", "ls", tmp_path, "--json").stdout)
    assert [(Path(found["place"]).name, found["usable"], found["complete"]) for found in listed] == [
        ("mine", True, True),
        ("coco", True, True),
        ("targets", True, False),
    ]
    table = command("cache", "ls", tmp_path / "share").stdout
    assert "1/1" in table


def test_an_archive_takes_fewer_bytes_and_comes_back(command: Command, built: Path, tmp_path: Path) -> None:
    archive, back = tmp_path / "archive", tmp_path / "back"
    told = json.loads(command("cache", "compact", built, archive, "--json").stdout)
    assert told["loss"] == {}
    assert told["bytes"]["hidden"] < told["raw_bytes"]["hidden"]
    assert command("cache", "push", built, archive, "--compact").exit_code == 0
    assert command("cache", "pull", archive, back).exit_code == 0
    assert files_of(back) == files_of(built)


def test_what_rounding_does_is_told_and_no_repair_hides_it(
    command: Command, world: Path, built: Path, tmp_path: Path
) -> None:
    archive, back = tmp_path / "archive", tmp_path / "back"
    result = command("cache", "push", built, archive, "--compact", "--lossy")
    assert "cosine" in result.stdout
    assert "0.9999" in result.stdout
    assert command("cache", "pull", archive, back).exit_code == 0
    info = command("cache", "info", back)
    assert "every row to whole multiples of" in " ".join(info.stdout.split())
    flip_bit(back / "hidden/c.0.0")
    result = command("cache", "verify", back, "--repair", "--data", world / "data.yaml")
    assert result.exit_code == 2
    assert "came from a lossy archive, whose values no teacher says again; fetch what" in result.stderr
    assert result.stderr.strip().endswith(f"`mocha-pipe cache pull ARCHIVE {back} --repair`")
    assert command("cache", "pull", archive, back, "--repair").exit_code == 0
    assert command("cache", "verify", back).exit_code == 0


def test_lossy_belongs_to_compact(command: Command, built: Path, tmp_path: Path) -> None:
    result = command("cache", "push", built, tmp_path / "other", "--lossy")
    assert result.exit_code == 2
    assert "--lossy rounds what --compact compresses: give both, or neither" in " ".join(result.stderr.split())
    assert not (tmp_path / "other").exists()


def test_merge_derives_the_targets_with_the_last_shard(command: Command, built: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(built, tmp_path / "part"))
    for name in ("targets", "projection.safetensors", "complete.json"):
        path = part / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = command("cache", "merge", tmp_path / "whole", part, "--dim", 8)
    assert result.exit_code == 0, result.stderr
    assert files_of(tmp_path / "whole") == files_of(built)


def test_what_is_not_there_is_one_line(command: Command, tmp_path: Path) -> None:
    result = command("cache", "pull", tmp_path / "share/coco", tmp_path / "mine")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: there is no teacher cache at {tmp_path / 'share/coco'}; see what is there with: "
        f"mocha-pipe cache ls {tmp_path / 'share'}"
    )
