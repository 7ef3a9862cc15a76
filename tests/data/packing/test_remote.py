"""Shards behind a URL: what is copied, what is streamed, and what is said when they are not what they should be."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

import mocha_pipe.data.packing.remote
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.packing.remote import ATTEMPTS, attempts_at, copy_split, open_shards
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards.layout import MANIFEST
from mocha_pipe.data.source import open_source

Make = Callable[..., Path]

LABELS = {
    "train/a.jpg": "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.1 0.2\n",
    "train/b.jpg": "0 0.5 0.5 1 1\n",
    "train/c.png": "",
    "val/e.jpg": "1 0.5 0.5 0.5 0.5\n",
    "val/f.jpg": "",
}


@pytest.fixture
def folder(make_yolo: Make) -> Path:
    return make_yolo(LABELS, {"train": "images/train", "val": "images/val"})


@pytest.fixture
def there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder behind the URL, one image to a shard."""
    monkeypatch.setattr(mocha_pipe.data.packing.remote, "_FIRST_WAIT", 0.0)
    pack(folder, tmp_path / "there", shard_mb=0.000001)
    return tmp_path / "there"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy"


@pytest.mark.parametrize("name", ["train-{000000..000002}.tar", MANIFEST])
def test_source_and_table_are_those_of_the_folder(folder: Path, there: Path, copy: Path, name: str) -> None:
    remote, source = open_shards(f"file://{there}/{name}", copy, "train"), open_source(folder)
    table = RegionTable.build(source)
    assert remote.source.fingerprint() == source.fingerprint()
    assert remote.table.digest == table.digest
    for part in ("image_names", "image_digests", "class_names"):
        assert getattr(remote.table, part) == getattr(table, part)
    for part in ("xyxy", "class_ids", "keys", "image_sizes", "first_row"):
        np.testing.assert_array_equal(getattr(remote.table, part), getattr(table, part))
    assert [shard.url for shard in remote.shards] == [f"file://{there}/train-{n:06d}.tar" for n in range(3)]
    assert [shard.first_image for shard in remote.shards] == [0, 1, 2]
    assert sorted(path.name for path in copy.iterdir()) == [MANIFEST, "train.index.parquet"]


def test_some_shards_know_where_they_are_in_the_split(folder: Path, there: Path, copy: Path) -> None:
    remote = open_shards(f"file://{there}/train-{{000001..000002}}.tar", copy, "train")
    assert [shard.first_image for shard in remote.shards] == [1, 2]
    assert [len(shard.digests) for shard in remote.shards] == [1, 1]
    assert remote.table.keys.tolist() == RegionTable.build(open_source(folder)).keys[2:].tolist()
    (warning,) = remote.source.problems
    assert warning.message.startswith(
        f"2 of 3 shards of 'train' are named, the others are left out; all: file://{there}"
    )


def test_a_split_is_copied_once(folder: Path, there: Path, copy: Path) -> None:
    url = f"file://{there}/train-{{000000..000002}}.tar"
    local = open_source(copy_split(url, copy, "val"), "val")
    assert local.fingerprint() == open_source(folder, "val").fingerprint()
    first, second = sorted(copy.glob("val-*.tar"))
    assert not list(copy.glob("train-*"))
    kept = first.stat().st_ino
    second.write_bytes(second.read_bytes()[:100])
    copy_split(url, copy, "val")
    assert first.stat().st_ino == kept
    assert second.read_bytes() == (there / second.name).read_bytes()


def test_a_new_packing_replaces_the_copy(folder: Path, there: Path, copy: Path) -> None:
    url = f"file://{there}/{MANIFEST}"
    before = open_shards(url, copy, "train").table.digest
    label = folder.parent / "labels/train/a.txt"
    label.write_text(label.read_text().replace("1 0.5", "2 0.5"))
    shutil.rmtree(there)
    pack(folder, there, shard_mb=0.000001)
    after = open_shards(url, copy, "train").table.digest
    assert after == RegionTable.build(open_source(folder)).digest != before


