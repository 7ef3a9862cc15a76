"""The folder of a stage: what it is made from, and the marker, written last, that says it is whole.

`begun.json` is written before the work starts and `complete.json` after it ends, both in one atomic step. So a folder
is in one of three states: untouched, begun (go on with the same settings), complete (nothing left to do). A folder that
holds anything else is somebody else's: it is refused, and nothing in it changes.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mocha_pipe.data.errors import DatasetError, quoted
from mocha_pipe.data.files import LOCK_NAME, appearing_folder, exclusive, is_temporary, write_json
from mocha_pipe.pipeline.errors import StageBusyError, StageMismatchError
from mocha_pipe.pipeline.markers import (
    BEGUN,
    COMPLETE,
    Completion,
    Identity,
    completion_of,
    differences,
    read_json,
    versions,
)


def run_stage(
    folder: Path,
    identity: Identity,
    work: Callable[[], Mapping[str, Any]],
    *,
    flag: str,
    replace: bool = False,
    is_whole: Callable[[], bool] = lambda: True,
    only: Collection[str] = (),
) -> Completion:
    """Do the work of a stage unless its folder already holds the result.

    Args:
        folder: where the stage writes; made when absent. It must be empty or hold this stage, and no other process may
            be at work in it.
        identity: what the result is made from.
        work: does the stage, or goes on with it where an earlier attempt stopped; returns the outputs.
        flag: the command-line flag that names another folder, for the error's remedy.
        replace: where the folder holds a result with another identity, make it anew instead of refusing. For a stage
            that is quick.
        is_whole: asked before a complete stage is skipped; False does the work again.
        only: names of all that the stage writes, for a folder that it shares with others; empty where all is its own.

    Raises:
        StageMismatchError: the folder holds something else, or was begun or completed with another identity.
        StageBusyError: another process is at work in it.
    """
    wanted = _wanted(identity)

    def found() -> Completion | None:
        complete = require_own(folder, identity.stage, flag=flag, only=only)
        if not replace:
            _require_alike(folder, "completed", complete, wanted, flag)
            _require_alike(folder, "begun", read_json(folder / BEGUN), wanted, flag)
        is_done = complete and not differences(complete, wanted) and is_whole()
        return completion_of(folder, complete, skipped=True) if is_done else None

    # Before the lock, so that nothing is written where others keep their things, and nobody waits for what is there.
    if (done := found()) is not None:
        return done
    busy = StageBusyError(
        f"{folder}: another process is at work on this {identity.stage} stage: wait until it has ended, or name "
        f"another folder with {flag}"
    )
    with exclusive(folder / LOCK_NAME, busy=busy):
        if (done := found()) is not None:
            return done
        write_json(folder / BEGUN, wanted)
        return _do(folder, wanted, work)


def run_shared_stage(
    folder: Path,
    identity: Identity,
    work: Callable[[], Mapping[str, Any]],
    *,
    is_whole: Callable[[], bool],
    again: bool = False,
) -> Completion:
    """As `run_stage`, for a stage that several processes do at once, and that itself checks what lies in its folder.

    Args:
        folder: where the stage writes.
        identity: what the result is made from; a result with another one is made anew.
        work: does a part of the stage, or all of it; returns the outputs.
        is_whole: asked before a complete stage is skipped; False does the work again. Asked once more after the work;
            False leaves the marker out, because other processes still do the rest of the stage.
        again: do the work even where the stage is complete.
    """
    wanted = _wanted(identity)
    complete = read_json(folder / COMPLETE)
    if not again and complete and not differences(complete, wanted) and is_whole():
        return completion_of(folder, complete, skipped=True)
    return _do(folder, wanted, work, is_whole)


def run_whole_stage(
    folder: Path, identity: Identity, work: Callable[[Path], Mapping[str, Any]], *, flag: str
) -> Completion:
    """As `run_stage`, for a stage whose folder appears when it is complete, and is never written to again.

    Args:
        folder: new or empty, or complete already.
        identity: what the result is made from.
        work: fills the empty folder that it is given; returns the outputs. An attempt that stops leaves nothing.
        flag: the command-line flag that names another folder, for the error's remedy.

    Raises:
        StageMismatchError: the folder was completed with another identity.
        DatasetError: it holds something else.
    """
    wanted = _wanted(identity)
    if (done := _completed_alike(folder, wanted, flag)) is not None:
        return done
    in_use = DatasetError(f"{folder}: must be a new or empty folder, found something there; name another with {flag}")
    try:
        with appearing_folder(folder, in_use) as building:
            made = _do(building, wanted, lambda: work(building))
    except DatasetError as error:
        # Another process of the same job may have been faster.
        if error is not in_use or (done := _completed_alike(folder, wanted, flag)) is None:
            raise
        return done
    return replace(made, folder=folder)


def _completed_alike(folder: Path, wanted: Mapping[str, Any], flag: str) -> Completion | None:
    """The completion of a folder that holds this stage, whole; None where it holds something else."""
    complete = read_json(folder / COMPLETE)
    if complete.get("stage") != wanted["stage"]:
        return None
    _require_alike(folder, "completed", complete, wanted, flag)
    return completion_of(folder, complete, skipped=True)


def _require_alike(folder: Path, verb: str, marker: Mapping[str, Any], wanted: Mapping[str, Any], flag: str) -> None:
    """Refuse a marker of another identity; an empty one is none."""
    if marker and (phrases := differences(marker, wanted)):
        raise StageMismatchError(
            f"{folder} was {verb} with other settings ({'; '.join(phrases)}): name another folder with {flag}, "
            f"or delete this one with: rm -r {quoted(folder)}"
        )


def _wanted(identity: Identity) -> dict[str, Any]:
    """An identity as a marker holds it."""
    wanted: dict[str, Any] = json.loads(json.dumps(asdict(identity), default=str))
    return wanted


def require_own(folder: Path, stage: str, *, flag: str, only: Collection[str] = ()) -> dict[str, Any]:
    """The completion marker of a folder that is vacant or holds this very stage; empty where there is none.

    Arguments are those of `run_stage`.

    Raises:
        StageMismatchError: the folder holds something else.
    """
    complete = read_json(folder / COMPLETE)
    if marker := complete or read_json(folder / BEGUN):
        if marker.get("stage") != stage:
            what = f"the stage {marker['stage']!r}" if "stage" in marker else "a marker of something else"
            raise StageMismatchError(f"{folder} holds {what}, not {stage!r}: name another folder with {flag}")
        return complete
    entries = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    entries = [name for name in entries if name in only] if only else entries
    if others := [name for name in entries if name != LOCK_NAME and not is_temporary(name)]:
        raise StageMismatchError(
            f"{folder} holds something that mocha-pipe did not make ({others[0]}): name a new or empty folder with "
            f"{flag}"
        )
    return {}


def _do(
    folder: Path,
    wanted: dict[str, Any],
    work: Callable[[], Mapping[str, Any]],
    is_whole: Callable[[], bool] = lambda: True,
) -> Completion:
    """Do the work, and write the marker where that completes the stage."""
    start = time.perf_counter()
    outputs = json.loads(json.dumps(dict(work()), default=str))
    seconds = round(time.perf_counter() - start, 2)
    marker = {**wanted, "outputs": outputs, "versions": versions(), "seconds": seconds}
    if is_whole():
        write_json(folder / COMPLETE, marker)
    return completion_of(folder, marker, skipped=False)


def claim_folder(folder: Path, stage: str, *, flag: str) -> None:
    """Mark a new or empty folder as one of this stage, whose parts are stages of their own.

    Raises:
        StageMismatchError: the folder holds something else.
    """
    require_own(folder, stage, flag=flag)
    if not (folder / BEGUN).exists():
        write_json(folder / BEGUN, {"stage": stage})
