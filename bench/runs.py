"""Work in a process of its own, the memory of a process, and trainings of a given number of steps."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import RegionTargets

if TYPE_CHECKING:
    from bench.inputs import BenchInputs
    from mocha_pipe.student.distil.settings import DistillSettings
    from mocha_pipe.student.training.resumable import ResumableTrainer

Result = TypeVar("Result")


def in_a_process(name: str, work: Callable[..., Result], *arguments: object) -> Result:
    """Run `work` in a new process and return its result. Only the standard error of that process is shown.

    Raises:
        RuntimeError: `work` failed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        result: Result = receiver.recv()
    except EOFError:
        raise RuntimeError(f"the {name} run failed; its message stands above") from None
    finally:
        process.join()
    return result


def _work(sender: Connection, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # hides ultralytics' table of epochs
    # A spawned process spawns its own, each of which imports torch again; the loader of a user's training does not.
    multiprocessing.set_start_method(None, force=True)
    sender.send(work(*arguments))


def memory_status(field: str) -> int:
    """Memory of this process in bytes, as Linux reports it: `VmRSS` is resident memory, `VmHWM` its peak.

    `getrusage` will not do: a process inherits the peak of the process that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(kilobytes) * 1024


def make_trainer(
    inputs: "BenchInputs",
    targets: RegionTargets | None,
    folder: Path,
    *,
    name: str,
    model: str,
    image_size: int,
    batch: int,
    steps: int,
    device: str,
    settings: "DistillSettings | None" = None,
    **arguments: object,
) -> "ResumableTrainer":
    """A trainer of one epoch with `steps` batches, whose run is written to `folder / name`.

    With targets it distils, by the defaults of `DistillSettings` where none are given; without targets it is
    ultralytics' own trainer. Both use the same optimizer. A detector that stays as it is need not have been trained.
    """
    from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
    from mocha_pipe.student.distil.trainer import DistillTrainer
    from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
    from mocha_pipe.student.training.resumable import ResumableTrainer

    overrides = {
        **DEFAULT_TRAIN_ARGUMENTS, "model": model, "data": str(inputs.data), "epochs": 1, "imgsz": image_size,
        "batch": batch, "nbs": batch, "device": device, "val": False, "plots": False, "fraction": steps * batch,
        "project": str(folder.resolve()), "name": name, "exist_ok": True, **arguments,
    }  # fmt: skip
    if targets is None:
        return ResumableTrainer(overrides)
    settings = settings or DistillSettings()
    setup = DistillSetup(
        train=inputs.source, val=open_source(inputs.data, "val"), targets=targets, first_row=inputs.table.first_row,
        settings=settings, kept_names=inputs.source.class_names if settings.schedule == "frozen" else (),
    )  # fmt: skip
    return DistillTrainer(setup, overrides)
