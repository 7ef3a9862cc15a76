"""Reading shards back: what may be named, what is refused, and with which words."""

import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.images import image_digest, read_image
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards.index import ShardIndex
from mocha_pipe.data.shards.layout import MANIFEST, index_file
from mocha_pipe.data.source import open_source, splits_of
from mocha_pipe.data.types import DetectionSource, ImageFile
from tests.hostile import JSON

Make = Callable[..., Path]
Refusal = Callable[..., str]

LABELS = {
    "train/a.jpg": "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.1 0.2\n",
    "train/b.jpg": "0 0.5 0.5 1 1\n",
    "train/c.png": "",
    "train/d.jpg": "2 0.1 0.3 0.123457 0.2\n",
    "val/e.jpg": "1 0.5 0.5 0.5 0.5\n",
}


@pytest.fixture
def folder(make_yolo: Make) -> Path:
    return make_yolo(LABELS, {"train": "images/train", "val": "images/val"})


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed") / "out"


@pytest.fixture
def out(request: pytest.FixtureRequest, packed: Path, tmp_path: Path) -> Path:
    """What `folder` is packed into, one image to a shard: four of train, one of val."""
    if not packed.exists():
        pack(request.getfixturevalue("folder"), packed, shard_mb=0.000001)
    return Path(shutil.copytree(packed, tmp_path / "out"))


def names(source: DetectionSource) -> list[str]:
    return [Path(record.name).name for record in source.records]


def test_a_pattern_is_the_split_whose_tars_it_names_and_leads_to_the_others(out: Path) -> None:
    pattern = out / "train-{000000..000003}.tar"
    whole = open_source(out / MANIFEST)
    assert open_source(pattern).fingerprint() == whole.fingerprint()
    assert open_source(pattern).problems == ()
    assert names(open_source(pattern, "val")) == ["e.jpg"]
    assert splits_of(pattern) == splits_of(out / MANIFEST) == ("train", "val")
    assert names(open_source(out / "val-000000.tar", "val")) == ["e.jpg"]
    assert names(open_source(out / "val-000000.tar", "train")) == ["a.jpg", "b.jpg", "c.png", "d.jpg"]


def test_some_of_the_shards_are_a_smaller_set_with_a_warning(out: Path) -> None:
    source = open_source(out / "train-{000003..000001..2}.tar")
    assert names(source) == ["b.jpg", "d.jpg"]
    (warning,) = source.problems
    assert (warning.severity, warning.where) == ("warning", f"{out}/train-{{000003..000001..2}}.tar")
    assert warning.message == (
        f"2 of 4 shards of 'train' are named, the others are left out; all: {out}/train-{{000000..000003}}.tar"
    )
    table, whole = RegionTable.build(source), RegionTable.build(open_source(out / MANIFEST))
    assert table.keys.tolist() == whole.keys[[2, 3]].tolist()


def test_pixels_and_digests_are_those_of_the_folder_in_any_order(folder: Path, out: Path) -> None:
    pairs = list(zip(open_source(folder).records, open_source(out / MANIFEST).records, strict=True))
    random.Random(0).shuffle(pairs)
    for record, packed in pairs * 2:
        np.testing.assert_array_equal(read_image(packed.path), read_image(record.path))
        assert image_digest(packed.path) == image_digest(record.path)


def test_threads_read_at_once(tmp_path: Path, make_yolo: Make) -> None:
    folder = make_yolo({f"train/{number:03d}.jpg": "0 0.5 0.5 1 1\n" for number in range(40)})
    pack(folder, tmp_path / "out", shard_mb=0.000001, splits=["train"])
    files: list[ImageFile] = [record.path for record in open_source(tmp_path / "out" / MANIFEST).records] * 20
    expected = [record.path.read_bytes() for record in open_source(folder).records] * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda file: file.read_bytes(), files)) == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_on_after_the_parent_did(folder: Path, out: Path, method: str) -> None:
    files = [record.path for record in open_source(out / MANIFEST).records]
    digests = [image_digest(file) for file in files]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(image_digest, files * 5) == digests * 5
    assert [image_digest(file) for file in files] == digests


def test_many_tars_stay_within_the_limit_of_open_files(tmp_path: Path, make_yolo: Make) -> None:
    folder = make_yolo({f"train/{number:03d}.jpg": "" if number else "0 0.5 0.5 1 1\n" for number in range(140)})
    pack(folder, tmp_path / "out", shard_mb=0.000001, splits=["train"])
    records = open_source(tmp_path / "out" / MANIFEST).records
    before = len(list(Path("/proc/self/fd").iterdir()))
    for record in records:
        record.path.read_bytes()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 128


