"""A world of a few scenes for measurements that need pictures."""

import pytest

from bench.inputs import BenchInputs
from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> BenchInputs:
    folder = tmp_path_factory.mktemp("bench") / "world"
    size = WorldSize(train_scenes=24, val_scenes=1, objects_per_shape=2, scenes_per_object=1)
    make_miniature(folder, size, progress=False)
    source = open_source(folder / "data.yaml", "train")
    return BenchInputs(data=folder / "data.yaml", source=source, table=RegionTable.build(source))
