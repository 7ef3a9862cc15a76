"""The published benchmarks in their layouts: every object they name, a few images of each, 24 x 16 pixels."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BOX = "0.5 0.5 0.5 0.5"

WriteScene = Callable[..., Path]


@pytest.fixture(scope="session")
def write_scene() -> WriteScene:
    """write_scene(image, label, ids): noise, and a label file with one box of each id; None writes no label file."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8))
    encoded: dict[str, bytes] = {}  # nothing that these tests read looks at the pixels

    def write(image: Path, label: Path | None = None, ids: Sequence[int] = ()) -> Path:
        image.parent.mkdir(parents=True, exist_ok=True)
        if image.suffix in encoded:
            image.write_bytes(encoded[image.suffix])
        else:
            noise.save(image)
            encoded[image.suffix] = image.read_bytes()
        if label:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("".join(f"{number} {BOX}\n" for number in ids))
        return image

    return write


@pytest.fixture(scope="session")
def write_split(write_scene: WriteScene) -> Callable[..., list[str]]:
    """write_split(root, folder, num_objects, copies): `folder/images/<id>_<copy>.jpg` and labels; the images' stems."""

    def write(root: Path, folder: str, num_objects: int, copies: Iterable[int]) -> list[str]:
        stems = [f"{number:02}_{copy}" for number in range(num_objects) for copy in copies]
        for stem in stems:
            number = int(stem.split("_")[0])
            write_scene(root / folder / f"images/{stem}.jpg", root / folder / f"labels/{stem}.txt", [number])
        return stems

    return write


def episodes(num_objects: int, shots: int, copies: int, count: int = 2) -> list[dict[str, list[str]]]:
    """Episode e teaches with copies e, e + 1, ... of every object and asks about the others."""
    drawn = []
    for episode in range(count):
        taught = [(episode + shot) % copies for shot in range(shots)]
        drawn.append(
            {
                "train": [f"{number:02}_{copy}.jpg" for number in range(num_objects) for copy in taught],
                "val": [
                    f"{n:02}_{copy}.jpg" for n in range(num_objects) for copy in range(copies) if copy not in taught
                ],
            }
        )
    return drawn


@pytest.fixture(scope="session")
def kept() -> dict[Path, dict[Path, tuple[bytes, int]]]:
    """By folder that `bent` was given: content and time of its files."""
    return {}


@pytest.fixture
def bent(kept: dict[Path, dict[Path, tuple[bytes, int]]]) -> Iterator[Callable[[Path], Path]]:
    """bent(root): the same folder, whose files may be changed and removed; all of them are put back afterwards."""
    given: list[Path] = []

    def keep(root: Path) -> Path:
        given.append(root)
        if root not in kept:
            files = [path for path in root.rglob("*") if path.is_file()]
            kept[root] = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
        return root

    yield keep
    for path, (content, time) in kept[given[0]].items():
        if not path.exists() or path.stat().st_mtime_ns != time:
            path.write_bytes(content)
            os.utime(path, ns=(time, time))


@pytest.fixture(scope="session")
def build_perseg(write_split: Callable[..., list[str]]) -> Callable[[Path], Path]:
    """PerSeg: images, labels and episodes.json (two 1-shot episodes), three images of each object."""

    def build(root: Path) -> Path:
        write_split(root, ".", 39, range(3))
        write_json(root / "episodes.json", episodes(39, 1, 3))
        return root

    return build


@pytest.fixture(scope="session")
def build_handheld(write_split: Callable[..., list[str]]) -> Callable[[Path, int], Path]:
    """CORe50 or iCubWorld: train and val, episodes of 1 and 2 shots that leave copy 3 of every object out."""

    def build(root: Path, num_objects: int) -> Path:
        write_split(root, "train", num_objects, range(4))
        write_split(root, "val", 1, range(1))
        for shots in (1, 2):
            write_json(root / f"episodes_{shots}shot.json", episodes(num_objects, shots, 3))
        return root

    return build


@pytest.fixture(scope="session")
def build_pod(write_split: Callable[..., list[str]]) -> Callable[[Path], Path]:
    """POD: three support images of each object, of which class_to_images.json lists two; four folders of queries."""

    def build(root: Path) -> Path:
        write_split(root, "train", 45, range(3))
        for place, folder in enumerate(("val_crop", "val", "val_light", "val_dark")):
            write_split(root, folder, 2 + place, range(1))
        kinds = [
            "book", "bottle", "can", "clock", "fruit", "glass", "glasses", "mouse", "mug", "pen", "phone", "remote",
            "scissors", "shoe", "toy",
        ]  # fmt: skip
        names = [f"{kind}{number}" for kind in kinds for number in (1, 2, 3)]
        lists = {name: [f"{number:02}_{copy}" for copy in (0, 1)] for number, name in enumerate(names)}
        write_json(root / "class_to_images.json", lists)
        return root

    return build


@pytest.fixture(scope="session")
def build_pods(write_scene: WriteScene) -> Callable[[Path], Path]:
    """PODS: three objects of two kinds, two photographs of each to learn from and two to ask about, all with masks."""

    def build(root: Path) -> Path:
        things = {"mug_red": "mug", "tote_blank": "tote", "mug_blue": "mug"}
        for split in ("train", "test_dense"):
            for place, thing in enumerate(things):
                for copy in range(2):
                    write_scene(root / split / thing / f"{copy}.jpg")
                    mask = Image.new("L", (24, 16))
                    mask.paste(255, (6, 4, 18 - place, 12))
                    (root / f"{split}_masks" / thing).mkdir(parents=True, exist_ok=True)
                    mask.save(root / f"{split}_masks" / thing / f"{copy}.png")
        write_scene(root / "test" / "mug_red" / "7.jpg")  # without a mask
        info = {
            "classes": list(things),
            "class_to_idx": {name: number for number, name in enumerate(things)},
            "class_to_sc": things,
            "class_to_split": dict.fromkeys(things, "test"),
        }
        write_json(root / "pods_info.json", info)
        return root

    return build


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