def test_data_check_decodes_what_is_in_the_tars(folder: Path, tmp_path: Path) -> None:
    image = folder.parent / "images/train/c.png"
    image.write_bytes(image.read_bytes()[:200])
    pack(folder, tmp_path / "out")
    splits = check_dataset(tmp_path / "out" / MANIFEST)
    assert [(split.split, split.images, split.regions) for split in splits] == [("train", 4, 4), ("val", 1, 1)]
    (error,) = (problem for split in splits for problem in split.problems)
    assert error.where == f"{tmp_path}/out/train-000000.tar/000000002.jpg"
    assert "cannot be read as an image" in error.message


def test_a_tar_that_was_cut_short(out: Path, refusal: Refusal) -> None:
    tar = out / "train-000001.tar"
    size = tar.stat().st_size
    os.truncate(tar, 1234)
    assert refusal(out / MANIFEST, error=DatasetError) == (
        f"{tar}: has 1234 bytes, dataset.json says {size}; copy it again, or pack again"
    )
    with tar.open("ab") as stream:
        stream.write(bytes(2 * size))
    assert f"has {1234 + 2 * size} bytes, dataset.json says {size}; copy it again" in refusal(
        out / "train-{000000..000003}.tar"
    )
    assert names(open_source(out / "train-{000002..000003}.tar")) == ["c.png", "d.jpg"]


def test_a_tar_that_is_cut_short_or_replaced_during_a_run(out: Path) -> None:
    source = open_source(out / MANIFEST)
    first, second, third = (record.path for record in source.records[:3])
    first.read_bytes()
    shutil.copy(out / "train-000001.tar", out / "train-000000.tar")
    with pytest.raises(DatasetNotFoundError) as caught:
        read_image(first)
    assert str(caught.value) == (
        f"{out}/train-000000.tar: 000000000.jpg is not where the index says, so the tar was cut short or is another "
        "one; copy tar and index together again"
    )
    os.truncate(out / "train-000001.tar", 700)
    with pytest.raises(DatasetNotFoundError) as caught:
        image_digest(second)
    assert str(caught.value) == (
        f"{out}/train-000001.tar: 000000001.jpg is not where the index says, so the tar was cut short or is another "
        "one; copy tar and index together again"
    )
    (out / "train-000002.tar").unlink()
    with pytest.raises(DatasetNotFoundError) as caught:
        third.read_bytes()
    assert str(caught.value) == (
        f"{out}/train-000002.tar: cannot be read (No such file or directory); bring it back and run the same command "
        "again"
    )


def test_a_tar_that_is_replaced_by_a_sound_copy_is_read_on(out: Path) -> None:
    file = open_source(out / MANIFEST).records[0].path
    content = file.read_bytes()
    tar = out / "train-000000.tar"
    copy = shutil.copy(tar, out / "copy")
    os.truncate(tar, 0)
    copy.replace(tar)
    assert file.read_bytes() == content


def test_a_shard_that_is_missing(out: Path, refusal: Refusal) -> None:
    (out / "train-000002.tar").unlink()
    for data in (out / MANIFEST, out / "train-{000000..000003}.tar"):
        assert refusal(data, error=DatasetNotFoundError) == (
            f"{out}/train-000002.tar: shard 3 of 4 is not there; copy it there, or pack again"
        )
    assert names(open_source(out / MANIFEST, "val")) == ["e.jpg"]


def test_a_pattern_beyond_the_last_shard(out: Path, refusal: Refusal) -> None:
    assert refusal(out / "train-{000002..000005}.tar", error=DatasetNotFoundError) == (
        f"{out}/train-000004.tar: there is no such shard, dataset.json lists {out}/train-{{000000..000003}}.tar, "
        f"{out}/val-{{000000..000000}}.tar; name these"
    )


def test_a_foreign_tar(out: Path, tmp_path: Path, refusal: Refusal) -> None:
    shutil.copy(out / "train-000000.tar", out / "other-000000.tar")
    assert refusal(out / "other-000000.tar", error=DatasetNotFoundError) == (
        f"{out}/other-000000.tar: there is no such shard, dataset.json lists {out}/train-{{000000..000003}}.tar, "
        f"{out}/val-{{000000..000000}}.tar; name these"
    )
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(out / "train-000000.tar", alone)
    assert refusal(alone / "train-000000.tar", error=DatasetNotFoundError) == (
        f"{alone}/train-000000.tar: no dataset.json beside the shards, tars are read together with the dataset.json "
        f"and index that `mocha-pipe data pack` wrote; copy both to {alone}"
    )


def test_patterns_that_name_several_things(out: Path, refusal: Refusal) -> None:
    assert refusal(out / "{train,val}-000000.tar", error=DatasetError) == (
        f"{out}/{{train,val}}-000000.tar: names shards of several splits (train, val); name those of one"
    )
    assert refusal(Path(f"{out}/{{a,b}}/train-000000.tar"), error=DatasetError) == (
        f"{out}/{{a,b}}/train-000000.tar: shards of one packing lie in one folder, found 2; name one of them"
    )
    assert refusal(out / "train-{000000..000003.tar", error=DatasetError) == (
        f"{out}/train-{{000000..000003.tar: braces must be in pairs; write for example train-{{000000..000031}}.tar"
    )


