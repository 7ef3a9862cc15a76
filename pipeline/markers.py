"""Markers: the json files in the folder of a stage that say what it is made from, and that it is whole."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mocha_pipe.data.parsing import parse_json
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


def told_path(path: Path, *, folder: Path, root: Path) -> str:
    """How the marker in `folder` tells of a path: relative to `folder` where both lie under the root, else absolute.

    So the whole root can be moved or renamed, and what lies elsewhere is found from the root's new place too.
    """
    path, folder, root = path.resolve(), folder.resolve(), root.resolve()
    is_inside = path.is_relative_to(root) and folder.is_relative_to(root)
    return os.path.relpath(path, folder) if is_inside else str(path)


def read_completion(folder: Path, *, stage: str, command: str, outputs: Collection[str] = ()) -> Completion:
    """The marker of a finished stage.

    Args:
        folder: of the stage.
        stage: its name.
        command: the line that makes it, for the error's remedy.
        outputs: names that the caller goes by.

    Raises:
        StageMissingError: the folder holds no complete result of that stage.
        StageMismatchError: another version made it, and told less.
    """
    marker = read_json(folder / COMPLETE)
    if marker.get("stage") != stage:
        state = "was begun but is not complete" if (folder / BEGUN).is_file() else "is not there"
        raise StageMissingError(f"{folder}: the {stage} stage {state}; run: {command}")
    done = completion_of(folder, marker, skipped=False)
    if lacking := [name for name in outputs if name not in done.outputs]:
        raise _other_version(folder, marker, lacking)
    return done


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
    """Content of a marker or pointer file; empty when there is none.

    Raises:
        StageMismatchError: it is no json object.
    """
    try:
        content = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise _no_marker(path, f"cannot be read as json ({error})") from None
    if not isinstance(content, dict):
        raise _no_marker(path, f"must hold a json object, found a {type(content).__name__}")
    return content


def _no_marker(path: Path, why: str) -> StageMismatchError:
    return StageMismatchError(
        f"{path} {why}: name another folder, or where mocha-pipe made this one, move that file away and run the same "
        "command again"
    )


def completion_of(folder: Path, marker: Mapping[str, Any], *, skipped: bool) -> Completion:
    """What a marker of completion tells.

    Raises:
        StageMismatchError: another version made it, and told less.
    """
    kinds: dict[str, type | tuple[type, ...]] = {
        "stage": str, "config": dict, "inputs": dict, "outputs": dict, "versions": dict, "seconds": (int, float),
    }  # fmt: skip
    if lacking := [name for name, kind in kinds.items() if not isinstance(marker.get(name), kind)]:
        raise _other_version(folder, marker, lacking)
    return Completion(folder=folder, skipped=skipped, **{name: marker[name] for name in kinds})


def _other_version(folder: Path, marker: Mapping[str, Any], lacking: Iterable[str]) -> StageMismatchError:
    found = marker.get("versions")
    version = found.get("mocha-pipe") if isinstance(found, dict) else None
    return StageMismatchError(
        f"{folder / COMPLETE} lacks {', '.join(lacking)}: mocha-pipe {version or 'of another version'} wrote it, this "
        f"is {versions()['mocha-pipe']}; use that version, or make the stage again in another folder"
    )


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
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
