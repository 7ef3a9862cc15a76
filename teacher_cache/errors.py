"""Errors of phase 1 that a user can mend. Each text is one line: the rule, what was found, and the remedy to type."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mocha_pipe.data.errors import MochaError


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
        command, given = r"`(mocha-pipe cache build [^`]*)`", f" --data {shlex.quote(str(data))}"
        raise CacheIncompleteError(re.sub(command, lambda found: f"`{found[1]}{given}`", str(lacking))) from None


def build_command(folder: Path, data: Path | None = None) -> str:
    """The command line that makes or completes the cache in `folder`, of a data set where one is named."""
    return f"mocha-pipe cache build --cache {shlex.quote(str(folder))}" + (
        f" --data {shlex.quote(str(data))}" if data else ""
    )
