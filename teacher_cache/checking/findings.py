"""What a check of a cache finds, and what that says about its mending."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mocha_pipe.teacher_cache.store.cache import ARRAYS
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER

Kind = Literal["missing", "damaged", "suspect", "stale", "elsewhere", "unreadable", "blocked"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A fault, and the file that has it."""

    kind: Kind
    """`missing`: not there yet. `damaged`: not the bytes that were written. `suspect`: no embedding looks like that.
    `stale`: the list of arrays, by which other programs read; never ours. `elsewhere`: a link to what is not on this
    disk. `unreadable`: the system does not let us look. `blocked`: something else has the place of a folder."""
    file: str
    """Relative to the cache's folder; the folder of an array where the files in it have other names than ours."""
    message: str
    array: str | None = None
    shard: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What was checked, and what was found."""

    findings: tuple[Finding, ...]
    arrays: dict[str, int]
    """Shards checked, by array."""
    rows: int
    """Regions in the table."""
    set_aside: int
    """Regions without an embedding."""
    bytes: int
    seconds: float
    notes: tuple[str, ...]
    """What is sound and yet worth saying."""
    is_foreign: bool
    """Whether another program laid an array out anew, so that nothing is mended in this folder."""
    is_rounded: bool
    """Whether it came from a lossy archive, so that no teacher says its values again."""

    @property
    def in_the_way(self) -> tuple[str, ...]:
        """The folders whose place something else has, or a link to nothing: no file gets there."""
        folders = (*ARRAYS, QUARANTINE_FOLDER)
        return tuple(
            finding.file
            for finding in self.findings
            if finding.kind in ("blocked", "elsewhere") and finding.file in folders
        )

    @property
    def can_be_laid_out_anew(self) -> bool:
        """Whether a copy of it, as far as it goes, gets the layout of mocha-pipe."""
        return self.is_foreign and is_copied(self.findings)


def is_copied(findings: Iterable[Finding]) -> bool:
    """Whether a pull takes what is there of a cache with these faults; it refuses what is damaged."""
    return all(finding.kind in ("missing", "stale") for finding in findings)
