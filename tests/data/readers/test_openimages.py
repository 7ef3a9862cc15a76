"""Open Images' published files become a data set in YOLO layout of the 31 coarse classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.coarse import COARSE_NAMES, OPEN_IMAGES
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.readers.openimages import import_openimages
from mocha_pipe.data.source import open_source

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
CLASSES = {"/m/mug": "Mug", "/m/cup": "Coffee cup", "/m/volley": "Volleyball (Ball)", "/m/person": "Person"}

WriteImage = Callable[..., Path]


def row(
    image: str, label: str, sides: Sequence[float | str] = (0.25, 0.75, 0.2, 0.6), *, group: int = 0, depiction: int = 0
) -> str:
    return f"{image},xclick,{label},1,{','.join(map(str, sides))},0,0,{group},{depiction},0"


@pytest.fixture
def source(tmp_path: Path, write_image: WriteImage) -> Path:
    """Two splits: three images of which two show coarse classes, and one of validation."""
    root = tmp_path / "openimages"
    for number, name in enumerate(("train/0a1", "train/0b2", "train/0c3", "validation/0d4")):
        write_image(root / f"{name}.jpg", seed=number)
    (root / "class-descriptions-boxable.csv").write_text("".join(f"{key},{name}\n" for key, name in CLASSES.items()))
    train = [
        row("0a1", "/m/mug"),
        row("0a1", "/m/volley", (0.0, 0.5, 0.5, 1.0)),
        row("0a1", "/m/person"),
        row("0b2", "/m/cup", group=1),
        row("0b2", "/m/cup", depiction=1),
        row("0b2", "/m/cup", (0.1, 0.2, 0.1, 0.2)),
        row("0c3", "/m/person"),
        row("0e5", "/m/mug"),
    ]
    write_boxes(root / "oidv6-train-annotations-bbox.csv", train)
    write_boxes(root / "validation-annotations-bbox.csv", [row("0d4", "/m/mug")])
    return root


def write_boxes(file: Path, rows: Sequence[str], header: str = HEADER) -> None:
    file.write_text("\n".join([header, *rows]) + "\n")


def validation(source: Path, rows: Sequence[str], **options: Any) -> None:
    """Let the boxes of validation be these, and import."""
    write_boxes(source / "validation-annotations-bbox.csv", rows, **options)
    import_openimages(source, source.parent / "out")


def refusal(source: Path, error: type[Exception] = DatasetError) -> str:
    with pytest.raises(error) as refused:
        import_openimages(source, source.parent / "out")
    left = {entry.name for entry in source.parent.iterdir()}
    assert left <= {"openimages", ".out.mocha-pipe.lock"}, "nothing is left behind"
    return str(refused.value)


def test_56_classes_are_merged_into_31() -> None:
    merged = [name for names in OPEN_IMAGES.values() for name in names]
    assert (len(COARSE_NAMES), len(merged), len(set(merged))) == (31, 56, 56)
    ids = {"bottle": 0, "mug": 3, "remote": 12, "shoe": 19, "bags": 26, "spray": 30}
    assert {name: COARSE_NAMES.index(name) for name in ids} == ids
    assert OPEN_IMAGES["glass"] == ("Wine glass", "Drink")


def test_boxes_images_and_classes(source: Path, tmp_path: Path) -> None:
    imported = import_openimages(source, tmp_path / "out")
    assert [(part.split, part.images, part.boxes) for part in imported] == [("train", 2, 3), ("val", 1, 1)]
    train = open_source(tmp_path / "out/data.yaml", "train")
    assert train.class_names == COARSE_NAMES
    assert [record.name for record in train.records] == ["images/train/0a1.jpg", "images/train/0b2.jpg"]
    assert train.records[0].class_ids.tolist() == [COARSE_NAMES.index("mug"), COARSE_NAMES.index("ball")]
    np.testing.assert_allclose(train.records[0].xyxy, [[10, 4, 30, 12], [0, 10, 20, 20]], atol=1e-4)  # 40 x 20 pixels
    assert open_source(tmp_path / "out/data.yaml", "val").num_regions == 1


def test_what_is_left_out_is_counted(source: Path, tmp_path: Path) -> None:
    train, _ = import_openimages(source, tmp_path / "out")
    assert (train.groups, train.depictions, train.missing_images) == (1, 1, 1)


def test_data_check_finds_it_sound(source: Path, tmp_path: Path) -> None:
    import_openimages(source, tmp_path / "out")
    splits = check_dataset(tmp_path / "out/data.yaml")
    assert [(split.split, split.images, split.problems) for split in splits] == [
        ("train", 2, ()),
        ("val", 1, ()),
    ]


def test_images_are_links_or_copies(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import_openimages(Path("openimages"), Path("linked"))
    import_openimages(Path("openimages"), Path("copied"), copy=True)
    linked, copied = (tmp_path / out / "images/train/0a1.jpg" for out in ("linked", "copied"))
    assert linked.is_symlink()
    assert linked.readlink() == source / "train/0a1.jpg"
    assert not copied.is_symlink()
    assert copied.read_bytes() == linked.read_bytes()


def test_a_picture_that_training_would_rewrite_is_copied(source: Path, tmp_path: Path) -> None:
    """ultralytics saves a JPEG without its end marker anew, under the name that it has: through a link."""
    original = source / "train/0a1.jpg"
    original.write_bytes(original.read_bytes() + b"notes of the camera")
    import_openimages(source, tmp_path / "out")
    placed, other = (tmp_path / f"out/images/train/{name}.jpg" for name in ("0a1", "0b2"))
    assert (placed.is_symlink(), other.is_symlink()) == (False, True)
    assert placed.read_bytes() == original.read_bytes()
    assert placed.stat().st_ino != original.stat().st_ino


def test_an_image_id_never_becomes_a_path(source: Path, tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "secret.jpg")
    write_image(source / "secret.jpg")
    rows = [row(name, "/m/mug") for name in ("../secret", f"{tmp_path}/secret", "../../secret", "0d4")]
    validation(source, rows)
    out = tmp_path / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if "val" in path.parts) == [
        "images/val/0d4.jpg",
        "labels/val/0d4.txt",
    ]
    assert {entry.name for entry in tmp_path.iterdir()} - {".out.mocha-pipe.lock"} == {
        "openimages",
        "out",
        "secret.jpg",
    }


def test_one_box_under_two_merged_classes_is_one_box(source: Path, tmp_path: Path) -> None:
    validation(source, [row("0d4", "/m/mug"), row("0d4", "/m/cup"), row("0d4", "/m/volley")])
    assert (tmp_path / "out/labels/val/0d4.txt").read_text() == (
        "3 0.500000 0.400000 0.500000 0.400000\n11 0.500000 0.400000 0.500000 0.400000\n"
    )


def test_boxes_are_clipped_and_those_without_area_left_out(source: Path, tmp_path: Path) -> None:
    validation(source, [row("0d4", "/m/mug", (-0.2, 1.1, 0.5, 1.0)), row("0d4", "/m/mug", (0.3, 0.3000001, 0.1, 0.9))])
    assert (tmp_path / "out/labels/val/0d4.txt").read_text() == "3 0.500000 0.750000 1.000000 0.500000\n"


def test_unknown_attributes_do_not_leave_a_box_out(source: Path, tmp_path: Path) -> None:
    validation(source, [row("0d4", "/m/mug", group=-1, depiction=-1)])
    assert open_source(tmp_path / "out/data.yaml", "val").num_regions == 1


def test_classes_may_have_a_header_and_other_capitals(source: Path, tmp_path: Path) -> None:
    (source / "class-descriptions-boxable.csv").rename(source / "oidv7-class-descriptions-boxable.csv")
    file = source / "oidv7-class-descriptions-boxable.csv"
    file.write_text("LabelName,DisplayName\n" + file.read_text().replace("Coffee cup", "Coffee Cup"))
    assert import_openimages(source, tmp_path / "out")[0].boxes == 3


def test_a_split_without_images_or_without_boxes_is_left_out(source: Path, tmp_path: Path) -> None:
    write_boxes(source / "test-annotations-bbox.csv", [row("0d4", "/m/mug")])
    (source / "oidv6-train-annotations-bbox.csv").unlink()
    assert [part.split for part in import_openimages(source, tmp_path / "out")] == ["val"]
    keys = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert list(keys) == ["val", "names"]


def test_a_folder_in_use_is_not_written_into(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError) as refused:
        import_openimages(source, out)
    assert str(refused.value) == f"{out}: must be a new or empty folder, found something there; name another one"
    assert [entry.name for entry in out.iterdir()] == ["thesis.tex"]
    (out / "thesis.tex").unlink()
    import_openimages(source, out)


def test_nothing_to_import(source: Path) -> None:
    for file in source.glob("*-annotations-bbox.csv"):
        file.unlink()
    assert refusal(source, DatasetNotFoundError) == (
        f"{source}: a split is a file such as validation-annotations-bbox.csv and a folder of images such as "
        "validation/, found no such pair; put both there"
    )


def test_no_class_descriptions(source: Path) -> None:
    (source / "class-descriptions-boxable.csv").unlink()
    assert refusal(source, DatasetNotFoundError) == (
        f"{source}: class names are read from class-descriptions-boxable.csv, found no such file; put it there"
    )


def test_descriptions_of_other_classes(source: Path) -> None:
    file = source / "class-descriptions-boxable.csv"
    file.write_text("/m/person,Person\n")
    assert refusal(source) == (
        f"{file}: has lines such as '/m/02jvh9,Mug', but none names a class to import; get the file again"
    )


def test_two_files_of_one_split(source: Path) -> None:
    write_boxes(source / "train-annotations-bbox.csv", [])
    assert refusal(source) == (
        f"{source}: has two files of boxes for 'train', oidv6-train-annotations-bbox.csv and "
        "train-annotations-bbox.csv; move one away"
    )


def test_images_of_something_else(source: Path) -> None:
    for image in source.rglob("*.jpg"):
        image.rename(image.with_name(f"x{image.name}"))
    assert refusal(source) == (
        f"{source}: none of the images in train/, validation/ has a box of a coarse class; name the folder that holds "
        "the images of these CSV files"
    )


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            [],
            "ImageID,LabelName",
            ": must begin with the columns of Open Images, found no XMin in 'ImageID,LabelName'; get the file again",
        ),
        ([row("0d4", "/m/mug"), "0d4,xclick"], HEADER, ":3: has 2 of 13 values; get the file again"),
        (
            [row("0d4", "/m/mug", (0.1, "wide", 0.1, 0.2))],
            HEADER,
            ":2: XMin, XMax, YMin, YMax must be numbers, found ['0.1', 'wide', '0.1', '0.2']; mend the line",
        ),
        (
            [row("0d4", "/m/mug", (0.1, 0.2, "nan", 0.2))],
            HEADER,
            ":2: XMin, XMax, YMin, YMax must be numbers, found ['0.1', '0.2', 'nan', '0.2']; mend the line",
        ),
    ],
)
def test_boxes_that_break_the_format(source: Path, rows: list[str], header: str, message: str) -> None:
    file = source / "validation-annotations-bbox.csv"
    write_boxes(file, rows, header=header)
    assert refusal(source) == f"{file}{message}"


def test_text_that_is_not_utf8(source: Path) -> None:
    file = source / "validation-annotations-bbox.csv"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"bbox\.csv:\d+: must be CSV in UTF-8, found .*; get the file again$"):
        import_openimages(source, source.parent / "out")
