"""list_caches: which caches a folder or a bucket holds, and how far each has come."""

from collections.abc import Iterator
from dataclasses import dataclass

from mocha_pipe.data.errors import MochaError, quoted
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError, CacheNotFoundError, TransferError
from mocha_pipe.teacher_cache.sharing.exchange import open_place
from mocha_pipe.teacher_cache.sharing.holding import TABLE, Holding
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION


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
    note: str
    """What a user should know of it: what is damaged or in another layout, or why it cannot be read; empty where all is
    well."""


def list_caches(url: str) -> list[CacheListing]:
    """Every cache at or below a folder or URL, sorted by place, damaged ones and those of other versions with a note.

    Raises:
        CacheNotFoundError: there is nothing at all, or a file.
        TransferError: the place cannot be reached.
    """
    place = open_place(url)
    if place.path is not None and place.path.is_file():
        raise CacheNotFoundError(
            f"a cache is a folder, and {place.url} is a file; see what is in its folder with: mocha-pipe cache ls "
            f"{quoted(place.above)}"
        )
    if not any(place.entries()) and not (place.path and place.path.is_dir()):
        raise CacheNotFoundError(
            f"there is nothing at {place.url}; name a folder or URL that holds caches, such as: "
            f"mocha-pipe cache ls {quoted(place.above)}"
        )
    return sorted(_listings(place), key=lambda listing: listing.place)


def _listings(place: Place) -> Iterator[CacheListing]:
    try:
        files, folders = place.entries()
        # The table shows a cache that lost its description.
        holding = Holding.at(place) if DESCRIPTION in files or set(TABLE) & {*files} else None
        listing = _listing(holding) if holding else None
    except CacheFormatError as error:  # another Zarr group, or another version
        listing = None
        if "format version" in str(error):
            yield _unread(place, error)
            return
    except (CacheCorruptError, TransferError) as error:
        yield _unread(place, error)
        return
    if listing:
        yield listing
        return
    for folder in folders:
        if not folder.startswith("."):
            yield from _listings(place.below(folder))


def _listing(holding: Holding) -> CacheListing:
    damage = holding.damage()
    foreign = [f"{array}: {layout.finding}" for array, layout in holding.layouts.items() if layout.kind == "foreign"]
    return CacheListing(
        place=holding.place.url,
        teacher=holding.spec.model,
        mode=holding.spec.mode,
        regions=holding.plan.rows,
        shards=len(holding.plan),
        done={array: holding.num_done(array) for array in holding.arrays},
        dim=holding.dims.get("targets"),
        bytes=holding.bytes,
        usable=holding.has_all_targets and not damage,
        complete=holding.is_complete and not damage,
        note="; ".join(damage + foreign),
    )


def _unread(place: Place, error: MochaError) -> CacheListing:
    return CacheListing(
        place=place.url, teacher="", mode="", regions=0, shards=0, done={}, dim=None, bytes=0, usable=False,
        complete=False, note=str(error),
    )  # fmt: skip
