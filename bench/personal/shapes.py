"""Does the exported file find what `detect` finds, whatever the shape of a picture? By the documented program.

A small student is trained on the miniature world and taught the objects of its benchmark from one scene each. The
pictures are the middles of other scenes of that benchmark, cut to six shapes and enlarged, so that both sides resize
and letterbox.
"""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.figures import Figure
from bench.runs import in_a_process
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.images import read_image
from mocha_pipe.data.miniature import WorldSize
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.settings.recipes import miniature
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_student

PICTURES, EPOCHS, OBJECTS = 100, 5, 24
SHAPES = ((1, 1), (4, 3), (3, 2), (16, 9), (2, 1), (9, 16))
"""Width to height."""
WORLD = WorldSize(train_scenes=800, val_scenes=120, objects_per_shape=3, scenes_per_object=6)
CLOSE = 0.5
"""Pixels of the picture by which a box's corners may differ."""
_SIDES = (333, 480, 640, 901)
_DOCUMENT = Path(__file__).parents[2] / "docs" / "onnx.md"


class Found(NamedTuple):
    """What one side finds in one picture."""

    xyxy: NDArray[np.floating]  # (N, 4)
    names: list[tuple[str, str]]
    """Of each box: its name, and the class that the detector says."""


def measure(root: Path, *, config: RunConfig | None = None, pictures: int = PICTURES) -> dict[str, Figure]:
    """How many pictures have equal boxes, classes and names on both sides."""
    config = config or small_demo(root / "bench-shapes")
    student = in_a_process("training", train, config)
    benchmark = open_benchmark(config.miniature_folder / "benchmark")
    folder = config.root / "device"
    taught = teach(student, benchmark, folder / "profile.safetensors")
    shown = [index for index in range(len(benchmark.source.records)) if index not in taught]
    paths = [picture(benchmark, image, number, folder) for number, image in enumerate(shown[:pictures])]
    here, there = detector(student, folder), _program(student, folder)
    pairs = [(here(path), there(path)) for path in paths]
    boxes = sum(len(found.names) for found, _ in pairs)
    named = sum(name != coarse for found, _ in pairs for name, coarse in found.names)
    return {
        "detect_vs_export_equal": Figure(
            value=sum(equal(*pair) for pair in pairs), target=float(pictures), better="higher",
            note=f"of {len(paths)} pictures in {len(SHAPES)} shapes: {boxes} boxes within {CLOSE} px, their classes "
            f"and {named} personal names, by `detect` and by the program of docs/onnx.md",
        )
    }  # fmt: skip


def equal(one: Found, other: Found) -> bool:
    """Whether both have the same boxes of the same names, in whatever order."""
    if sorted(one.names) != sorted(other.names):
        return False
    left = list(range(len(other.names)))
    for corners, name in zip(one.xyxy, one.names, strict=True):
        fits = [row for row in left if other.names[row] == name and np.abs(other.xyxy[row] - corners).max() <= CLOSE]
        if not fits:
            return False
        left.remove(fits[0])
    return True


def small_demo(root: Path) -> RunConfig:
    """The miniature with fewer scenes and epochs."""
    config = miniature(root)
    return replace(
        config,
        miniature=replace(config.miniature, size=WORLD),
        pretrain=replace(config.pretrain, epochs=EPOCHS, device="cpu"),
        distill=replace(config.distill, epochs=EPOCHS, device="cpu"),
    ).resolved()


def train(config: RunConfig) -> Path:
    """The student's folder; what is there already is not made again."""
    build_teacher_cache(config)
    return distill_student(config).path("student")


def teach(student: Path, benchmark: PersonalBenchmark, path: Path) -> set[int]:
    """Write the profile of all objects; the records that they were learnt from."""
    from mocha_pipe.student.network.embedder import RegionEmbedder
    from mocha_pipe.student.network.student_files import load_student
    from mocha_pipe.student.personal.profile import Profile, student_digest

    loaded = load_student(student)
    found = RegionEmbedder(loaded, image_size=loaded.image_size).embed_pool(benchmark.source)
    records = benchmark.source.records
    image = np.repeat(np.arange(len(records)), [len(record.class_ids) for record in records])
    personal = np.concatenate([record.class_ids for record in records])
    profile, taught = Profile.empty(student_digest(student), loaded.class_names), set()
    for index, name in enumerate(benchmark.source.class_names[:OBJECTS]):
        row = int(np.flatnonzero(personal == index)[0])
        coarse = loaded.class_names.index(benchmark.coarse_names[benchmark.coarse_of[index]])
        profile = profile.add(f"my {name}", found.region_embedding[[row]], np.array([coarse]))
        taught.add(int(image[row]))
    profile.save(path)
    return taught


def picture(benchmark: PersonalBenchmark, image: int, number: int, folder: Path) -> Path:
    """The middle of a scene in the shape of this number, enlarged; as PNG, which every library decodes alike."""
    wide, high = SHAPES[number % len(SHAPES)]
    scene = Image.fromarray(read_image(benchmark.source.records[image].path))
    side, longer = scene.width, max(wide, high)
    width, height = round(side * wide / longer), round(side * high / longer)
    left, top = (side - width) // 2, (side - height) // 2
    scale = _SIDES[number % len(_SIDES)] / side
    path = folder / f"picture{number:03}.png"
    cut = scene.crop((left, top, left + width, top + height))
    cut.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC).save(path)
    return path


def detector(student: Path, folder: Path) -> Callable[[Path], Found]:
    """What `mocha-pipe detect` calls."""
    from mocha_pipe.student.personal.detector import PersonalDetector

    detector = PersonalDetector.load(student, folder / "profile.safetensors")

    def find(path: Path) -> Found:
        (result,) = detector(path)
        columns = (result.boxes.cls.int().tolist(), result.coarse.int().tolist())
        return Found(
            result.boxes.xyxy.numpy(),
            [(result.names[name], result.names[own]) for name, own in zip(*columns, strict=True)],
        )

    return find


def _program(student: Path, folder: Path) -> Callable[[Path], Found]:
    """The program for a device, as it stands in the documentation, beside the files that it reads."""
    from mocha_pipe.student.personal.export import export_student

    export_student(student, folder / "student.onnx")
    np.save(folder / "frame.npy", np.full((90, 160, 3), 114, np.uint8))
    program: dict[str, Any] = {}
    with _quietly_in(folder):
        exec(_documented(), program)  # noqa: S102

    def find(path: Path) -> Found:
        boxes, _, kinds, rows, *_ = program["detect"](read_image(path))
        classes, objects, names = program["classes"], program["personal"], program["names"]
        return Found(
            boxes,
            [
                (names[objects[row]] if row >= 0 else classes[kind], classes[kind])
                for kind, row in zip(kinds, rows, strict=True)
            ],
        )

    return find


def _documented() -> str:
    programs = re.findall(r"```python\n(.*?)```", _DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(programs[0])


@contextlib.contextmanager
def _quietly_in(folder: Path) -> Iterator[None]:
    with chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        yield
