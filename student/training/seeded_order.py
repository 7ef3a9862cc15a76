"""The order of the training images and the random draws of their augmentation, from seed, epoch and image alone.

So a run repeats whatever its number of loader workers, and one that was stopped goes on as if it never had been.
A loader hands a data set one number only, which therefore holds the epoch too: epoch * images + image.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch

_STREAM = 0x6D6F636861  # keeps our random numbers apart from those of others who seed with small numbers


class EpochBatches:
    """Batches of such numbers without end, epoch after epoch; a loader takes this object as its batch sampler.

    Every one of n processes draws the same order and takes every n-th image of it. Where the images do not divide
    evenly, the first ones come twice.
    """

    def __init__(
        self, num_images: int, batch_size: int, *, shuffle: bool, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        self.epoch = 0
        """First epoch of an iteration that begins now; an iteration that has begun counts on by itself."""
        self._num_images, self._batch_size = num_images, batch_size
        self._shuffle, self._seed = shuffle, seed
        self._process, self._processes = process, processes
        per_process = -(-num_images // processes)
        self.sampler = range(-(-per_process // batch_size))
        """As long as an epoch has batches; ultralytics' loader takes its length from here."""

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch
        while True:
            codes = (epoch * self._num_images + self._order(epoch)).tolist()
            for start in range(0, len(codes), self._batch_size):
                yield codes[start : start + self._batch_size]
            epoch += 1

    def _order(self, epoch: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        images = np.arange(self._num_images)
        if self._shuffle:
            images = np.random.default_rng((_STREAM, self._seed, epoch)).permutation(images)
        missing = -self._num_images % self._processes
        return np.resize(images, self._num_images + missing)[self._process :: self._processes]


def seed_everything(*parts: int) -> None:
    """Seed the generators that augmentations draw from (random, numpy, torch) with a mixture of whole numbers."""
    seed = int(np.random.SeedSequence((_STREAM, *parts)).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    # torch.manual_seed does the same, but records its caller's stack where CUDA is not in use: 0.2 ms a sample.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
