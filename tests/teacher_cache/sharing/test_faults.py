"""What happens when the connection, the process or a file breaks in the middle of a transfer."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.data.files import write_json
from mocha_pipe.teacher_cache.errors import CacheCorruptError, TransferError
from mocha_pipe.teacher_cache.sharing import pull, push
from mocha_pipe.teacher_cache.store.quarantine import SetAside, write_set_aside

SHARD = "hidden/c.1.0"


@pytest.fixture(scope="module")
def remote(finished: Path, tools: Any) -> str:
    """A complete cache in a bucket, put there without a proxy; tests only read it."""
    for name, content in tools.content(finished).items():
        tools.put(f"s3://team/remote/coco/{name}", content)
    return "s3://team/remote/coco"


def request(method: str, url: str, name: str) -> str:
    return f"{method} /{url.removeprefix('s3://')}/{name}"


def test_pull_survives_a_dropped_connection(
    finished: Path, remote: str, proxy: Any, tmp_path: Path, tools: Any
) -> None:
    proxy.rule = tools.rule("cut", request("GET", remote, SHARD), after=700)
    pull(remote, tmp_path / "copy")
    assert proxy.done == 1
    assert tools.content(tmp_path / "copy") == tools.content(finished)


def test_push_survives_a_dropped_connection(finished: Path, s3: str, proxy: Any, tools: Any) -> None:
    proxy.rule = tools.rule("cut", request("PUT", f"{s3}/coco", SHARD), after=700)
    push(finished, f"{s3}/coco")
    assert proxy.done == 1
    assert tools.remote(f"{s3}/coco") == tools.content(finished)


def test_push_knows_its_own_file_again_when_the_answer_was_lost(
    finished: Path, s3: str, proxy: Any, tools: Any
) -> None:
    """The file arrived, the connection dropped before the server could say so: the second attempt finds it there."""
    url = f"{s3}/coco"
    push(finished, url)
    tools.remove(f"{url}/visual/c.1.0")
    original = proxy.take

    def take(data: bytes) -> Any:
        if data.startswith(request("PUT", url, "visual/c.1.0").encode()) and not proxy.done:
            proxy.done += 1
            tools.put(f"{url}/visual/c.1.0", (finished / "visual/c.1.0").read_bytes())
        return original(data)

    proxy.take = take
    report = push(finished, url)
    assert (proxy.done, report.files, report.shards_missing) == (1, 1, 0)


def test_pull_ends_in_words_and_goes_on_later(
    finished: Path, remote: str, proxy: Any, impatient: None, tmp_path: Path, tools: Any
) -> None:
    proxy.rule = tools.rule("cut", request("GET", remote, SHARD), after=700, times=1000)
    with pytest.raises(TransferError) as ended:
        pull(remote, tmp_path / "copy")
    text = str(ended.value)
    assert text.startswith(f"{remote} failed 2 times (")
    assert text.endswith(
        "); check connection and credentials, then run the same command again: it goes on with what is missing"
    )
    assert "\n" not in text
    assert proxy.done == 2
    arrived, content = tools.content(tmp_path / "copy"), tools.content(finished)
    assert SHARD not in arrived
    assert arrived.items() < content.items()
    proxy.rule = None
    report = pull(remote, tmp_path / "copy")
    assert (report.files, report.present) == (16 - len(arrived), len(arrived))
    assert tools.content(tmp_path / "copy") == content


def test_push_ends_in_words_and_goes_on_later(finished: Path, s3: str, proxy: Any, impatient: None, tools: Any) -> None:
    proxy.rule = tools.rule("cut", request("PUT", f"{s3}/coco", SHARD), after=700, times=1000)
    with pytest.raises(TransferError, match=r"coco failed 2 times \(.*run the same command again: it goes on with"):
        push(finished, f"{s3}/coco")
    arrived, content = tools.remote(f"{s3}/coco"), tools.content(finished)
    assert SHARD not in arrived
    assert arrived.items() < content.items()
    proxy.rule = None
    report = push(finished, f"{s3}/coco")
    assert (report.files, report.present) == (16 - len(arrived), len(arrived))
    assert tools.remote(f"{s3}/coco") == content


def test_a_killed_pull_leaves_nothing_torn_and_goes_on(
    finished: Path, remote: str, proxy: Any, command: Callable[..., Any], tmp_path: Path, tools: Any
) -> None:
    proxy.rule = tools.rule("hold", request("GET", remote, SHARD), after=700)
    process = command("cache", "pull", remote, tmp_path / "copy")
    assert proxy.held.wait(30), process.communicate(timeout=1)
    content = tools.content(finished)
    deadline = time.monotonic() + 20
    while not (tmp_path / "copy" / "visual" / "c.2.0").exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # other shards come in meanwhile
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    arrived = tools.content(tmp_path / "copy")
    assert arrived.items() < content.items()
    assert not arrived.keys() & {SHARD, "visual/c.1.0"}
    left_over = list((tmp_path / "copy").glob(".*.partial"))
    assert left_over
    report = pull(remote, tmp_path / "copy")
    assert (report.files, report.present) == (16 - len(arrived), len(arrived))
    assert tools.content(tmp_path / "copy") == content
    for path in left_over:
        os.utime(path, (0, 0))
    pull(remote, tmp_path / "copy")
    assert not list((tmp_path / "copy").glob(".*.partial"))


@pytest.mark.parametrize("name", ["hidden/c.1.0", "regions.parquet"])
def test_a_byte_that_flips_on_the_way_is_noticed(
    finished: Path, remote: str, proxy: Any, tmp_path: Path, tools: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By us: a driver that compares what the server says of the bytes is told not to, as not every server says it."""
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    proxy.rule = tools.rule("flip", request("GET", remote, name), after=200)
    pull(remote, tmp_path / "copy")
    assert proxy.done == 1
    assert tools.content(tmp_path / "copy") == tools.content(finished)


