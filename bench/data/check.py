"""`data check` of many label files and their pictures, against decoding each once and against reading their bytes."""

import io
import tempfile
from pathlib import Path
from time import process_time

import numpy as np
from PIL import Image

from bench.figures import Figure
from mocha_pipe.data.checking.check import check_dataset

FILES = 100_000
_OBJECTS = 8  # in a label file
_SIDE = 96  # pixels
_KINDS = 50  # of pictures; all differ in a comment


def measure(root: Path) -> dict[str, Figure]:
    """Processor time of a check to that of a program that decodes the same files, and of one that reads their bytes."""
    place = root / "bench"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        data = write_files(Path(folder), FILES)
        read_bytes(data.parent)  # from the disk
        started = process_time()
        read_bytes(data.parent)
        read = process_time()
        decode_once(data.parent)
        decoded = process_time()
        (split,) = check_dataset(data)
        checked = process_time()
    assert (split.images, split.regions) == (FILES, FILES * _OBJECTS)
    assert [problem.where for problem in split.problems] == [str(data)], "that it has no `val:`, and nothing else"
    took, plain, whole = checked - decoded, read - started, decoded - read
    what = f"one process: data check of {FILES} label files of {_OBJECTS} lines and their pictures of {_SIDE} px"
    decoding = f"{took:.0f} s / {whole:.0f} s of processor time, {what} / each label file to numbers, picture to pixels"
    reading = f"{took:.0f} s / {plain:.1f} s of processor time, {what} / the bytes of each file, nothing decoded"
    return {
        "check_1e5_ratio": Figure(value=took / whole, target=3.0, better="lower", note=decoding),
        "check_1e5_bytes_ratio": Figure(value=took / plain, better="lower", note=reading),
    }


def write_files(folder: Path, number: int) -> Path:
    """Write a data set of one split without a fault; returns its data.yaml."""
    dice = np.random.default_rng(0)
    pictures = [_jpeg(dice.integers(0, 255, (_SIDE // 8, _SIDE // 8, 3), dtype=np.uint8)) for _ in range(_KINDS)]
    images, labels = folder / "images", folder / "labels"
    images.mkdir()
    labels.mkdir()
    for index in range(number):
        start, rest = pictures[index % _KINDS][:2], pictures[index % _KINDS][2:]
        comment = b"\xff\xfe\x00\x0a" + b"%08d" % index
        (images / f"{index:06d}.jpg").write_bytes(start + comment + rest)
        boxes = dice.uniform(0.2, 0.5, (_OBJECTS, 4)).tolist()
        lines = [f"{row % 3} {' '.join(f'{value:.6f}' for value in box)}\n" for row, box in enumerate(boxes)]
        (labels / f"{index:06d}.txt").write_text("".join(lines))
    data = folder / "data.yaml"
    data.write_text("train: images\nnames: [ball, mug, star]\n")
    return data


def read_bytes(folder: Path) -> int:
    """Read every label file and every picture; returns how many bytes there were."""
    return sum(len(path.read_bytes()) for kind in ("labels", "images") for path in (folder / kind).iterdir())


def decode_once(folder: Path) -> int:
    """Every label file to numbers and every picture to pixels; returns how many lines and values there were."""
    count = 0
    for path in (folder / "labels").iterdir():
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
        count += len(rows)
    for path in (folder / "images").iterdir():
        with Image.open(path) as image:
            count += np.asarray(image.convert("RGB")).size
    return count


def _jpeg(coarse: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((_SIDE, _SIDE)).save(stream, "JPEG", quality=85)
    return stream.getvalue()
