"""A made-up data set for measurements that need files but no meaning: JPEGs of noise as large as photos, with boxes."""

import io
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from bench.inputs import BenchInputs
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source

NUM_CLASSES, MOST_BOXES = 80, 14
"""As many classes as COCO has, and at most twice its mean of boxes."""
_DISTINCT = 64  # files hold one of so many pictures: decoding one of them again costs no less
_GRAIN = 4  # pixels; noise of this size makes a JPEG as large as a photo's


def picture_inputs(folder: Path, *, images: int, side: int, names: Sequence[str] = ()) -> BenchInputs:
    """Training images of side x 3/4 side pixels and a few for validation, written to an empty folder, and their table.

    The same numbers give the same files. There are `NUM_CLASSES` classes, by these names where some are given.
    """
    generator = np.random.default_rng(0)
    pictures = [_jpeg(generator, side) for _ in range(min(images, _DISTINCT))]
    for split, number in (("train", images), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index, content in enumerate(islice(cycle(pictures), number)):
            (folder / "images" / split / f"{index:06d}.jpg").write_bytes(content)
            np.savetxt(folder / "labels" / split / f"{index:06d}.txt", _boxes(generator), fmt="%d %.4f %.4f %.4f %.4f")
    of_class = dict(enumerate(names or [f"class {index}" for index in range(NUM_CLASSES)]))
    places = {split: f"images/{split}" for split in ("train", "val")}
    data = folder / "data.yaml"
    data.write_text(yaml.safe_dump({"path": str(folder.resolve()), **places, "names": of_class}))
    source = open_source(data, "train")
    return BenchInputs(data=data, source=source, table=RegionTable.build(source))


def _jpeg(generator: np.random.Generator, side: int) -> bytes:
    height, width = 3 * side // 4, side
    noise = generator.integers(0, 256, (height // _GRAIN, width // _GRAIN, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


def _boxes(generator: np.random.Generator) -> NDArray[np.float64]:  # (n, 5)
    """Class, centre and size, in shares of the image."""
    number = generator.integers(1, MOST_BOXES, endpoint=True)
    size = generator.uniform(0.1, 0.5, (number, 2))
    centre = generator.uniform(size / 2, 1 - size / 2)
    return np.column_stack([generator.integers(0, NUM_CLASSES, number), centre, size])
