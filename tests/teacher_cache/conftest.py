"""The world of fakes.py as fixtures."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from tests.teacher_cache.fakes import (
    SPEC,
    FakeTeacher,
    another_process,
    build,
    file_tree,
    make_source,
    region_rows,
    repeated,
)


@pytest.fixture(scope="session")
def helpers() -> SimpleNamespace:
    """What the tests of this folder share."""
    return SimpleNamespace(
        spec=SPEC,
        Teacher=FakeTeacher,
        make_source=make_source,
        build=build,
        file_tree=file_tree,
        region_rows=region_rows,
        repeated=repeated,
        another_process=another_process,
    )


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> DetectionSource:
    """85 regions in 26 images: three shards of 32 rows, the last one short."""
    source = make_source(tmp_path_factory.mktemp("images"))
    assert source.num_regions == 85
    return source


@pytest.fixture(scope="session")
def table(source: DetectionSource) -> RegionTable:
    return RegionTable.build(source)


@pytest.fixture(scope="session")
def finished(source: DetectionSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete cache; tests only read it."""
    folder = tmp_path_factory.mktemp("finished") / "cache"
    build(source, folder, FakeTeacher())
    return folder
