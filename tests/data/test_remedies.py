"""What `data check` advises works when it is done: each fault is made, read about, mended as told, and gone."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.errors import MochaError

Make = Callable[..., Path]
LINE = "0 0.5 0.5 0.5 0.5\n"
SOUND = {"train/a.jpg": f"{LINE}1 0.25 0.5 0.1 0.2\n", "train/b.jpg": LINE, "val/c.jpg": LINE}
Fault = tuple[str, Callable[[Path], None], Callable[[Path, str], None]]


def label(data: Path, text: str) -> None:
    (data.parent / "labels/train/b.txt").write_text(text)


def remove(data: Path, name: str) -> None:
    (data.parent / "images" / name).unlink()
    (data.parent / "labels" / name).with_suffix(".txt").unlink()


def keys(data: Path, old: str, new: str) -> None:
    data.write_text(data.read_text().replace(old, new))


def float_tiff(data: Path) -> None:
    (data.parent / "images/train/b.jpg").unlink()
    Image.fromarray(np.full((20, 40), 0.5, np.float32)).save(data.parent / "images/train/b.tif")


def as_png(data: Path, message: str) -> None:
    picture = data.parent / "images/train/b.tif"
    with Image.open(picture) as image:
        Image.fromarray((np.asarray(image) * 255).astype(np.uint8)).save(picture.with_suffix(".png"))
    picture.unlink()


def written(message: str, word: str = "write") -> str:
    """What a message tells to write, which stands in quotes."""
    found = re.search(rf"{word} '([^']+)'", message)
    assert found, message
    return found[1]


def two_places(data: Path) -> None:
    """Called in a folder where the very path leads somewhere else."""
    data.write_text(f"path: .\n{data.read_text()}")
    shutil.copytree(data.parent / "images", Path.cwd() / "images")


def list_of_darknet(data: Path) -> None:
    (data.parent / "train.txt").write_text("data/images/train/a.jpg\ndata/images/train/b.jpg\n")
    keys(data, "train: images/train", "train: train.txt")


def as_listed(data: Path, message: str) -> None:
    first = written(message)
    (data.parent / "train.txt").write_text(f"{first}\n{first.replace('a.jpg', 'b.jpg')}\n")


FAULTS: dict[str, Fault] = {
    "float": (r"save it as PNG or JPEG", float_tiff, as_png),
    "channels": (
        r"remove 'channels:'",
        lambda data: data.write_text(f"channels: 1\n{data.read_text()}"),
        lambda data, message: keys(data, "channels: 1\n", ""),
    ),
    "two places": (
        r"write 'path: /.+' so that there is only one",
        two_places,
        lambda data, message: keys(data, "path: .\n", f"{written(message)}\n"),
    ),
    "darknet's list": (r"write './images/train/a.jpg', and the others alike", list_of_darknet, as_listed),
    "ids from 1": (
        r"subtract 1 from every id",
        lambda data: [
            (data.parent / "labels" / name).with_suffix(".txt").write_text(text)
            for name, text in {
                "train/a.jpg": "1 0.5 0.5 0.5 0.5\n2 0.5 0.5 1 1\n",
                "train/b.jpg": "3 0.5 0.5 1 1\n",
            }.items()
        ],
        lambda data, message: [
            file.write_text("".join(f"{int(line[0]) - 1}{line[1:]}\n" for line in file.read_text().splitlines()))
            for file in (data.parent / "labels/train").iterdir()
        ],
    ),
    "repeated line": (
        r"delete repeated lines",
        lambda data: label(data, LINE * 3),
        lambda data, message: label(data, LINE),
    ),
    "pixels": (
        r"divide pixels by its width and height",
        lambda data: label(data, "0 20 10 20 10\n"),
        lambda data, message: label(data, f"0 {20 / 40} {10 / 20} {20 / 40} {10 / 20}\n"),
    ),
    "twice": (
        r"keep one of each",
        lambda data: shutil.copy(data.parent / "images/train/a.jpg", data.parent / "images/train/b.jpg"),
        lambda data, message: remove(data, "train/b.jpg"),
    ),
    "no picture": (
        r"1 label file has no image .*, or remove the label file",
        lambda data: (data.parent / "images/train/b.jpg").unlink(),
        lambda data, message: (data.parent / "labels/train/b.txt").unlink(),
    ),
    "another suffix": (
        r"b\.jfif is of no kind that `yolo train` reads; save it as PNG or JPEG",
        lambda data: (data.parent / "images/train/b.jpg").rename(data.parent / "images/train/b.jfif"),
        lambda data, message: Image.open(data.parent / "images/train/b.jfif").save(data.parent / "images/train/b.png"),
    ),
    "few": (
        r"draw more boxes",
        lambda data: [
            remove(data, "train/b.jpg"),
            (data.parent / "labels/train/a.txt").write_text(LINE),
        ],
        lambda data, message: (data.parent / "labels/train/a.txt").write_text(SOUND["train/a.jpg"]),
    ),
}


def problems(data: Path) -> list[str]:
    try:
        return [found.message for split in check_dataset(data) for found in split.problems]
    except MochaError as refused:
        return [str(refused)]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_remedy_works(make_yolo: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    advice, damage, mend = FAULTS[fault]
    data = make_yolo(SOUND, {"val": "images/val"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert problems(data) == []
    damage(data)
    (message,) = problems(data)
    assert re.search(advice, message)
    mend(data, message)
    assert problems(data) == []
