"""What the measurements run on: the miniature world, which is written once below a root, and the shipped teacher."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mocha_pipe.data.miniature import WorldSize
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.pipeline.run.datasets import make_world, training_regions
from mocha_pipe.pipeline.run.inputs import MINIATURE_TEACHER, teacher_config
from mocha_pipe.pipeline.settings.recipes import miniature
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

if TYPE_CHECKING:
    from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

WORLD = WorldSize(train_scenes=1000, val_scenes=40, objects_per_shape=2, scenes_per_object=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchInputs:
    """A data set with its table."""

    data: Path
    source: DetectionSource
    table: RegionTable


def bench_inputs(root: Path) -> BenchInputs:
    """The miniature world below `root`; it is written if it is missing."""
    config = miniature(root / "bench")
    config = replace(config, miniature=replace(config.miniature, size=WORLD)).resolved()
    make_world(config)
    source, table = training_regions(config)
    return BenchInputs(data=config.miniature_folder / "data.yaml", source=source, table=table)


def shipped_teacher(**options: object) -> "LlavaTeacher":
    """The miniature teacher on the CPU."""
    from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

    return LlavaTeacher.load(teacher_config(TeacherConfig(model=MINIATURE_TEACHER, device="cpu", **options)))  # type: ignore[arg-type]
