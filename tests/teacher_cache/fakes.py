"""A small noisy data set, a teacher that is a fixed function of a crop's pixels and its class name, other processes."""

import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.data.images import read_image
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.teacher_cache.building.build import BuildReport, build_cache
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings

CLASS_NAMES = ("mug", "key ring", "plush toy")
HIDDEN_DIM, VISUAL_DIM = 24, 8
SPEC = TeacherSpec(
    model="fake/teacher",
    revision="0123abcd",
    prompt="Describe the {label}.",
    mode="prompt",
    layer=-1,
    pooling="mean of the text tokens",
    crop_margin=0.1,
    crop_size=16,
    dtype="float32",
    visual="tower",
    visual_revision="0123abcd",
    max_new_tokens=0,
    num_beams=1,
    hidden_dim=HIDDEN_DIM,
    visual_dim=VISUAL_DIM,
)


def make_source(root: Path, *, images: int = 26, seed: int = 0) -> DetectionSource:
    """Noise images with 0 to 7 boxes each; the same arguments give the same files."""
    generator = np.random.default_rng(seed)
    records = []
    for index in range(images):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        path = root / f"image{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # another process of the same test may be reading it
            Image.fromarray(pixels).save(path)
        count = index % 8
        corners = generator.uniform(0, (24, 20), (count, 2))
        xyxy = np.concatenate([corners, corners + generator.uniform(6, 18, (count, 2))], axis=1)
        ids = generator.integers(0, len(CLASS_NAMES), count)
        records.append(ImageRecord(path=path, name=path.name, width=48, height=40, xyxy=xyxy, class_ids=ids))
    return DetectionSource(root=root, split="train", class_names=CLASS_NAMES, records=tuple(records))


def region_name(crop: NDArray[np.uint8], class_name: str) -> str:
    return hashlib.blake2b(crop.tobytes() + class_name.encode(), digest_size=8).hexdigest()


def region_rows(source: DetectionSource) -> dict[str, int]:
    """Row of each region by the name that a teacher with a log notes."""
    table, rows = RegionTable.build(source), {}
    for row, image in enumerate(table.image_of_rows(np.arange(len(table)))):
        crop = cut_crop(read_image(source.records[image].path), table.xyxy[row], SPEC.crop_margin, SPEC.crop_size)
        rows[region_name(crop, table.class_name(row))] = row
    return rows


@dataclass
class FakeTeacher:
    """Deterministic, in numpy, and the same for a crop alone or in any batch."""

    spec: TeacherSpec = SPEC
    delay: float = 0.0
    log: Path | None = None
    damage: Callable[[RegionEmbeddings, int], RegionEmbeddings] | None = None
    calls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        num_values = self.spec.hidden_dim + self.spec.visual_dim
        self._weights = np.random.default_rng(7).normal(size=(num_values, 48))  # of 4 x 4 cells of three colours

    def embed(self, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]) -> RegionEmbeddings:
        time.sleep(self.delay)
        if self.log:
            with self.log.open("a") as log:
                log.writelines(f"{region_name(*region)}\n" for region in zip(crops, class_names, strict=True))
        hidden, visual = zip(*map(self._embed_one, crops, class_names), strict=True)
        embeddings = RegionEmbeddings(hidden=np.stack(hidden), visual=np.stack(visual))
        first = sum(self.calls)
        self.calls.append(len(crops))
        return self.damage(embeddings, first) if self.damage else embeddings

    def tokens(self, class_name: str) -> int:
        return len(class_name)

    def _embed_one(self, crop: NDArray[np.uint8], class_name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        size = self.spec.crop_size
        assert crop.shape == (size, size, 3)
        assert crop.dtype == np.uint8
        cells = crop.reshape(4, size // 4, 4, size // 4, 3).mean(axis=(1, 3)).ravel() / 255 - 0.5
        seed = int(region_name(np.zeros(0, np.uint8), class_name), 16)
        values = self._weights @ cells + 0.3 * np.random.default_rng(seed).normal(size=len(self._weights))
        hidden_dim = self.spec.hidden_dim
        return (4 * values[:hidden_dim]).astype(np.float32), np.tanh(values[hidden_dim:]).astype(np.float32)


def build(source: DetectionSource, folder: Path, teacher: FakeTeacher | None, **options: Any) -> BuildReport:
    """`build_cache` in shards of 32 rows; without a teacher, loading one fails. The table follows from the source."""

    def load_teacher() -> FakeTeacher:
        assert teacher is not None, "the teacher must not be loaded"
        return teacher

    spec = options.pop("spec", teacher.spec if teacher else SPEC)
    table = options.pop("table", None) or RegionTable.build(source)
    options = {"rows_per_shard": 32, "batch": 5, **options}
    return build_cache(source, table, folder, spec=spec, load_teacher=load_teacher, **options)


def repeated(source: DetectionSource) -> DetectionSource:
    """The same images once more under other names, after the first ones, and in each of these its first box twice."""
    again = []
    for record in source.records:
        boxes = [*range(len(record.class_ids)), *[0][: len(record.class_ids)]]
        name = f"z-{record.name}"
        again.append(replace(record, name=name, xyxy=record.xyxy[boxes], class_ids=record.class_ids[boxes]))
    return replace(source, records=(*source.records, *again))


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["mocha_pipe.teacher_cache.building.build", "PIL.PngImagePlugin", "pytest"])


@contextmanager
def another_process(target: Callable[..., None], *arguments: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """A real process that runs `target(connection, *arguments)`, and our end of the connection; killed at the end.

    It starts in milliseconds: a server that has imported what it needs forks it. The server has one thread, and no
    thread of this process comes along.
    """
    ours, theirs = _SERVER.Pipe()
    process = _SERVER.Process(target=target, args=(theirs, *arguments))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # for the server, which the first call starts
        process.start()
    theirs.close()  # so that a process which dies ends the connection
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def file_tree(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
