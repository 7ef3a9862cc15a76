"""The data set on disk: readers find the very boxes again, and users' files stay as they are."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source
from mocha_pipe.data.unlabelled.mixing import Mixture, RegionChoice, mix
from mocha_pipe.data.unlabelled.pictures import Look, Picture, find_pictures
from mocha_pipe.data.unlabelled.writing import Labelled, split_of, without_repeats, write_dataset

WriteImage = Callable[..., Path]
Make = Callable[..., Path]


def labelled(*places: Path, **choice: object) -> Mixture:
    found = find_pictures(places)
    return mix(found.pictures, RegionChoice(**choice), truth_names=found.class_names)  # type: ignore[arg-type]


def write(mixed: Mixture, out: Path, val_share: float = 0.3) -> dict[str, int]:
    out.mkdir()
    return write_dataset(out, mixed.labelled, mixed.class_names, val_share=val_share)


def keys(data: Path, *splits: str) -> dict[str, list[bytes]]:
    """Region keys by the digest of their image."""
    found = {}
    for split in splits or ("train", "val"):
        table = RegionTable.build(open_source(data, split))
        for image, digest in enumerate(table.image_digests):
            found[digest] = table.keys[slice(*table.first_row[image : image + 2])].tolist()
    return found


def test_data_check_finds_it_sound(folder: Path, tmp_path: Path) -> None:
    counts = write(labelled(folder, whole=True, crops=4), tmp_path / "out")
    train, val = check_dataset(tmp_path / "out/data.yaml")
    assert (train.problems, val.problems) == ((), ())
    assert (train.images, val.images) == (counts["train"], counts["val"])
    assert train.images + val.images == 4
    assert train.regions_per_class["region"] + val.regions_per_class["region"] == 20


def test_readers_find_the_very_boxes(folder: Path, tmp_path: Path) -> None:
    mixed = labelled(folder, whole=True, crops=4)
    write(mixed, tmp_path / "out")
    expected = {each.picture.digest: each.xyxy.tolist() for each in mixed.labelled}
    for split in ("train", "val"):
        for record in open_source(tmp_path / "out/data.yaml", split).records:
            np.testing.assert_allclose(record.xyxy, expected[Path(record.path).stem], atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=4), st.integers(10, 5000), st.integers(10, 5000))
def test_label_lines_lead_back_to_the_keys(corners: Sequence[Sequence[float]], width: int, height: int) -> None:
    """To 1/100 px in float32, which is what a key is made of."""
    from mocha_pipe.data.boxes import cxcywhn_to_xyxy
    from mocha_pipe.data.unlabelled.writing import _label

    xyxy = np.sort(np.reshape(corners, (-1, 2, 2)), axis=1).reshape(-1, 4) * ([width, height] * 2)
    each = Labelled(
        picture=Picture(file=Path("a.jpg"), digest="0" * 32, split=None, xyxy=xyxy, classes=()),
        look=Look(width=width, height=height, sound=True),
        xyxy=xyxy,
        class_ids=np.zeros(len(xyxy), np.int64),
    )
    rows = [list(map(float, line.split())) for line in _label(each).splitlines()]
    again = cxcywhn_to_xyxy([row[1:] for row in rows], width, height)
    np.testing.assert_allclose(again, xyxy, rtol=0, atol=1e-10 * max(width, height))


def test_ground_truth_keeps_its_keys(make_yolo: Make, tmp_path: Path) -> None:
    """So that a cache of the data set serves: `cache build --reuse`."""
    labels = {f"train/{n}.jpg": f"{n % 3} 0.{n}13457 0.5 0.1{n}7 0.33333{n}\n" for n in range(1, 9)}
    data = make_yolo(labels, {"val": None})
    write(labelled(data, ground_truth=True), tmp_path / "out")
    assert keys(tmp_path / "out/data.yaml") == keys(data, "train")


@settings(max_examples=8, deadline=None)
@given(others=st.sets(st.integers(1, 20), max_size=4), seed=st.integers(0, 3), names=st.randoms(use_true_random=False))
def test_a_pictures_keys_do_not_depend_on_names_and_neighbours(
    tmp_path_factory: pytest.TempPathFactory, others: set[int], seed: int, names: object
) -> None:
    from PIL import Image

    def pictures(name: str, numbers: Sequence[int]) -> Path:
        root = tmp_path_factory.mktemp(name)
        for place, number in enumerate(numbers):
            pixels = np.random.default_rng(number).integers(0, 255, (50, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{name}-{place}.png")
        return root

    few = pictures("few", [0, 100])
    many = [0, 100, *others]
    names.shuffle(many)  # type: ignore[attr-defined]
    found = []
    for folder in (few, pictures("many", many)):
        write(labelled(folder, whole=True, crops=3, seed=seed), folder.with_name(f"{folder.name}-out"), 0.5)
        found.append(keys(folder.with_name(f"{folder.name}-out") / "data.yaml"))
    assert len(found[0]) == 2
    assert len(found[1]) == 2 + len(others)
    assert found[0].items() <= found[1].items()


def test_pictures_are_links_and_nothing_is_written_beside_them(folder: Path, tmp_path: Path) -> None:
    def listing() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))

    before = listing()
    counts = write(labelled(folder, crops=1), tmp_path / "out")
    assert (counts["linked"], counts["copied"]) == (4, 0)
    assert listing() == before
    rows = list(csv.DictReader((tmp_path / "out/pictures.csv").open(encoding="utf-8")))
    assert len(rows) == 4
    for row in rows:
        assert Path(row["from"]).samefile(tmp_path / "out" / row["picture"])


def test_a_link_is_followed_to_the_picture(folder: Path, tmp_path: Path, write_image: WriteImage) -> None:
    original = write_image(tmp_path / "elsewhere.png", 64, 64, seed=8)
    (folder / "link.png").symlink_to(original)
    write(labelled(folder, crops=1), tmp_path / "out")
    (placed,) = [path for path in (tmp_path / "out").rglob("*.png") if path.samefile(original)]
    assert not placed.is_symlink()


def test_where_no_link_can_be_made_pictures_are_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    counts = write(labelled(folder, crops=1), tmp_path / "out")
    assert (counts["linked"], counts["copied"]) == (0, 4)
    assert set(keys(tmp_path / "out/data.yaml")) == {each.digest for each in find_pictures([folder]).pictures}


def test_a_file_that_training_would_rewrite_is_copied(folder: Path, tmp_path: Path) -> None:
    """A link would let `yolo train` write into the user's own picture."""
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes() + b"more")
    counts = write(labelled(folder, crops=1), tmp_path / "out")
    assert (counts["linked"], counts["copied"]) == (3, 1)
    assert not any(path.samefile(folder / "b.jpg") for path in (tmp_path / "out").rglob("*.jpg"))


