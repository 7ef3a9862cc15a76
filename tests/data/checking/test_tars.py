import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import mocha_pipe.data.packing.plan
from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.shards.layout import MANIFEST
from mocha_pipe.data.source import open_source

Make = Callable[..., Path]

LABELS = {
    "train/a.jpg": "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.1 0.2\n",
    "train/b.PNG": "",
    "train/c.jpeg": "0 0.5 0.5 1 1\n",
}
REMEDY = "bytes changed since; copy the tar again, or pack again"


@pytest.fixture
def folder(make_yolo: Make) -> Path:
    folder = make_yolo(LABELS, {"train": "images/train", "val": "images/train"})
    (folder.parent / "images/train/c.jpeg").write_bytes(b"no picture, and packed all the same")
    return folder


@pytest.fixture
def out(folder: Path, tmp_path: Path) -> Path:
    pack(folder, tmp_path / "out", splits=["train"])
    return tmp_path / "out"


def found(out: Path) -> list[tuple[str, str]]:
    (report,) = check_dataset(out / MANIFEST)
    return [(problem.where.removeprefix(f"{out}/"), problem.message) for problem in report.problems]


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_every_part_of_a_tar_counts(out: Path) -> None:
    """A bit of every 211th byte: headers, images that can be decoded and one that cannot, padding, labels, the end."""
    tar, before = out / "train-000000.tar", found(out)
    assert [where for where, _ in before] == ["train-000000.tar/000000002.jpg"]  # which is no picture
    with tarfile.open(tar) as opened:
        images = {member.name: range(member.offset_data, member.offset_data + member.size) for member in opened}
    images = {name: places for name, places in images.items() if not name.endswith(".json")}
    for place in range(0, tar.stat().st_size, 211):
        flip(tar, place, place % 8)
        files = {where for where, message in found(out) if (where, message) not in before}
        damaged = {f"train-000000.tar/{name}" for name, places in images.items() if place in places}
        if damaged:
            assert files <= damaged
            assert files == damaged or "train-000000.tar/000000002.jpg" in damaged
        else:
            assert "train-000000.tar" in files, place
        flip(tar, place, place % 8)
    assert found(out) == before


def test_what_was_damaged_is_said_once_with_a_remedy(out: Path) -> None:
    tar, before = out / "train-000000.tar", found(out)
    with tarfile.open(tar) as opened:
        members = {member.name: member for member in opened}
    flip(tar, members["000000000.json"].offset_data + 5)
    assert [problem for problem in found(out) if problem not in before] == [
        ("train-000000.tar", f"a header or label near image 000000000 is not what was packed: {REMEDY}")
    ]
    flip(tar, members["000000000.json"].offset_data + 5)
    last = members["000000001.jpg"]
    flip(tar, last.offset_data + last.size - 1)
    ((where, _),) = [problem for problem in found(out) if problem not in before]
    assert where == "train-000000.tar/000000001.jpg"
    flip(tar, last.offset_data + last.size - 1)
    flip(tar, tar.stat().st_size - 1)
    assert ("train-000000.tar", f"its end is not what was packed: {REMEDY}") in found(out)


def test_a_flip_that_still_decodes_is_found(out: Path) -> None:
    with tarfile.open(out / "train-000000.tar") as opened:
        image = opened.getmember("000000000.jpg")
    flip(out / "train-000000.tar", image.offset_data + image.size - 3)  # in the picture's last line
    assert ("train-000000.tar/000000000.jpg", f"this image is not what was packed: {REMEDY}") in found(out)


def test_tars_of_before_are_read_checked_and_packed_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image had its own suffix then, and the index named none."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(mocha_pipe.data.packing.plan, "common_suffix", lambda names: None)
        pack(folder, out, splits=["train"])
    text = (out / MANIFEST).read_text()
    (out / MANIFEST).write_text(text.replace("mocha-pipe shards 2", "mocha-pipe shards 1"))
    with tarfile.open(out / "train-000000.tar") as tar:
        assert tar.getnames()[::2] == ["000000000.jpg", "000000001.PNG", "000000002.jpeg"]
    contents = [record.path.read_bytes() for record in open_source(out / MANIFEST, keep_unreadable=True).records]
    assert [where for where, _ in found(out)] == ["train-000000.tar/000000002.jpeg"]
    (split,) = pack(folder, out, splits=["train"])
    assert split.written == 1
    with tarfile.open(out / "train-000000.tar") as tar:
        assert tar.getnames()[::2] == ["000000000.jpg", "000000001.jpg", "000000002.jpg"]
    records = open_source(out / MANIFEST, keep_unreadable=True).records
    assert [record.path.read_bytes() for record in records] == contents