def refusal(url: str, copy: Path, kind: type[Exception], split: str = "train") -> str:
    with pytest.raises(kind) as caught:
        open_shards(url, copy, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_urls_that_lead_nowhere(there: Path, copy: Path) -> None:
    assert refusal(f"file://{there}/no/{MANIFEST}", copy, DatasetNotFoundError) == (
        f"file://{there}/no/dataset.json: there is no such file; mend the URL, or copy the file there"
    )
    assert refusal(f"file://{there}/train-{{000002..000004}}.tar", copy, DatasetNotFoundError) == (
        f"file://{there}/train-000003.tar: there is no such shard, dataset.json lists "
        f"file://{there}/train-{{000000..000002}}.tar, file://{there}/val-{{000000..000001}}.tar; name these"
    )
    assert refusal(f"file://{there}/data.yaml", copy, DatasetError) == (
        f"file://{there}/data.yaml: behind a URL training reads what `mocha-pipe data pack` wrote; name its "
        "dataset.json, or its tars as train-{000000..000031}.tar"
    )
    assert refusal(f"file://{there}/val-000000.tar", copy, DatasetError) == (
        f"file://{there}/val-000000.tar: names shards of 'val', and training reads 'train'; name those, or set "
        "train = 'val' under [data] in a --config file"
    )
    assert "holds no split 'test', found: 'train', 'val'" in refusal(
        f"file://{there}/{MANIFEST}", copy, DatasetError, "test"
    )


def test_ssh_is_refused_because_its_driver_trusts_any_host(copy: Path) -> None:
    assert refusal("ssh://me@host/shards/dataset.json", copy, DatasetError) == (
        "ssh://me@host/shards/dataset.json: shards are not streamed over ssh://; copy them into a local folder, or put "
        "them in a bucket"
    )


def test_protocols_that_are_unknown_or_not_installed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refusal("nfs5://team/dataset.json", copy, DatasetError)
    assert text.startswith("nfs5://team/dataset.json: nfs5:// cannot be read here (Protocol not known: nfs5")
    assert text.endswith("; install what it names")

    def absent(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    assert refusal("s3://team/dataset.json", copy, DatasetError) == (
        "s3://team/dataset.json: s3:// cannot be read here (Install s3fs to access S3); install it with: "
        "pip install 'mocha-pipe[s3]'"
    )


def test_a_copy_of_another_size_is_refused(there: Path, copy: Path) -> None:
    size = (there / "val-000001.tar").stat().st_size
    os.truncate(there / "val-000001.tar", 700)
    with pytest.raises(DatasetError) as caught:
        copy_split(f"file://{there}/{MANIFEST}", copy, "val")
    assert str(caught.value) == (
        f"file://{there}/val-000001.tar: has 700 bytes where dataset.json says {size}; upload it again"
    )
    assert [path.name for path in copy.glob("*val-*")] == ["val-000000.tar"]


def test_names_in_a_remote_dataset_json_stay_in_the_folder(there: Path, copy: Path) -> None:
    content = json.loads((there / MANIFEST).read_text())
    content["splits"]["../x"] = content["splits"]["train"]
    (there / MANIFEST).write_text(json.dumps(content))
    assert "a split's name is letters, digits" in refusal(f"file://{there}/{MANIFEST}", copy, DatasetError, "../x")
    assert not copy.exists()


def transfer(failures: list[BaseException]) -> int:
    """How many attempts a transfer took that fails so, one failure after the other."""
    tried = 0
    for attempt in attempts_at("memory://team/x.tar"):
        with attempt:
            tried += 1
            if failures:
                raise failures.pop()
    return tried


def test_a_transfer_is_tried_again_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mocha_pipe.data.packing.remote, "_FIRST_WAIT", 0.0)
    assert transfer([OSError("reset"), TimeoutError("late")]) == 3


def test_attempts_wait_twice_as_long_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    with pytest.raises(DatasetNotFoundError):
        transfer([OSError("reset")] * ATTEMPTS)
    assert waited == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, DatasetError])
def test_what_is_no_failure_of_the_connection_ends_a_transfer_at_once(interruption: type[BaseException]) -> None:
    failures = [OSError("never reached"), interruption("stop")]
    with pytest.raises(interruption, match="stop"):
        transfer(failures)
    assert len(failures) == 1


@pytest.mark.parametrize(
    ("error", "tries", "text"),
    [
        (OSError("reset\nby peer"), ATTEMPTS, f"reset, tried {ATTEMPTS} times"),
        (PermissionError("Forbidden"), 1, "Forbidden"),
    ],
)
def test_a_transfer_that_fails_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int, text: str
) -> None:
    monkeypatch.setattr(mocha_pipe.data.packing.remote, "_FIRST_WAIT", 0.0)
    failures: list[BaseException] = [error] * 9
    with pytest.raises(DatasetNotFoundError) as caught:
        transfer(failures)
    assert len(failures) == 9 - tries
    assert str(caught.value) == (
        f"memory://team/x.tar: cannot be read ({text}); check connection and credentials, then run the same command "
        "again: it goes on"
    )
