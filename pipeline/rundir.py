"""The folder of a stage: what it is made from, and the marker, written last, that says it is whole.

`begun.json` is written before the work starts and `complete.json` after it ends, both in one atomic step. So a folder
is in one of three states: untouched, begun (go on with the same settings), complete (nothing left to do).
"""

import importlib.metadata
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mocha_pipe.data.files import write_json
from mocha_pipe.pipeline.errors import StageMismatchError, StageMissingError

BEGUN = "begun.json"
COMPLETE = "complete.json"
_PACKAGES = ("mocha-pipe", "numpy", "torch", "torchvision", "transformers", "ultralytics", "zarr")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What decides a stage's result: two runs with equal identities make the same thing."""

    stage: str
    """Name of the stage."""
    config: Mapping[str, Any]
    """Resolved settings that change the result; whatever json can hold."""
    inputs: Mapping[str, str]
    """Digest of each input, by name."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished stage, as its marker tells it."""

    stage: str
    folder: Path
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, Any]
    """Paths relative to the folder, digests and figures that later stages read."""
    versions: dict[str, str]
    seconds: float
    """Duration of the attempt that finished the stage."""
    skipped: bool = False
    """True where this call found the stage complete and did nothing."""

    def path(self, output: str) -> Path:
        """The file or folder that an output names, as `told_path` has it."""
        return Path(os.path.normpath(self.folder / self.outputs[output]))


def run_stage(
    folder: Path,
    identity: Identity,
    work: Callable[[], Mapping[str, Any]],
    *,
    flag: str,
    replace: bool = False,
    is_whole: Callable[[], bool] = lambda: True,
) -> Completion:
    """Do the work of a stage unless its folder already holds the result.

    Args:
        folder: where the stage writes; made when absent.
        identity: what the result is made from.
        work: does the stage, or goes on with it where an earlier attempt stopped; returns the outputs.
        flag: the command-line flag that names another folder, for the error's remedy.
        replace: where the folder holds a result with another identity, make it anew instead of refusing. For a stage
            that is quick, or that itself checks what lies in its folder; it writes no `begun.json`.
        is_whole: asked before a complete stage is skipped; False does the work again. Asked once more after the work;
            False leaves the marker out, because other processes still do the rest of the stage.

    Raises:
        StageMismatchError: the folder was begun or completed with another identity.
    """
    wanted = json.loads(json.dumps(asdict(identity), default=str))
    complete = read_json(folder / COMPLETE)
    for verb, found in (("completed", complete), ("begun", read_json(folder / BEGUN))):
        if not replace and found and (phrases := _differences(found, wanted)):
            raise StageMismatchError(
                f"{folder} was {verb} with other settings ({'; '.join(phrases)}): name another folder with {flag}, "
                f"or delete this one with: rm -r {shlex.quote(str(folder))}"
            )
    if complete and not _differences(complete, wanted) and is_whole():
        return _completion(folder, complete, skipped=True)
    if not replace:
        write_json(folder / BEGUN, wanted)
    start = time.perf_counter()
    outputs = json.loads(json.dumps(dict(work()), default=str))
    seconds = round(time.perf_counter() - start, 2)
    marker = {**wanted, "outputs": outputs, "versions": versions(), "seconds": seconds}
    if is_whole():
        write_json(folder / COMPLETE, marker)
    return _completion(folder, marker, skipped=False)


def told_path(path: Path, *, folder: Path, root: Path) -> str:
    """How the marker in `folder` tells of a path: relative to `folder` where both lie under the root, else absolute.

    So the whole root can be moved or renamed, and what lies elsewhere is found from the root's new place too.
    """
    path, folder, root = path.resolve(), folder.resolve(), root.resolve()
    is_inside = path.is_relative_to(root) and folder.is_relative_to(root)
    return os.path.relpath(path, folder) if is_inside else str(path)


def read_completion(folder: Path, *, stage: str, command: str) -> Completion:
    """The marker of a finished stage.

    Raises:
        StageMissingError: the folder holds no complete result of that stage; `command` is the line that makes it.
    """
    marker = read_json(folder / COMPLETE)
    if marker.get("stage") != stage:
        state = "was begun but is not complete" if (folder / BEGUN).is_file() else "is not there"
        raise StageMissingError(f"{folder}: the {stage} stage {state}; run: {command}")
    return _completion(folder, marker, skipped=False)


def is_complete(folder: Path, *, stage: str) -> bool:
    """Whether the folder holds the finished result of that stage."""
    return read_json(folder / COMPLETE).get("stage") == stage


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that numbers depend on; nothing is imported."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Content of a marker or pointer file; empty when there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise StageMismatchError(
            f"{path} cannot be read as json ({error}): delete its folder with: rm -r {shlex.quote(str(path.parent))}"
        ) from error
    return content


def _completion(folder: Path, marker: Mapping[str, Any], *, skipped: bool) -> Completion:
    names = {field.name for field in fields(Completion)} & marker.keys()
    return Completion(folder=folder, skipped=skipped, **{name: marker[name] for name in names})


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One phrase for each setting or input that differs."""
    return [phrase for key, value in wanted.items() for phrase in _compare(found.get(key), value, key)]


def _compare(found: Any, wanted: Any, name: str) -> Iterator[str]:
    """One phrase per leaf that differs, with dotted names; a leading `config` is left out."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from _compare(found.get(key), wanted.get(key), key if name == "config" else f"{name}.{key}")
    elif found != wanted:
        yield f"{name}: it has {_short(found)}, asked for {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
