"""Packing: what is in the tars, that equal data gives equal bytes, and that a killed pack goes on."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

import mocha_pipe.data.packing.pack
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards.index import common_suffix, member_suffix, sample_key
from mocha_pipe.data.shards.layout import MANIFEST
from mocha_pipe.data.source import open_source

Make = Callable[..., Path]

LABELS = {
    "train/a.jpg": "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.1 0.2\n",
    "train/b.v2.png": "0 0.5 0.5 1 1\n",
    "train/c.jpg": "",
    "train/deep/d.JPG": "2 0.1 0.3 0.123457 0.2\n",
    "val/e.jpg": "1 0.5 0.5 0.5 0.5\n",
}
SPLITS = {"train": "images/train", "val": "images/val"}
SMALL = 0.004  # megabytes: an image or two in a shard


@pytest.fixture
def folder(make_yolo: Make) -> Path:
    return make_yolo(LABELS, SPLITS)


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("split", ["train", "val"])
def test_shards_are_the_same_source_and_the_same_table_as_the_folder(folder: Path, tmp_path: Path, split: str) -> None:
    pack(folder, tmp_path / "out", shard_mb=SMALL)
    source, packed = open_source(folder, split), open_source(tmp_path / "out" / MANIFEST, split)
    table, packed_table = RegionTable.build(source), RegionTable.build(packed)
    assert packed_table.digest == table.digest
    assert packed.fingerprint() == source.fingerprint()
    for name in ("image_names", "image_digests", "class_names"):
        assert getattr(packed_table, name) == getattr(table, name)
    for name in ("xyxy", "class_ids", "keys", "image_sizes", "first_row"):
        np.testing.assert_array_equal(getattr(packed_table, name), getattr(table, name))
    for record, other in zip(source.records, packed.records, strict=True):
        np.testing.assert_array_equal(other.xyxy, record.xyxy)
        assert (other.xyxy.dtype, other.class_ids.dtype) == (record.xyxy.dtype, record.class_ids.dtype)
        assert other.path.read_bytes() == record.path.read_bytes()


def test_webdataset_reads_images_and_labels_in_the_order_of_the_table(folder: Path, tmp_path: Path) -> None:
    (train, _) = pack(folder, tmp_path / "out", shard_mb=SMALL)
    assert train.shards > 1
    table = RegionTable.build(open_source(folder))
    samples = list(webdataset.WebDataset(str(train.pattern), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["000000000", "000000001", "000000002", "000000003"]
    for image, sample in enumerate(samples):
        label = json.loads(sample["json"])
        (content,) = (sample[key] for key in ("jpg", "png") if key in sample)
        assert hashlib.blake2b(content, digest_size=16).hexdigest() == label["digest"] == table.image_digests[image]
        rows = slice(*table.first_row[image : image + 2])
        assert label["name"] == table.image_names[image]
        assert label["first_row"] == table.first_row[image]
        assert label["keys"] == [key.decode() for key in table.keys[rows]]
        np.testing.assert_array_equal(np.float32(label["xyxy"]).reshape(-1, 4), table.xyxy[rows])
        assert label["class_ids"] == table.class_ids[rows].tolist()
        assert label["class_names"] == [table.class_names[number] for number in label["class_ids"]]
        assert [label["width"], label["height"]] == table.image_sizes[image].tolist()


def test_plain_tar_lists_the_members(folder: Path, tmp_path: Path) -> None:
    (train, _) = pack(folder, tmp_path / "out")
    listed = subprocess.run(
        ["tar", "tf", tmp_path / "out/train-000000.tar"], capture_output=True, text=True, check=True
    )
    assert listed.stderr == ""
    assert listed.stdout.split() == [
        "000000000.jpg", "000000000.json", "000000001.jpg", "000000001.json", "000000002.jpg", "000000002.json",
        "000000003.jpg", "000000003.json",
    ]  # fmt: skip
    assert train.pattern == tmp_path / "out/train-{000000..000000}.tar"


def test_equal_data_gives_equal_bytes(make_yolo: Make, tmp_path: Path) -> None:
    for name in ("first", "second"):
        pack(make_yolo(LABELS, SPLITS, root=tmp_path / name), tmp_path / "out" / name, shard_mb=SMALL)
    assert contents(tmp_path / "out/first") == contents(tmp_path / "out/second")
    with tarfile.open(tmp_path / "out/first/train-000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar} == {(0, 0, 0, 0o644, "")}


def test_shards_keep_to_their_size_unless_one_image_is_larger(folder: Path, tmp_path: Path) -> None:
    (train, _) = pack(folder, tmp_path / "out", shard_mb=0.02)
    assert train.shards == 1
    (train, _) = pack(folder, tmp_path / "tiny", shard_mb=0.000001)
    assert (train.shards, train.images) == (4, 4)
    sizes = [path.stat().st_size for path in (tmp_path / "tiny").glob("train-*.tar")]
    assert train.bytes == sum(sizes)


def test_a_second_pack_writes_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert [split.written for split in pack(folder, out, shard_mb=SMALL)] > [0, 0]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} | {MANIFEST: (out / MANIFEST).stat().st_ino}
    assert [split.written for split in pack(folder, out, shard_mb=SMALL)] == [0, 0]
    after = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} | {MANIFEST: (out / MANIFEST).stat().st_ino}
    assert after == before


KILLED = """
import os, signal, sys
from pathlib import Path
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.packing.plan import PackPlan

