"""Training on several devices: one process each, every one with its share of the images and all regions in the loss.

ultralytics learns its rank from the environment when it is imported, so a process must be born with its rank there.
"""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait

import torch.distributed as dist
from ultralytics.utils.dist import find_free_network_port

from mocha_pipe.student.errors import TrainingProcessError


def run_in_processes(run: Callable[[], None], count: int) -> None:
    """Run a training, which must pickle, in so many processes of this machine and wait for their end.

    Raises:
        TrainingProcessError: one of them failed; the others are ended.
    """
    context = multiprocessing.get_context("spawn")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "WORLD_SIZE": str(count)}
    processes = [context.Process(target=_run, args=(run,)) for _ in range(count)]
    own_environment = dict(os.environ)
    try:
        for rank, process in enumerate(processes):
            os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
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
        os.environ.clear()
        os.environ.update(own_environment)
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _run(run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # an exit handler may wait for the other processes, in vain
    if dist.is_initialized():
        dist.destroy_process_group()
