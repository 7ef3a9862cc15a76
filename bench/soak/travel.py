"""Caches travel while the processes that carry them are killed.

They travel to folders that hold nothing, a part, or a copy that another program laid out anew.
"""

import multiprocessing
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import fsspec
import numpy as np
import zarr
from fsspec.implementations.local import LocalFileSystem
from tqdm import tqdm

from bench.soak.damage import Damage, Watch
from bench.soak.killing import DEADLINE, World, errors_of
from mocha_pipe.teacher_cache.errors import CacheFormatError
from mocha_pipe.teacher_cache.sharing import merge, pull, push
from mocha_pipe.teacher_cache.store.cache import ARRAYS
from mocha_pipe.teacher_cache.store.layout import TEACHER_ARRAYS, done_shards, shard_path

Operation = Literal["push", "pull", "merge"]
Target = Literal["nothing", "part", "foreign", "big-endian"]
OPERATIONS: tuple[Operation, ...] = ("push", "pull", "merge")
TARGETS: dict[Target, float] = {"nothing": 0.35, "part": 0.35, "foreign": 0.15, "big-endian": 0.15}
"""What the destination holds, and how often. The last two are complete but for a shard, and must stay as they are."""
REFUSED = 2
_FOREIGN: dict[str, dict[str, object]] = {
    "foreign": {"chunks": 16, "shards": None},
    "big-endian": {"chunks": 32, "shards": 32, "compressors": [zarr.codecs.Crc32cCodec()],
                   "serializer": zarr.codecs.BytesCodec(endian="big")},
}  # fmt: skip


class _Remote(LocalFileSystem):  # type: ignore[misc]
    """A disk that the product takes for a place behind a connection, so that `push` sends file after file."""

    protocol = "soak"


@dataclass(frozen=True, slots=True)
class Journey:
    """What travels where to."""

    operation: Operation
    target: Target
    sources: tuple[Path, ...]
    folder: Path

    @property
    def is_foreign(self) -> bool:
        """Whether the destination must be refused."""
        return self.target in _FOREIGN


def prepare(root: Path, reference: Path, generator: np.random.Generator) -> Journey:
    """Choose what is done, and lay out sources and destination below `root`."""
    operation = OPERATIONS[int(generator.integers(len(OPERATIONS)))]
    target = list(TARGETS)[int(generator.choice(len(TARGETS), p=list(TARGETS.values())))]
    folder, shards = root / "target", sorted(done_shards(reference / "targets"))
    sources: tuple[Path, ...] = (reference,)
    if operation == "merge":
        first, second = (Path(shutil.copytree(reference, root / name)) for name in ("first", "second"))
        for shard in shards:
            _remove((first, second)[shard % 2], shard)
        sources = (first, second)
    if target != "nothing":
        shutil.copytree(reference, folder)
        lacking = generator.choice(shards, max(1, len(shards) // 3), replace=False) if target == "part" else shards[:1]
        if target in _FOREIGN:
            for name in ARRAYS:
                _lay_out_anew(folder / name, _FOREIGN[target])
        for shard in lacking.tolist() if isinstance(lacking, np.ndarray) else lacking:
            _remove(folder, shard)
    return Journey(operation, target, sources, folder)


def start(journey: Journey, log: Path) -> BaseProcess:
    """Start a process that does it; it ends with the code REFUSED where the destination was refused."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_travel, args=(journey, log), daemon=True)
    process.start()
    return process


def _travel(journey: Journey, log: Path) -> None:
    tqdm.set_lock(threading.RLock())  # tqdm's own lock is shared: a killed process would hold it for ever
    sys.stderr = errors_of(log).open("a")
    fsspec.register_implementation("soak", _Remote, clobber=True)
    try:
        if journey.operation == "push":
            push(journey.sources[0], f"soak://{journey.folder}")
        elif journey.operation == "pull":
            pull(str(journey.sources[0]), journey.folder)
        else:
            merge(journey.folder, [str(source) for source in journey.sources])
    except CacheFormatError:
        sys.exit(REFUSED)


def strike(victim: BaseProcess, journey: Journey, generator: np.random.Generator) -> bool:
    """Kill a process when the destination has grown by some files; False where it ended before.

    Raises:
        TimeoutError: it hangs.
    """
    before = _num_files(journey.folder)
    growth = 0 if journey.is_foreign else int(generator.integers(0, 40))
    deadline = time.monotonic() + DEADLINE
    while victim.is_alive() and _num_files(journey.folder) - before < growth:
        if time.monotonic() > deadline:
            raise TimeoutError(f"a {journey.operation} hangs in {journey.folder}")
        time.sleep(0.0005)
    time.sleep(float(generator.uniform(0, 0.3 if growth == 0 else 0.004)))
    victim.kill()
    victim.join()
    return victim.exitcode == -9


def destroyed(before: dict[Path, dict[str, bytes]]) -> int:
    """KiB, at the sources and in a destination that had to be refused, of files that are not what they were."""
    lost = 0
    for folder, files in before.items():
        now = contents(folder)
        wrong = [name for name in files.keys() | now.keys() if files.get(name) != now.get(name)]
        lost += sum(max(1, len(files.get(name, b"")) // 1024) for name in wrong)
    return lost


def watched(journey: Journey) -> dict[Path, dict[str, bytes]]:
    """The content of all that must stay as it is."""
    folders = [*journey.sources, *([journey.folder] if journey.is_foreign else [])]
    return {folder: contents(folder) for folder in folders}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a cache by name, without locks and what a killed process left under temporary names."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and ".partial" not in str(path.relative_to(folder))
    }


def arrived(journey: Journey, world: World, reference: Path, damage: Damage) -> None:
    """Count what a transfer that came to its end did not bring."""
    Watch(world, journey.folder, reference, damage).look()
    wanted = {name for name in contents(reference) if journey.operation != "merge" or not _is_derived(name)}
    for name in wanted - contents(journey.folder).keys():
        damage.lost += world.plan.rows_per_shard if name.rpartition("/")[2].startswith("c.") else world.plan.rows


def _is_derived(name: str) -> bool:
    return name.startswith(("targets/", "projection"))


def _lay_out_anew(folder: Path, options: dict[str, object]) -> None:
    """Write an array once more, as another program would."""
    array = zarr.open_array(folder, mode="r")
    values, attributes = np.asarray(array[:]), dict(array.attrs)
    shutil.rmtree(folder)
    wide = {name: (size, values.shape[1]) if isinstance(size, int) else size for name, size in options.items()}
    anew = zarr.create_array(
        folder, shape=values.shape, dtype="float16", fill_value=float("nan"), attributes=attributes,
        chunk_key_encoding={"name": "default", "separator": "."}, **wide,  # type: ignore[arg-type]
    )  # fmt: skip
    anew[:] = values


def _remove(cache: Path, shard: int) -> None:
    """Take a shard out of the teacher's arrays; so the targets are not all there either."""
    for name in (*TEACHER_ARRAYS, "targets"):
        shard_path(cache / name, shard).unlink(missing_ok=True)


def _num_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))  # which passes over what vanishes meanwhile
