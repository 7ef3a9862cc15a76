"""`mocha-pipe data pack`: the data set of a configuration as tar shards."""

from collections.abc import Sequence
from pathlib import Path

from mocha_pipe.data.packing.pack import DEFAULT_SHARD_MB, PackedSplit, pack
from mocha_pipe.data.shards.layout import recipe_of
from mocha_pipe.pipeline.run.datasets import make_world
from mocha_pipe.pipeline.run.inputs import WORLD
from mocha_pipe.pipeline.settings.loading import is_miniature
from mocha_pipe.pipeline.settings.sections import RunConfig


def pack_shards(
    config: RunConfig, out: Path, *, splits: Sequence[str] = (), shard_mb: float | None = None
) -> tuple[PackedSplit, ...]:
    """Pack splits of the data set; the miniature world is made where it is wanted and not there.

    Raises:
        DatasetNotFoundError, DatasetError: as `data.pack.pack`.
    """
    if config.uses_miniature:
        make_world(config)
    assert config.data.path is not None, "the configuration is resolved"
    recipe = WORLD if is_miniature(config) else recipe_of(config.data.path)
    return pack(
        config.data.path, out, splits=splits, shard_mb=shard_mb or DEFAULT_SHARD_MB, recipe=recipe, progress=True
    )
