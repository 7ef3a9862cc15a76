"""list_caches: which caches a folder or a bucket holds, and how far each has come."""

from collections.abc import Iterator
from dataclasses import dataclass

from mocha_pipe.teacher_cache.errors import CacheFormatError
from mocha_pipe.teacher_cache.sharing.exchange import open_place
from mocha_pipe.teacher_cache.sharing.holding import DESCRIPTION, Holding
from mocha_pipe.teacher_cache.sharing.place import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheListing:
    """One cache, as its listings and descriptions show it."""

    place: str
    """Its URL or folder."""
    teacher: str
    mode: str
    regions: int
    shards: int
    """Shards of an array."""
    done: dict[str, int]
    """Shards that are there, by array."""
    dim: int | None
    """Width of a target; None before there are any."""
    bytes: int
    usable: bool
    """Whether a student can be distilled from it."""
    complete: bool
    """Whether everything is there that a build makes."""


def list_caches(url: str) -> list[CacheListing]:
    """Every cache at or below a folder or URL, sorted by place; caches of other format versions are left out.

    Raises:
        TransferError: the place cannot be reached.
    """
    listings = [
        CacheListing(
            place=holding.place.url,
            teacher=holding.spec.model,
            mode=holding.spec.mode,
            regions=holding.plan.rows,
            shards=len(holding.plan),
            done={array: holding.num_done(array) for array in holding.arrays},
            dim=holding.dims.get("targets"),
            bytes=holding.bytes,
            usable=holding.has_all_targets,
            complete=holding.is_complete,
        )
        for holding in _holdings(open_place(url))
    ]
    return sorted(listings, key=lambda listing: listing.place)


def _holdings(place: Place) -> Iterator[Holding]:
    files, folders = place.entries()
    if DESCRIPTION in files:
        try:
            holding = Holding.at(place)
        except CacheFormatError:  # another Zarr group
            holding = None
        if holding:
            yield holding
            return
    for folder in folders:
        if not folder.startswith("."):
            yield from _holdings(place.below(folder))