def test_a_byte_that_always_flips_ends_the_pull(
    finished: Path, remote: str, proxy: Any, tmp_path: Path, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    proxy.rule = tools.rule("flip", request("GET", remote, SHARD), after=200, times=1000)
    with pytest.raises(
        CacheCorruptError, match=r"coco/hidden/c\.1\.0 is damaged: chunk 0 fails its checksum; remove it"
    ):
        pull(remote, tmp_path / "copy")
    assert proxy.done == 2
    assert not (tmp_path / "copy" / SHARD).exists()


@pytest.fixture
def full(finished: Path, tmp_path: Path) -> Path:
    """A cache with every kind of file."""
    folder = Path(shutil.copytree(finished, tmp_path / "full"))
    write_json(folder / "complete.json", {"stage": "cache"})
    region = SetAside(row=40, key="0" * 32, image="image.png", class_name="mug", reason="it cannot be decoded")
    write_set_aside(folder, 1, [region])
    return folder


DAMAGE = [
    ("hidden/c.1.0", 40, "chunk 0 fails its checksum"),
    ("visual/c.2.0", -1, "its index fails the checksum"),
    ("targets/c.0.0", 40, "chunk 0 fails its checksum"),
    ("quarantine/shard-1.json", 40, "it is not the list that was written"),
    ("projection.safetensors", -9, "it is not the projection that the targets were made with"),
    ("complete.json", 0, "it is no json"),
    ("hidden/zarr.json", 5, "it is not the description of an array (it lacks 'shape')"),
]
IT_AND_ITS_SHARD = "it and the other files of its shard"


# A projection that changed makes the targets another one's: they stay at home, see test_exchange.py.
@pytest.mark.parametrize(("name", "position", "finding"), [case for case in DAMAGE if "projection" not in case[0]])
def test_what_is_damaged_here_is_not_pushed(
    full: Path, place: str, tools: Any, name: str, position: int, finding: str
) -> None:
    tools.flip(full / name, position)
    with pytest.raises(CacheCorruptError) as refused:
        push(full, f"{place}/coco")
    assert str(refused.value) == (
        f"{full}/{name} is damaged: {finding}; run `mocha-pipe cache verify {full} --repair --data DATA`"
    )
    assert name not in tools.remote(place)


@pytest.mark.parametrize(("name", "position", "finding"), DAMAGE)
def test_what_is_damaged_there_does_not_arrive(
    full: Path, place: str, tmp_path: Path, tools: Any, name: str, position: int, finding: str
) -> None:
    push(full, f"{place}/coco")
    content = bytearray((full / name).read_bytes())
    content[position] ^= 1
    tools.put(f"{place}/coco/{name}", bytes(content))
    with pytest.raises(CacheCorruptError) as refused:
        pull(f"{place}/coco", tmp_path / "copy")
    files = [name]
    if name.startswith("quarantine"):
        files += ["hidden/c.1.0", "visual/c.1.0", "targets/c.1.0"]
    assert str(refused.value) == (
        f"{place}/coco/{name} is damaged: {finding}; remove {'it' if len(files) == 1 else IT_AND_ITS_SHARD} there and "
        f"push again from a sound copy: `mocha-pipe cache push FOLDER {place}/coco`"
    )
    assert not (tmp_path / "copy" / name).exists()
    for file in files:
        tools.remove(f"{place}/coco/{file}")
    push(full, f"{place}/coco")
    pull(f"{place}/coco", tmp_path / "copy")
    assert tools.content(tmp_path / "copy") == tools.content(full)


def test_a_table_that_is_damaged_there_does_not_arrive(full: Path, place: str, tmp_path: Path, tools: Any) -> None:
    push(full, f"{place}/coco")
    content = bytearray((full / "regions.parquet").read_bytes())
    content[200] ^= 1
    tools.put(f"{place}/coco/regions.parquet", bytes(content))
    with pytest.raises(CacheCorruptError, match=r"coco/regions\.parquet is damaged: .*; remove it there and push"):
        pull(f"{place}/coco", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    tools.flip(full / "regions.parquet", 200)
    with pytest.raises(CacheCorruptError, match=r"full/regions\.parquet is damaged: "):
        push(full, f"{place}/new")


def test_a_list_in_the_place_of_another_shards_is_damage(full: Path, place: str, tmp_path: Path, tools: Any) -> None:
    push(full, f"{place}/coco")
    tools.put(f"{place}/coco/quarantine/shard-0.json", (full / "quarantine/shard-1.json").read_bytes())
    with pytest.raises(
        CacheCorruptError, match=r"quarantine/shard-0\.json is damaged: it is the list of another shard"
    ):
        pull(f"{place}/coco", tmp_path / "copy")


@pytest.mark.parametrize("content", [b"{", b'{"shape": [85]}', b'{"shape": [85, "x"], "attributes": {}}'])
def test_a_description_of_targets_that_is_damaged(
    finished: Path, place: str, tools: Any, content: bytes, tmp_path: Path
) -> None:
    push(finished, f"{place}/coco")
    tools.put(f"{place}/coco/targets/zarr.json", content)
    with pytest.raises(
        CacheCorruptError, match=r"targets/zarr\.json is damaged: it .*; remove it there and push again"
    ):
        pull(f"{place}/coco", tmp_path / "copy")
    assert push(finished, f"{place}/coco").files == 4, "nobody knew any more which projection the targets were of"
    assert tools.remote(f"{place}/coco") == tools.content(finished)


def test_a_cut_file_is_fetched_again(finished: Path, tmp_path: Path, tools: Any) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    os.truncate(copy / SHARD, 1000)
    assert pull(str(finished), copy).files == 1
    assert tools.content(copy) == tools.content(finished)
