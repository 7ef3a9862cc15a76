"""Images that splits name: by the path on which ultralytics finds them, wherever they lie."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mocha_pipe.data.readers.listing import walk_images
from mocha_pipe.data.source import open_source, read_split
from mocha_pipe.data.types import DetectionSource

Make = Callable[..., Path]
Problems = Callable[..., list[tuple[str, str, str]]]
LINE = "0 0.5 0.5 0.5 0.5\n"
OTHER = "1 0.25 0.5 0.5 1\n2 0.5 0.5 1 1\n"


def as_ultralytics_reads(data: Path, split: str) -> list[tuple[str, list[list[float]]]]:
    """Per image its real path, and class, centre and size of each box."""
    from mocha_pipe.student.environment import prepare_environment

    prepare_environment()
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    content = check_det_dataset(data, autodownload=False)
    dataset = YOLODataset(img_path=content[split], data=content, task="detect", augment=False, imgsz=32)
    read = [
        (os.path.realpath(label["im_file"]), np.column_stack([label["cls"], label["bboxes"]]).round(5).tolist())
        for label in dataset.labels
    ]
    for cache in data.parents[1].rglob("*.cache"):
        cache.unlink()
    return sorted(read)


def as_we_read(source: DetectionSource) -> list[tuple[str, list[list[float]]]]:
    read = []
    for record in source.records:
        size = np.array([record.width, record.height] * 2)
        x1, y1, x2, y2 = (record.xyxy / size).T
        rows = np.column_stack([record.class_ids, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        read.append((os.path.realpath(record.path), (rows.astype(np.float32).astype(float).round(5) + 0).tolist()))
    return sorted(read)


def same(ours: list[tuple[str, list[list[float]]]], theirs: list[tuple[str, list[list[float]]]]) -> bool:
    return [path for path, _ in ours] == [path for path, _ in theirs] and all(
        np.allclose(np.array(one).reshape(-1, 5), np.array(other).reshape(-1, 5), atol=2e-5)
        for (_, one), (_, other) in zip(ours, theirs, strict=True)
    )


def linked_folder(make_yolo: Make, tmp_path: Path) -> Path:
    """images/train/s1 is a link to a folder beside, in the data set."""
    data = make_yolo({"train/a.jpg": LINE, "train/s1/c.jpg": OTHER})
    (data.parent / "raw").mkdir()
    shutil.move(data.parent / "images/train/s1", data.parent / "raw/s1")
    (data.parent / "images/train/s1").symlink_to("../../raw/s1")
    return data


def folder_linked_from_elsewhere(make_yolo: Make, tmp_path: Path) -> Path:
    data = make_yolo({"train/a.jpg": LINE, "train/s1/c.jpg": OTHER})
    shutil.move(data.parent / "images/train/s1", tmp_path / "album")
    (data.parent / "images/train/s1").symlink_to(tmp_path / "album")
    return data


def linked_picture(make_yolo: Make, tmp_path: Path) -> Path:
    data = make_yolo({"train/a.jpg": LINE, "train/b.jpg": OTHER})
    shutil.move(data.parent / "images/train/b.jpg", tmp_path / "photo.jpg")
    (data.parent / "images/train/b.jpg").symlink_to(tmp_path / "photo.jpg")
    return data


def linked_split(make_yolo: Make, tmp_path: Path) -> Path:
    """Resolved by ultralytics, labels too."""
    data = make_yolo({"train/a.jpg": LINE})
    make_yolo({"b.jpg": OTHER}, root=tmp_path / "far")
    shutil.rmtree(data.parent / "images/train")
    (data.parent / "images/train").symlink_to(tmp_path / "far/images")
    return data


def folder_elsewhere(make_yolo: Make, tmp_path: Path) -> Path:
    make_yolo({"train/a.jpg": LINE, "train/b.jpg": OTHER}, root=tmp_path / "far")
    return make_yolo({"val/c.jpg": LINE}, {"train": f"{tmp_path}/far/images/train", "val": "images/val"})


def two_folders(make_yolo: Make, tmp_path: Path) -> Path:
    make_yolo({"train/b.jpg": OTHER}, root=tmp_path / "far")
    return make_yolo({"train/a.jpg": LINE}, {"train": ["images/train", "../far/images/train"], "val": "images/train"})


def list_elsewhere(make_yolo: Make, tmp_path: Path) -> Path:
    make_yolo({"train/b.jpg": OTHER}, root=tmp_path / "far")
    data = make_yolo({"train/a.jpg": LINE}, {"train": "train.txt", "val": "images/train"})
    (data.parent / "train.txt").write_text(f"{tmp_path}/far/images/train/b.jpg\n./images/train/a.jpg\n")
    return data


def same_stem(make_yolo: Make, tmp_path: Path) -> Path:
    return make_yolo({"train/a.jpg": LINE, "train/a.png": OTHER, "train/b.jpg": LINE})


def twin_polygons(make_yolo: Make, tmp_path: Path) -> Path:
    return make_yolo({"train/a.jpg": "0 .1 .1 .5 .1 .1 .6\n0 .5 .6 .5 .1 .1 .6\n", "train/b.jpg": LINE})


def not_utf8(make_yolo: Make, tmp_path: Path) -> Path:
    data = make_yolo({"train/a.jpg": LINE, "train/b.jpg": OTHER})
    for folder, suffix in (("images", ".jpg"), ("labels", ".txt")):
        place = data.parent / folder / "train"
        (place / f"b{suffix}").rename(place / os.fsdecode(b"caf\xe9" + suffix.encode()))
    return data


LAYOUTS = [
    linked_folder, folder_linked_from_elsewhere, linked_picture, linked_split, folder_elsewhere, two_folders,
    list_elsewhere, same_stem, twin_polygons, not_utf8,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_images_and_boxes_are_those_of_ultralytics(
    make_yolo: Make, tmp_path: Path, layout: Callable[..., Path]
) -> None:
    data = layout(make_yolo, tmp_path)
    source = open_source(data, "train")
    ours = as_we_read(source)
    theirs = as_ultralytics_reads(data, "train")
    assert same(ours, theirs)
    assert sum(len(boxes) for _, boxes in ours) >= 2
    for record in source.records:  # names are text, sorted, and below the root
        assert record.name.encode().decode() == record.name
        assert record.name.isprintable()
        assert not record.name.startswith(("/", ".."))
    assert [record.name for record in source.records] == sorted(record.name for record in source.records)


def test_names_stay_where_everything_lies_in_the_root(make_yolo: Make) -> None:
    source = open_source(make_yolo({"train/a.jpg": LINE}))
    assert [record.name for record in source.records] == ["images/train/a.jpg"]


def test_names_of_images_elsewhere_start_at_the_common_folder(make_yolo: Make, tmp_path: Path) -> None:
    source = open_source(list_elsewhere(make_yolo, tmp_path))
    assert source.root == tmp_path
    assert [record.name for record in source.records] == ["far/images/train/b.jpg", "set/images/train/a.jpg"]


def test_a_list_that_comes_by_a_link_names_images_of_the_root(make_yolo: Make, tmp_path: Path) -> None:
    data = make_yolo({"train/a.jpg": LINE}, {"train": "train.txt"})
    (tmp_path / "short").symlink_to(data.parent)
    (data.parent / "train.txt").write_text(f"{tmp_path}/short/images/train/a.jpg\n")
    source = open_source(data)
    assert (source.root, [record.name for record in source.records]) == (data.parent, ["images/train/a.jpg"])


@pytest.mark.parametrize("target", ["..", ".", "../..", "../other"])
def test_a_link_back_is_not_walked_again(tmp_path: Path, write_image: Make, target: str) -> None:
    write_image(tmp_path / "set/top/a.jpg")
    write_image(tmp_path / "set/other/b.jpg")
    (tmp_path / "set/top/link").symlink_to(target)
    (tmp_path / "set/other/back").symlink_to("../top")
    found = sorted(path.relative_to(tmp_path / "set/top").as_posix() for path in walk_images(tmp_path / "set/top"))
    assert found == (["a.jpg", "link/b.jpg"] if target == "../other" else ["a.jpg"])


@pytest.mark.parametrize("entry", ["./images/train/a.jpg", ".\\images\\train\\a.jpg", "images\\train\\a.jpg"])
def test_entries_written_on_windows(make_yolo: Make, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    data = make_yolo({"train/a.jpg": LINE}, {"train": "train.txt"})
    (data.parent / "train.txt").write_text(f"{entry}\r\n")
    monkeypatch.chdir(data.parent)
    assert [record.name for record in open_source(data).records] == ["images/train/a.jpg"]


def test_entries_that_are_not_there_are_one_error(make_yolo: Make, problems_of: Problems, tmp_path: Path) -> None:
    data = make_yolo({"train/a.jpg": LINE}, {"train": "train.txt"})
    root = data.parent
    for entries, problem in [
        (
            "./images/train/a.jpg\n./images/train/gone.jpg\n./gone too.jpg\n",
            ("2", "2 of 3 images are not there, the first is './images/train/gone.jpg', looked for "
             f"{root}/images/train/gone.jpg; put them there or remove them from the list"),
        ),
        (
            "data/images/train/a.jpg\ndata/images/train/b.jpg\n",
            ("1", "2 of 2 images are not there, the first is 'data/images/train/a.jpg', looked for "
             f"{Path.cwd()}/data/images/train/a.jpg; entries without './' start at the working folder; write "
             "'./images/train/a.jpg', and the others alike"),
        ),
        (
            f"\n{tmp_path}/y.jpg\n",
            ("2", f"1 of 1 images are not there, the first is '{tmp_path}/y.jpg', looked for {tmp_path}/y.jpg; put "
             "them there or remove them from the list"),
        ),
        (
            "D:\\mugs\\a.jpg\n",
            ("1", "1 of 1 images are not there, the first is 'D:\\mugs\\a.jpg', a path of another machine, which runs "
             "Windows; write where the pictures lie on this one"),
        ),
    ]:  # fmt: skip
        (root / "train.txt").write_text(entries)
        line, message = problem
        assert problems_of(data)[0] == ("error", f"{root}/train.txt:{line}", message)


@pytest.mark.parametrize("entry", ["data/images/train/{}.jpg", "images/train/{}.jpg", "data\\images\\train\\{}.jpg"])
def test_the_remedy_for_a_list_works_when_it_is_typed(
    make_yolo: Make, problems_of: Problems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """Darknet's lists start at darknet's own folder; nothing is known of it but what lies beside the list."""
    data = make_yolo({"train/a b.jpg": LINE, "train/c.jpg": OTHER}, {"train": "train.txt"})
    monkeypatch.chdir(tmp_path)
    (data.parent / "train.txt").write_text("".join(entry.format(name) + "\n" for name in ("a b", "c")))
    ((_, _, message),) = problems_of(data)
    written = message.partition("write '")[2].partition("'")[0]
    assert written == "./images/train/a b.jpg"
    (data.parent / "train.txt").write_text(f"{written}\n{written.replace('a b', 'c')}\n")
    assert len(open_source(data).records) == 2


@pytest.mark.parametrize("entry", ["x" * 100_000, "a\0b", "./" * 50_000 + "a", "data/" + "y" * 300])
def test_entries_that_no_disk_has_are_one_line(make_yolo: Make, problems_of: Problems, entry: str) -> None:
    data = make_yolo({"train/a.jpg": LINE}, {"train": "train.txt"})
    (data.parent / "train.txt").write_text(f"{entry}.jpg\n./images/train/a.jpg\n")
    (problem,) = problems_of(data)
    assert problem[2].startswith("1 of 2 images are not there, the first is '")
    assert len(problem[2]) < 1000
    assert "\n" not in problem[2]


def test_a_listed_image_that_is_gone_is_not_set_aside(make_yolo: Make) -> None:
    data = make_yolo({"train/a.jpg": LINE}, {"train": "train.txt"})
    (data.parent / "train.txt").write_text("./images/train/a.jpg\n./images/train/gone.jpg\n")
    (problem,) = read_split(data, "train").problems
    assert (problem.severity, problem.unreadable) == ("error", False)


def test_lines_of_a_list_that_name_no_image(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo({"train/a.jpg": LINE, "train/b.jpg": LINE}, {"train": "list.txt"})
    listed = data.with_name("list.txt")
    listed.write_text("# made by hand\n./images/train/a.jpg\n./images/train/b.jpg 1,2,3,4,0\n./c.jfif\n")
    rule = "a line is the path of one image and nothing else, such as ./images/a.jpg"
    left = "2 lines end in no suffix of an image and are left out, the first is './images/train/b.jpg 1,2,3,4,0'"
    assert problems_of(data) == [("warning", f"{listed}:3", f"{left}; {rule}")]
    listed.write_text("./images/train/b.jpg 1,2,3,4,0\n")
    ((severity, where, message),) = problems_of(data)
    assert (severity, where) == ("error", f"{listed}:1")
    assert message.startswith("1 line ends in no suffix of an image and is left out")


def test_a_picture_that_is_listed_already_is_no_remedy(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo({"train/a.jpg": LINE, "train/b.jpg": LINE}, {"train": "list.txt"})
    data.with_name("list.txt").write_text("./images/train/a.jpg\n/gone/images/train/a.jpg\n")
    ((_, _, message),) = problems_of(data)
    assert message.endswith("put them there or remove them from the list")


def test_label_files_without_an_image(make_yolo: Make, problems_of: Problems) -> None:
    data = make_yolo({"train/a.jpg": LINE, "val/b.jpg": LINE}, {"val": "images/val"})
    labels = data.with_name("labels") / "train"
    for name in ("classes.txt", ".hidden.txt", "deep/.hidden/x.txt", "none.txt", "deep/empty.txt"):
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_text("" if "empty" in name else LINE)
    labels.joinpath("gone.txt").symlink_to("nowhere.txt")
    many = "1 label file has no image and no box of theirs is read, the first is"
    there = f"put {data.parent}/images/train/none.jpg there, or remove the label file"
    assert problems_of(data) == [("warning", f"{data}: train", f"{many} {labels}/none.txt; {there}")]
    assert problems_of(data, "val") == []
    data.with_name("images").joinpath("train/none.jfif").write_bytes(b"")
    ((_, _, message),) = problems_of(data)
    assert message.endswith("none.txt; none.jfif is of no kind that `yolo train` reads; save it as PNG or JPEG")
