"""The data that stages start from: the miniature's worlds, written where they are missing, and data sets opened."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mocha_pipe.data.miniature import make_miniature, make_validation
from mocha_pipe.data.packing.pack import DEFAULT_SHARD_MB, PackedSplit, pack
from mocha_pipe.data.packing.remote import RemoteShard, copy_split, open_shards
from mocha_pipe.data.readers.class_names import with_names
from mocha_pipe.data.readers.packed import find_shards, is_packed
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards.layout import recipe_of
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.pipeline.markers import Completion, Identity
from mocha_pipe.pipeline.run.inputs import VALIDATION, WORLD, is_first_rank
from mocha_pipe.pipeline.rundir import run_whole_stage
from mocha_pipe.pipeline.settings.loading import is_miniature
from mocha_pipe.pipeline.settings.sections import RunConfig

_Setting = TypeVar("_Setting")
_open_validation = partial(open_source, keep_unreadable=True, progress=True)


def make_world(config: RunConfig) -> Completion:
    """Write the miniature world: a detection data set in YOLO layout, and its personal benchmark beside it.

    Raises:
        DatasetError: the folder holds something else.
        StageMismatchError: it holds a world of another size or seed.
    """
    outputs = {"data": "data.yaml", "benchmark": "benchmark"}
    return _make_world(config, config.miniature_folder, WORLD, make_miniature, outputs)


def make_validation_world(config: RunConfig) -> Completion:
    """Write a personal benchmark of objects that neither training nor the miniature's benchmark shows.

    Raises:
        DatasetError, StageMismatchError: as for `make_world`.
    """
    return _make_world(config, config.validation_folder, VALIDATION, make_validation, {"benchmark": "."})


def _make_world(
    config: RunConfig, folder: Path, stage: str, make: Callable[..., None], outputs: Mapping[str, str]
) -> Completion:
    settings = {"size": asdict(config.miniature.size), "seed": config.miniature.seed}

    def work(building: Path) -> Mapping[str, Any]:
        make(building, config.miniature.size, seed=config.miniature.seed)
        return outputs

    return run_whole_stage(folder, Identity(stage=stage, config=settings, inputs={}), work, flag="--root")


def data_path(config: RunConfig) -> Path:
    """The data set; the miniature world is made where it is wanted and not there."""
    if config.uses_miniature:
        make_world(config)
    return named(config.data.path)


def training_regions(config: RunConfig) -> tuple[DetectionSource, RegionTable]:
    """The training split and its region table; an image that cannot be decoded keeps its place in both."""
    data = data_path(config)
    if is_packed(data):
        find_shards(data).check_split(config.data.train)
    source = open_source(data, config.data.train, keep_unreadable=True, progress=is_first_rank())
    return source, RegionTable.build(source, progress=is_first_rank())


def distill_data(
    config: RunConfig,
) -> tuple[DetectionSource, RegionTable, DetectionSource, Sequence[RemoteShard]]:
    """Training images, their regions, validation images, and the shards to stream the training images from, if any."""
    if not config.data.url:
        train, table = training_regions(config)
        own = _own_validation(config, train)
        return train, table, own or _open_validation(data_path(config), config.data.val), ()
    place = hashlib.blake2b(config.data.url.rpartition("/")[0].encode(), digest_size=8).hexdigest()
    copy = config.root / "remote" / f"data-{place}"
    remote = open_shards(config.data.url, copy, config.data.train)
    if (own := _own_validation(config, remote.source)) is None:
        val = copy_split(config.data.url, copy, config.data.val, progress=True)
        own = _open_validation(val, config.data.val)
    return remote.source, remote.table, own, remote.shards


def _own_validation(config: RunConfig, train: DetectionSource) -> DetectionSource | None:
    """The COCO json that was named for validation, whose categories must be among the training split's."""
    val = Path(config.data.val)
    if val.suffix.lower() != ".json":
        return None
    listed = f"{config.data.url or config.data.path}; export both from one project"
    return with_names(_open_validation(val), train.class_names, val, listed=listed)


def seen_in_training(train: DetectionSource, val: DetectionSource) -> str | None:
    """What rests on images that the student has seen, where validation images are training images."""
    trained = {os.fspath(record.path) for record in train.records}
    shared = sum(os.fspath(record.path) in trained for record in val.records)
    if not shared:
        return None
    return (
        f"{shared} of {len(val.records)} validation images are training images: figures, the choice of the best epoch "
        "and the threshold for unknown things then rest on what the student has seen; name others with 'val:' in "
        "data.yaml, or with --val OTHER.json"
    )


def pack_shards(
    config: RunConfig, out: Path, *, splits: Sequence[str] = (), shard_mb: float | None = None
) -> tuple[PackedSplit, ...]:
    """Pack splits of the data set as tar shards; the miniature world is made where it is wanted and not there.

    Raises:
        DatasetNotFoundError, DatasetError: as `data.packing.pack.pack`.
    """
    data = data_path(config)
    recipe = WORLD if is_miniature(config) else recipe_of(data)
    return pack(data, out, splits=splits, shard_mb=shard_mb or DEFAULT_SHARD_MB, recipe=recipe, progress=True)


def splits(config: RunConfig) -> tuple[DetectionSource, DetectionSource]:
    """Training and validation images with their boxes; the miniature world is made where it is wanted and not there."""
    data = data_path(config)
    train, val = (open_source(data, split, progress=True) for split in (config.data.train, config.data.val))
    return train, val


def named(setting: _Setting | None) -> _Setting:
    """A setting of a resolved configuration, where it is no longer None."""
    assert setting is not None, "the configuration is resolved"
    return setting
