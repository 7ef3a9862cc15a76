"""A small world of the soak and an undisturbed build of it, which nobody changes."""

from pathlib import Path

import pytest

from bench.soak.killing import DIM, ROWS_PER_SHARD, World, make_world
from bench.synthetic import CheapTeacher
from mocha_pipe.teacher_cache.building.build import build_cache


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "world", 44)


@pytest.fixture(scope="module")
def reference(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed build, with its log beside it."""
    folder = tmp_path_factory.mktemp("reference") / "cache"
    teacher = CheapTeacher(world.spec, folder.parent / "log")
    build_cache(
        world.source, world.table, folder, spec=world.spec, load_teacher=lambda: teacher, dim=DIM, batch=2,
        rows_per_shard=ROWS_PER_SHARD,
    )  # fmt: skip
    return folder
