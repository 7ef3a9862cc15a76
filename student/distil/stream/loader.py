"""Batches of a stream, by a loader that ultralytics' trainer takes for its own."""

import bisect
import math
import os
import random
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import fsspec
import torch
from torch.utils.data import DataLoader
from ultralytics.data.build import seed_worker

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.packing.remote import RemoteShard
from mocha_pipe.student.distil.stream.dataset import ShardStream, StreamDataset, image_number


class StreamLoader:
    """Batches of a stream, with what ultralytics' trainer expects of its loader.

    Workers start anew for each epoch, so an epoch depends on seed and number alone.

    Args:
        dataset: labels, targets and augmentations.
        shards: of the stream.
        batch_size: images in a batch.
        workers: processes that read, at most one for each shard; 0 reads in this one.
        window: images that each worker draws the next one from; kept as they came, so some 100 kB each.
        seed: of the order.
        pin_memory: hand batches over in page-locked memory.
    """

    drop_last = False

    def __init__(
        self,
        dataset: StreamDataset,
        shards: Sequence[RemoteShard],
        *,
        batch_size: int,
        workers: int,
        window: int,
        seed: int,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.stream = ShardStream(dataset, shards, window=window, seed=seed)
        self.batch_size = batch_size
        self.sampler = range(sum(self.stream.counts))
        """As long as an epoch has images."""
        self.num_workers = min(workers, sum(count > 0 for count in self.stream.counts))
        self._pin_memory = pin_memory
        self._seen: dict[int, int] = {}

    def set_epoch(self, epoch: int, done: Collection[int] = ()) -> None:
        """Which epoch comes next, and which of its shards are done already."""
        self.stream.epoch, self.stream.done = epoch, frozenset(done)

    @property
    def done(self) -> tuple[int, ...]:
        """Shards, by their place in the stream, all of whose images were in a batch of the current epoch."""
        done = {number for number, count in self._seen.items() if count >= self.stream.counts[number]}
        return tuple(sorted(done | self.stream.done))

    def __len__(self) -> int:
        """Batches of the epoch: each worker fills its own."""
        numbers, workers = self.stream.order(), max(self.num_workers, 1)
        images = (sum(self.stream.counts[number] for number in numbers[worker::workers]) for worker in range(workers))
        return sum(math.ceil(count / self.batch_size) for count in images)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The batches of the epoch; fewer than `len` where images cannot be decoded.

        Raises:
            DatasetNotFoundError, DatasetError: see `read_shard`.
        """
        self._seen = {}
        seed = random.Random(f"workers {self.stream.seed} {self.stream.epoch} 0").getrandbits(60)  # noqa: S311
        loader = DataLoader(
            self.stream,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=self.dataset.collate_fn,
            worker_init_fn=partial(_start_worker, dict(os.environ), dict(fsspec.config.conf)),
            generator=torch.Generator().manual_seed(seed),
            pin_memory=self._pin_memory,
            prefetch_factor=4 if self.num_workers else None,
        )
        for batch in _in_words(loader):
            yield batch
            self._note(batch["im_file"])

    def _note(self, files: Sequence[str]) -> None:
        """Count the images of a batch to their shards."""
        firsts = [shard.first_image for shard in self.stream.shards]
        for file in files:
            number = bisect.bisect_right(firsts, image_number(file)) - 1
            self._seen[number] = self._seen.get(number, 0) + 1

    def reset(self) -> None:
        """Nothing to do: each epoch starts its own workers."""


def _start_worker(environment: dict[str, str], configuration: dict[str, Any], worker: int) -> None:
    """Seeds a worker, and gives it this process's access to buckets: environment variables and fsspec's configuration.

    From Python 3.14 on, workers come from a server process that keeps the environment of the first one's start.
    """
    os.environ.clear()
    os.environ.update(environment)
    fsspec.config.conf.clear()
    fsspec.config.conf.update(configuration)
    seed_worker(worker)


def _in_words(loader: "DataLoader[dict[str, Any]]") -> Iterator[dict[str, Any]]:
    """Batches; an error of ours that a worker raised is told without the worker's traceback."""
    batches = iter(loader)
    try:
        yield from batches
    except MochaError as error:
        last = str(error).strip().splitlines()[-1]
        kind = type(error)
        raise kind(last.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")) from error
    finally:
        if hasattr(batches, "_shutdown_workers"):  # the garbage collector would wait for the workers in vain
            batches._shutdown_workers()