def test_pictures_in_tars_are_copied(make_yolo: Make, tmp_path: Path) -> None:
    pack(make_yolo(), tmp_path / "shards")
    counts = write(labelled(tmp_path / "shards/dataset.json", whole=True), tmp_path / "out")
    assert (counts["linked"], counts["copied"]) == (0, 2)


def test_a_picture_without_boxes_is_background_and_no_problem(make_yolo: Make, tmp_path: Path) -> None:
    boxes = "0 0.5 0.5 0.5 0.5\n0 0.5 0.5 1 1\n"
    data = make_yolo({"train/a.jpg": boxes, "train/b.jpg": "", "train/c.jpg": boxes}, {"val": None})
    write(labelled(data, ground_truth=True), tmp_path / "out")
    splits = check_dataset(tmp_path / "out/data.yaml")
    assert [split.problems for split in splits] == [(), ()]
    assert sum(split.background_images for split in splits) == 1


def picture(number: int, split: str | None = None) -> Picture:
    digest = f"{number:08x}".ljust(32, "0")
    return Picture(file=Path("a.jpg"), digest=digest, split=split, xyxy=np.zeros((0, 4)), classes=())


def test_the_digest_says_which_pictures_are_for_validation() -> None:
    quarters = [picture(number << 28) for number in range(16)]
    assert split_of(quarters, 0.25) == ["val"] * 4 + ["train"] * 12
    assert split_of(quarters[::-1], 0.25) == ["train"] * 12 + ["val"] * 4
    assert split_of([picture(0, "train"), picture(1), picture(2**32 - 1, "val")], 0.5) == ["train", "val", "val"]


def test_no_split_is_left_empty() -> None:
    assert split_of([picture(9), picture(8)], 1e-9) == ["train", "val"]
    assert split_of([picture(9), picture(8)], 1 - 1e-9) == ["train", "val"]


def test_boxes_that_readers_take_for_one_are_one() -> None:
    each = Labelled(
        picture=picture(1),
        look=Look(width=100, height=100, sound=True),
        xyxy=np.array([[5, 5, 9, 9], [0, 0, 10, 10], [0, 0, 10, 10 + 1e-9], [0, 0, 10, 10]], np.float64),
        class_ids=np.array([0, 1, 1, 0]),
    )
    kept = without_repeats(each)
    assert kept.class_ids.tolist() == [0, 1, 0]
    assert kept.xyxy.tolist() == [[5, 5, 9, 9], [0, 0, 10, 10], [0, 0, 10, 10]]
