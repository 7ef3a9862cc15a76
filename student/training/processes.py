"""Training on several devices: one process each, every one with its share of the images and all regions in the loss.

ultralytics learns its rank from the environment when it is imported, so the processes are spawned with it set.
"""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import torch.distributed as dist
from torch import nn

from mocha_pipe.student.errors import TrainingProcessError


def run_in_processes(run: Callable[[], None], count: int) -> None:
    """Run a training in several processes of this machine and wait for their end.

    Args:
        run: called in each process; must pickle.
        count: processes.

    Raises:
        TrainingProcessError: one of them failed; the others are ended.
    """
    context = multiprocessing.get_context("spawn")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    processes = [context.Process(target=_run, args=(run,)) for _ in range(count)]
    try:
        for rank, process in enumerate(processes):
            with _environment({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}):
                process.start()
        left = list(processes)
        while left:
            wait([process.sentinel for process in left])
            for process in [process for process in left if not process.is_alive()]:
                left.remove(process)
                if process.exitcode:
                    raise TrainingProcessError(
                        f"every process of a training must reach its end; number {processes.index(process)} of {count} "
                        f"ended with code {process.exitcode}, its message stands above; run the same command again: it "
                        "goes on after the last finished epoch"
                    )
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


@contextmanager
def wrapped_for_cpu() -> Iterator[None]:
    """Let ultralytics' wrap for several GPUs also take a model on the CPU, where there is no number of a device."""
    stock = nn.parallel.DistributedDataParallel

    def wrap(module: nn.Module, device_ids: list[int | None], **arguments: Any) -> nn.Module:
        return stock(module, device_ids=None if device_ids == [None] else device_ids, **arguments)

    nn.parallel.DistributedDataParallel = wrap  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        nn.parallel.DistributedDataParallel = stock  # type: ignore[misc]


def _run(run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # a rank that waits for the others in some exit handler would keep everybody waiting
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
