"""Errors of phase 1 that a user can mend. Each text is one line: the rule, what was found, and the remedy to type."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from mocha_pipe.data.errors import MochaError, quoted


class CacheNotFoundError(MochaError, FileNotFoundError):
    """There is no teacher cache in the named folder."""


class CacheFormatError(MochaError, ValueError):
    """A folder is something else than a teacher cache that this version reads."""


class CacheMismatchError(MochaError, ValueError):
    """A cache holds another teacher's embeddings or other regions than the caller expects."""


class CacheIncompleteError(MochaError, FileNotFoundError):
    """A part that the caller needs has not been computed yet."""


class CacheCorruptError(MochaError, ValueError):
    """A file of a cache is damaged."""

    finding = ""
    """What was found, without the file's name and the remedy."""

    @classmethod
    def of(cls, file: object, finding: str, remedy: str) -> Self:
        """That a file is damaged, what was found, and what mends it."""
        error = cls(f"{file} is damaged: {finding}; {remedy}")
        error.finding = finding
        return error


class CacheUnreadableError(CacheCorruptError):
    """The system does not let us read a file of a cache."""


class DescriptionCorruptError(CacheCorruptError):
    """What says what a whole cache is, its `zarr.json`, is damaged or lost."""


class CacheWriteError(MochaError, OSError):
    """The disk under a cache failed: full, read-only, or gone."""


class TransferError(MochaError, OSError):
    """A cache cannot travel: the other place is unknown, unreachable, or lets nobody in."""


class EmbeddingError(MochaError, ArithmeticError):
    """A teacher returned something that cannot be stored: NaN, infinity, or a number beyond float16."""


class ProjectionError(MochaError, ValueError):
    """The embeddings do not allow the projection that was asked for."""


class TeacherError(MochaError, ValueError):
    """A teacher cannot be loaded or used as configured."""


@contextmanager
def naming_data(data: Path | None) -> Iterator[None]:
    """The command in the error of an incomplete cache names the data set too, which no cache knows."""
    try:
        yield
    except CacheIncompleteError as lacking:
        if data is None:
            raise
        command, given = r"`(mocha-pipe cache build [^`]*)`", f" --data {quoted(data)}"
        raise CacheIncompleteError(re.sub(command, lambda found: f"`{found[1]}{given}`", str(lacking))) from None


def build_command(folder: Path, data: Path | None = None) -> str:
    """The command line that makes or completes the cache in `folder`, of a data set where one is named."""
    return f"mocha-pipe cache build --cache {quoted(folder)}" + (f" --data {quoted(data)}" if data else "")


def mend_advice(folder: Path) -> str:
    """How the damage of a cache on this machine is mended, for the end of a message."""
    return f"run `{repair_command(folder)}`"


def repair_command(folder: Path, data: Path | None = None) -> str:
    """The command line that computes again what is at fault; no cache knows where its pictures lie."""
    return f"mocha-pipe cache verify {quoted(folder)} --repair --data {quoted(data) if data else 'DATA'}"


def away_advice(path: Path) -> str:
    """How what has the place of a part of a cache gets out of the way, for the end of a message."""
    return f"move it away with `{away_command(path)}` and run the same command again"


def away_command(path: Path) -> str:
    """The command line that gives another name to what has the place of a part of a cache; nothing is lost."""
    return f"mv {quoted(path)} {quoted(f'{path}.aside')}"


def relayout_advice(place: str) -> str:
    """How a cache that another program laid out anew gets the layout of mocha-pipe, for the end of a message."""
    return (
        f"copy it into the layout of mocha-pipe with `mocha-pipe cache pull {quoted(place)} {quoted(copy_of(place))}`"
    )


def copy_of(place: str) -> str:
    """A local folder for another copy of the cache at a place."""
    return f"{place}-2" if "://" not in place else f"{place.rpartition('/')[2]}-2"