content = PackPlan._content

def killed(plan, image):
    if image == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return content(plan, image)

PackPlan._content = killed
pack(Path(sys.argv[1]), Path(sys.argv[2]), shard_mb=float(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed") / "out"


@pytest.fixture
def killed(folder: Path, tmp_path: Path, left: Path) -> Path:
    """What a pack of this folder left, one image to a shard, that was killed at its third image."""
    if not left.exists():
        done = subprocess.run([sys.executable, "-c", KILLED, folder, left, "0.000001"], check=False)
        assert done.returncode == -signal.SIGKILL
    return Path(shutil.copytree(left, tmp_path / "out"))


def test_a_killed_pack_goes_on_and_ends_with_the_same_bytes(folder: Path, killed: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", killed
    expected = pack(folder, whole, shard_mb=0.000001)
    assert {path.name for path in out.glob("*.tar")} >= {"train-000000.tar", "train-000001.tar"}
    assert not (out / "train-000002.tar").exists()
    with pytest.raises(DatasetError, match="holds no split 'train', found: none"):
        open_source(out / MANIFEST)
    first = (out / "train-000000.tar").stat().st_mtime_ns
    train, _ = pack(folder, out, shard_mb=0.000001)
    assert train.written == expected[0].shards - 2
    assert (out / "train-000000.tar").stat().st_mtime_ns == first
    assert contents(out) == contents(whole), "not even what the killed one had begun is left"


def test_what_a_killed_pack_left_of_other_labels_is_replaced(folder: Path, killed: Path) -> None:
    label = folder.parent / "labels/train/a.txt"
    label.write_text(label.read_text().replace("1 0.5", "2 0.5"))
    train, _ = pack(folder, killed, shard_mb=0.000001)
    assert train.written == 3  # b's place and label are as they were
    assert open_source(killed / MANIFEST).records[0].class_ids.tolist() == [2, 0]


def test_shards_that_a_killed_pack_left_beyond_the_last_are_removed(folder: Path, killed: Path) -> None:
    train, _ = pack(folder, killed)
    assert train.shards == 1
    assert sorted(path.name for path in killed.glob("train-*.tar")) == ["train-000000.tar"]


def test_a_lost_shard_is_written_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(folder, out, shard_mb=SMALL)
    before = contents(out)
    (out / "train-000001.tar").unlink()
    (out / "val-000000.tar").write_bytes(b"x")
    assert [split.written for split in pack(folder, out, shard_mb=SMALL)] == [1, 1]
    assert contents(out) == before


def test_splits_can_be_added_later(folder: Path, tmp_path: Path) -> None:
    both, later = tmp_path / "both", tmp_path / "later"
    pack(folder, both)
    assert [split.split for split in pack(folder, later, splits=["val"])] == ["val"]
    assert [split.split for split in pack(folder, later, splits=["train"])] == ["train"]
    first, second = ({**contents(root), MANIFEST: b""} for root in (both, later))
    assert first == second
    assert json.loads((both / MANIFEST).read_text()) == json.loads((later / MANIFEST).read_text())


def test_coco_splits_get_the_names_that_training_looks_for(make_coco: Make, tmp_path: Path) -> None:
    file = make_coco()
    file = file.rename(file.with_name("instances_train2017.json"))
    (file.parents[1] / "train").rename(file.parents[1] / "train2017")
    (train,) = pack(file, tmp_path / "out")
    assert train.split == "train"
    (val,) = pack(file, tmp_path / "out", splits=["val"])
    assert val.split == "val"
    assert (
        RegionTable.build(open_source(tmp_path / "out" / MANIFEST, "val")).digest
        == RegionTable.build(open_source(file)).digest
    )
    with pytest.raises(DatasetError, match="is one split, found 2 names for it; pass --split once"):
        pack(file, tmp_path / "out", splits=["a", "b"])


def test_shards_can_be_packed_again_into_other_sizes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "small", shard_mb=SMALL)
    pack(tmp_path / "small" / MANIFEST, tmp_path / "again")
    pack(folder, tmp_path / "large")
    assert contents(tmp_path / "again") == contents(tmp_path / "large")


def test_an_unreadable_image_keeps_its_place(folder: Path, tmp_path: Path) -> None:
    broken = folder.parent / "images/train/a.jpg"
    broken.write_bytes(b"none")
    pack(folder, tmp_path / "out")
    packed = open_source(tmp_path / "out" / MANIFEST, keep_unreadable=True)
    assert [record.readable for record in packed.records] == [False, True, True, True]
    assert packed.records[0].path.read_bytes() == b"none"
    source = open_source(folder, keep_unreadable=True)
    assert packed.fingerprint() == source.fingerprint()
    with pytest.raises(DatasetError, match=r"train-000000.tar/000000000.jpg: cannot be read as an image"):
        open_source(tmp_path / "out" / MANIFEST)


def test_an_image_that_changes_meanwhile_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = folder.parent / "images/train/c.jpg"
    claim = mocha_pipe.data.packing.pack._claim

    def change(*arguments: object) -> object:
        image.write_bytes(image.read_bytes()[:-1] + b"!")
        return claim(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mocha_pipe.data.packing.pack, "_claim", change)
    with pytest.raises(DatasetError) as caught:
        pack(folder, tmp_path / "out")
    assert str(caught.value) == f"{image}: was changed while it was packed; run the same command again"
    assert not list((tmp_path / "out").glob("*.tar"))
    assert not list((tmp_path / "out").glob(".*.partial*"))


def test_another_packing_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "my out"
    pack(folder, out)
    before = contents(out)
    remedy = f"; name another folder with --out, or delete it with: rm -r '{out}'"
    with pytest.raises(DatasetError) as caught:
        pack(folder, out, shard_mb=SMALL)
    assert str(caught.value) == f"{out}: holds another packing of 'train', the sizes of the shards differ{remedy}"
    label = folder.parent / "labels/train/a.txt"
    label.write_text(label.read_text().replace("1 0.5", "2 0.5"))
    with pytest.raises(DatasetError, match="holds another packing of 'train', the images or boxes differ; name"):
        pack(folder, out)
    folder.write_text(folder.read_text().replace("star", "moon"))
    with pytest.raises(DatasetError) as caught:
        pack(folder, out)
    assert str(caught.value) == (
        f"{out}: holds shards with other class names, ['ball', 'mug', 'star'] and not ['ball', 'mug', 'moon']{remedy}"
    )
    assert contents(out) == before


@pytest.mark.parametrize("name", ["train-000007.tar", "holiday.jpg", ".train-000000.partial.tar", ".git"])
def test_a_folder_with_things_of_others_is_left_alone(folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"precious")
    with pytest.raises(DatasetError) as caught:
        pack(folder, out)
    assert str(caught.value) == (
        f"{out}: holds something that `data pack` did not write ({name}); name a new or empty folder with --out"
    )
    assert [path.read_bytes() for path in out.iterdir()] == [b"precious"]


def test_a_dataset_json_of_others_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/dataset.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"dataset.json: is not a dataset.json of `mocha-pipe data pack`"):
        pack(folder, tmp_path / "out")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["{}"]


def test_a_shard_of_others_behind_a_whole_packing_stays(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out")
    (tmp_path / "out/train-000009.tar").write_bytes(b"precious")
    pack(folder, tmp_path / "out")
    assert (tmp_path / "out/train-000009.tar").read_bytes() == b"precious"


def test_what_a_killed_pack_left_goes_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(folder, out)
    ours, other = out / ".train-000000.77-00ff00ff.partial.tar", out / ".train-000000.partial.tar"
    for path in (ours, other):
        path.touch()
    pack(folder, out)
    assert (ours.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("split", ["../x", "", ".x", "a/b"])
def test_a_split_that_is_no_file_name_is_refused(make_coco: Make, tmp_path: Path, split: str) -> None:
    with pytest.raises(DatasetError, match=r"a split's name is letters, digits, '.', '_' and '-', found"):
        pack(make_coco(), tmp_path / "out", splits=[split])
    assert not (tmp_path / "out").exists()


@settings(max_examples=25, deadline=None)
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), image=st.integers(0, 10**9 - 1))
def test_webdataset_takes_every_member_for_a_part_of_its_sample(name: str, image: int) -> None:
    member = f"{sample_key(image)}{member_suffix(name)}"
    key, suffix = webdataset.tariterators.base_plus_ext(member)
    assert key == f"{image:09d}"
    assert suffix
    assert suffix != "json"
    assert len(member.encode("ascii")) <= 100


@pytest.mark.parametrize(
    ("names", "suffix"),
    [
        (["a.jpg", "b.JPEG", "c.jfif"], ".jpg"),
        (["a.PNG", "deep/b.png"], ".png"),
        (["a.tif", "b.TIFF"], ".tif"),
        (["a.jpg", "b.png"], ".jpg"),
        (["a", "b"], ".jpg"),
        (["a.json"], ".jpg"),
        (["a.x y"], ".jpg"),
        ([], ".jpg"),
    ],
)
def test_all_images_of_a_split_get_one_suffix_in_lower_case(names: list[str], suffix: str) -> None:
    assert common_suffix(names) == suffix


def test_readers_that_ask_for_one_suffix_get_every_image(folder: Path, tmp_path: Path) -> None:
    """So do DALI, Ray Data, and Hugging Face's loader, which leaves out what has another suffix than its first five."""
    (train, _) = pack(folder, tmp_path / "out", shard_mb=SMALL)
    pairs = list(webdataset.WebDataset(str(train.pattern), shardshuffle=False).to_tuple("jpg", "json"))
    assert [hashlib.blake2b(content, digest_size=16).hexdigest() for content, _ in pairs] == [
        json.loads(label)["digest"] for _, label in pairs
    ]
    assert len(pairs) == 4
