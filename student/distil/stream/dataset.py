"""Training from tar shards behind a URL: a stream of samples in a shuffled order, each once in an epoch.

    shards in a random order -> every worker its own -> images -> a window that shuffles them
    -> ultralytics' augmentations -> batches (loader.py)

Mosaic, mixup and cutmix combine an image with some of the last that the worker brought. Boxes and rows come from the
index, so that only the images travel. The order is a function of seed, epoch and the number of workers.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import webdataset
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.tariterators import tar_file_iterator

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.files import bytes_digest
from mocha_pipe.data.images import is_decodable
from mocha_pipe.data.packing.remote import RemoteShard, attempts_at, open_stream
from mocha_pipe.data.shards.index import sample_key
from mocha_pipe.data.shards.layout import MANIFEST
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.training.dataset import NO_TARGET, RegionDataset


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Stands in the place of an image's file name, and gives the bytes that the stream brought."""

    contents: dict[int, bytes]
    position: int
    name: str
    suffix: str

    def __str__(self) -> str:
        return self.name

    __fspath__ = __str__

    def read_bytes(self) -> bytes:
        return self.contents[self.position]


class StreamDataset(RegionDataset):
    """A `RegionDataset` whose images come one after the other; only those at hand can be asked for.

    Raises:
        TrainArgumentError: an argument needs all images at once.
    """

    def __init__(self, source: DetectionSource, **arguments: Any) -> None:
        for name in ("rect", "cache"):
            if arguments.get(name):
                raise TrainArgumentError(
                    f"Training argument {name}={arguments[name]} needs all images at once, which a stream has not; "
                    "leave it out, or train from local shards."
                )
        self._contents: dict[int, bytes] = {}
        super().__init__(source, **arguments)
        self.position_of = {image_number(file.name): position for position, file in enumerate(self.im_files)}
        """Place in this data set by the image's number in its split."""

    def get_img_files(self, img_path: str) -> list[Any]:
        """Places that the stream fills."""
        files = super().get_img_files(img_path)
        return [
            _Arrived(self._contents, position, str(file), self.source.records[index].path.suffix)
            for position, (index, file) in enumerate(zip(self._kept, files, strict=False))
        ]

    def _is_readable(self, index: int) -> bool:
        """As the index says. Whether the image can be decoded shows when it comes."""
        return self.source.records[index].readable

    def sample(self, epoch: int, position: int, content: bytes) -> dict[str, Any] | None:
        """The augmented sample of an image that has just come; None where it cannot be decoded and was set aside."""
        rows = self.labels[position]["rows"]
        is_aside = self.targets is not None and len(rows) > 0 and (rows == NO_TARGET).all()
        self._contents[position] = content
        try:
            if is_aside and not is_decodable(self.im_files[position]):
                return None
            sample: dict[str, Any] = self[epoch * len(self) + position]
        finally:
            del self._contents[position]
        return sample

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """The image asked for; in the place of one that is not at hand, any of the last that came.

        Only partners of a mosaic or mixup are not at hand, and these are drawn at random anyway.
        """
        if index not in self._contents and self.ims[index] is None:
            index = random.choice(self.buffer or list(self._contents))  # noqa: S311
        label: dict[str, Any] = super().get_image_and_label(index)
        return label


class ShardStream(IterableDataset[dict[str, Any]]):
    """One pass over the shards, as a worker of a loader sees it."""

    def __init__(self, dataset: StreamDataset, shards: Sequence[RemoteShard], *, window: int, seed: int) -> None:
        self.dataset = dataset
        self.shards = shards
        self.window = window
        self.seed = seed
        self.epoch = 0
        self.done: frozenset[int] = frozenset()
        """Shards, by their place in `shards`, whose images this epoch has seen already."""
        self.counts = [
            sum(shard.first_image + at in dataset.position_of for at in range(len(shard.digests))) for shard in shards
        ]
        """Images of each shard that are in use."""

    def order(self) -> list[int]:
        """Shards of this epoch for all workers, in the order in which they are dealt out."""
        order = list(range(len(self.shards)))
        random.Random(f"{self.seed} {self.epoch}").shuffle(order)  # noqa: S311
        return [number for number in order if number not in self.done and self.counts[number]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.dataset.forget_partners()
        worker = get_worker_info()
        dice = random.Random(f"{self.seed} {self.epoch} 0 {worker.id if worker else 0}")  # noqa: S311
        pipeline = webdataset.DataPipeline(
            lambda: iter(self.order()),
            webdataset.split_by_worker,
            self._images,
            webdataset.shuffle(self.window, initial=self.window, rng=dice),
        )
        for position, content in pipeline:
            sample = self.dataset.sample(self.epoch, position, content)
            if sample is not None:
                yield sample

    def _images(self, numbers: Iterator[int]) -> Iterator[tuple[int, bytes]]:
        """Place in the data set and bytes of each image that is in use."""
        for number in numbers:
            shard = self.shards[number]
            for at, content in enumerate(read_shard(shard)):
                position = self.dataset.position_of.get(shard.first_image + at)
                if position is not None:
                    yield position, content


def read_shard(shard: RemoteShard) -> Iterator[bytes]:
    """The images of a shard in their order. A connection that breaks is opened again, and goes on where it was.

    Raises:
        DatasetNotFoundError: The shard cannot be read.
        DatasetError: It is not the shard that was packed.
    """
    arrived = 0
    for attempt in attempts_at(shard.url):
        with attempt, open_stream(shard.url) as stream:
            _check_size(shard, getattr(stream, "size", None))
            # Only bytes are taken from WebDataset: its decoders would unpickle what a member's name asks for.
            members = tar_file_iterator(stream, select_files=lambda name: not name.endswith(".json"))
            for member in islice(members, arrived, None):
                _check_member(shard, arrived, member["fname"], member["data"])
                arrived += 1
                yield member["data"]
            if arrived < len(shard.digests):
                raise EOFError(f"it ends after {arrived} of {len(shard.digests)} images")


def image_number(file: str) -> int:
    """Number of an image in its split, which its name in the tar tells."""
    return int(PurePosixPath(file).name.partition(".")[0])


def _check_size(shard: RemoteShard, size: int | None) -> None:
    if size is not None and size != shard.bytes:
        how = "it was cut short" if size < shard.bytes else "it is another file"
        raise DatasetError(f"{shard.url}: has {size} bytes where {MANIFEST} says {shard.bytes}, {how}; upload it again")


def _check_member(shard: RemoteShard, at: int, name: str, content: bytes) -> None:
    if at >= len(shard.digests) or not name.startswith(f"{sample_key(shard.first_image + at)}."):
        raise DatasetError(
            f"{shard.url}: holds {name} where {MANIFEST} has no such image; upload shards and index again"
        )
    if bytes_digest(content) != shard.digests[at]:
        raise DatasetError(f"{shard.url}: {name} is not the image that was packed; upload the shard again")
