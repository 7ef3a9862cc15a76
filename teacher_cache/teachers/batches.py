"""Batches of regions: which go together, and how their embeddings come back in the order in which they were given."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings


class Batch(Protocol):
    """Regions of one forward pass."""

    @property
    def picks(self) -> list[int]:
        """Places of these regions among those that were given."""


BatchT = TypeVar("BatchT", bound=Batch)


def check_regions(crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str], spec: TeacherSpec) -> None:
    """Assert that there is a name for each crop, and that crops are what `Teacher.embed` says."""
    assert len(crops) == len(class_names), f"{len(crops)} crops, {len(class_names)} class names"
    square = (spec.crop_size, spec.crop_size, 3)
    assert all(crop.shape == square and crop.dtype == np.uint8 for crop in crops), f"crops must be uint8 {square}"


def by_length(lengths: Sequence[int], batch: int) -> list[list[int]]:
    """Places of regions in batches of that size, each of prompts of about the same length, so that few are padded."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. To CUDA it goes through pinned memory: nobody waits for the GPU's earlier work."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


@contextmanager
def forward_pass(regions: int) -> Iterator[None]:
    """Around a pass of a model over so many regions: float32 is float32, and what does not fit is said in one line.

    Convolutions in float32 otherwise round their inputs to TF32's 10 bits, where cuDNN chooses a kernel that does. The
    choice hangs on the size of the batch, and so would the embeddings.

    Raises:
        TeacherError: the device ran out of memory.
    """
    cudnn = torch.backends.cudnn
    allowed, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TeacherError(
            f"a batch must fit into the device's memory; {regions} regions do not; pass --batch {max(regions // 2, 1)}"
        ) from error
    finally:
        cudnn.allow_tf32 = allowed


def embed_batches(
    batches: Iterable[BatchT], forward: Callable[[BatchT], tuple[Tensor, Tensor]], count: int, spec: TeacherSpec
) -> RegionEmbeddings:
    """Embeddings of `count` regions, each at its place.

    Raises:
        TeacherError: a batch does not fit into the device's memory.
    """
    hidden, visual = torch.empty(count, spec.hidden_dim), torch.empty(count, spec.visual_dim)
    done = []
    for batch in batches:
        with forward_pass(len(batch.picks)):
            done.append((batch.picks, *forward(batch)))
    # A copy waits for the GPU. All batches are queued before the first copy, so that the GPU never idles.
    for picks, hidden_ND, visual_ND in done:
        hidden[picks], visual[picks] = hidden_ND.cpu(), visual_ND.cpu()
    return RegionEmbeddings(hidden.numpy(), visual.numpy())