@pytest.mark.parametrize("name", ["dataset.json", "train-{000..031}.tar", "data.yaml"])
def test_a_url_where_local_files_are_read(name: str, refusal: Refusal) -> None:
    assert refusal(Path(f"s3://team/{name}"), error=DatasetError) == (
        f"s3:/team/{name}: a URL is read by `mocha-pipe distill` only; copy the shards into a local folder"
    )


def test_a_split_that_was_not_packed(out: Path, refusal: Refusal) -> None:
    assert refusal(out / MANIFEST, "test", error=DatasetError) == (
        f"{out}/dataset.json: holds no split 'test', found: 'train', 'val'; pack it into the same folder with: "
        "mocha-pipe data pack --split test"
    )


def test_an_index_that_is_missing_damaged_or_of_another_packing(out: Path, refusal: Refusal) -> None:
    index = out / "train.index.parquet"
    content = index.read_bytes()
    shutil.copy(out / "val.index.parquet", index)
    message = (
        f"{index}: must be the index that dataset.json speaks of, but is missing, damaged or of another packing; copy "
        "both again, or pack again"
    )
    assert refusal(out / MANIFEST, error=DatasetError) == message
    index.write_bytes(content[:50] + b"!" + content[51:])
    assert refusal(out / MANIFEST, error=DatasetError) == message
    index.unlink()
    assert refusal(out / MANIFEST, error=DatasetError) == message


def edit(out: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((out / MANIFEST).read_text())
    change(content)
    (out / MANIFEST).write_text(json.dumps(content))


def test_a_dataset_json_of_another_version(out: Path, refusal: Refusal) -> None:
    edit(out, lambda content: content.update(format="mocha-pipe shards 7"))
    assert refusal(out / MANIFEST, error=DatasetError) == (
        f"{out}/dataset.json: is of format 'mocha-pipe shards 7', this version reads 'mocha-pipe shards 2'; pack again"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("class_names"),
        lambda content: content["splits"]["train"].pop("shards"),
        lambda content: content["splits"].update(train=3),
        lambda content: content["splits"]["train"]["shards"][0].update(file="../../etc/passwd"),
        lambda content: content["splits"]["train"]["shards"][0].update(bytes="many"),
        lambda content: content.update(splits=[]),
    ],
)
def test_a_dataset_json_that_is_damaged(out: Path, refusal: Refusal, change: Callable[[dict], object]) -> None:
    edit(out, change)
    text = refusal(out / MANIFEST, error=DatasetError)
    assert text.startswith(f"{out}/dataset.json: is not a dataset.json of `mocha-pipe data pack` (")
    assert text.endswith("); copy it again, or pack again")


def test_split_names_in_a_dataset_json_stay_in_the_folder(out: Path, refusal: Refusal) -> None:
    edit(out, lambda content: content["splits"].update({"../x": content["splits"]["val"]}))
    assert "a split's name is letters, digits" in refusal(out / "train-000000.tar", error=DatasetError)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.jpg", "a/../../x.jpg"])
def test_image_names_in_an_index_stay_in_the_folder(out: Path, refusal: Refusal, name: str) -> None:
    content = json.loads((out / MANIFEST).read_text())
    path = out / index_file("val")
    index = ShardIndex.read(path, content["splits"]["val"]["index_digest"])
    digest = ShardIndex(**{**vars(index), "names": (name,)}).write(path)
    edit(out, lambda content: content["splits"]["val"].update(index_digest=digest))
    assert refusal(out / MANIFEST, "val", error=DatasetError) == (
        f"{path}: image name {name!r} leaves its folder; pack again"
    )


def test_an_index_is_read_as_it_was_written(out: Path) -> None:
    content = json.loads((out / MANIFEST).read_text())
    index = ShardIndex.read(out / index_file("train"), content["splits"]["train"]["index_digest"])
    assert index.shards.tolist() == [0, 1, 2, 3]
    assert index.first_box.tolist() == [0, 2, 3, 3, 4]
    assert index.write(out / "again.parquet") == content["splits"]["train"]["index_digest"]
    assert pq.read_schema(out / "again.parquet").names[:2] == ["name", "digest"]


def test_a_coco_json_called_dataset_json_is_still_coco(make_coco: Make) -> None:
    file = make_coco()
    moved = file.rename(file.with_name(MANIFEST))
    assert open_source(moved).num_regions == 3


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
def test_a_hostile_dataset_json_is_one_line(out: Path, refusal: Refusal, text: str) -> None:
    (out / MANIFEST).write_text(text)
    named = out / "train-000000.tar"
    assert refusal(named, error=DatasetError).startswith(
        f"{out}/dataset.json: is not a dataset.json of `mocha-pipe data pack` ("
    )
