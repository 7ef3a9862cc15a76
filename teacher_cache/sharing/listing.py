"""list_caches: which caches a folder or a bucket holds, and how far each has come."""

from dataclasses import dataclass

from teacher_cache.cache import ARRAYS, parse_attributes
from teacher_cache.errors import CacheFormatError
from teacher_cache.layout import ShardPlan
from teacher_cache.sharing.place import Place
from teacher_cache.sharing.transfer import DESCRIPTION, known, shard_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheListing:
    """One cache, as far as a listing and its description tell."""

    place: str
    teacher: str
    mode: str
    regions: int
    shards: int
    """Shards of an array."""
    done: dict[str, int]
    """Shards that are there, by array."""
    set_aside_lists: int
    """Shards with regions that were set aside."""
    bytes: int

    @property
    def is_complete(self) -> bool:
        """Whether every shard of every array is there."""
        return all(self.done[name] == self.shards for name in ARRAYS)


def list_caches(url: str) -> list[CacheListing]:
    """Every cache in or below a folder or URL, by place.

    Raises:
        TransferError: the place cannot be reached.
    """
    place = Place(url)
    sizes = place.sizes()
    # An array's folder has a description too; a cache's folder has arrays.
    folders = [
        name.removesuffix(DESCRIPTION) for name in sizes
        if name.rpartition("/")[2] == DESCRIPTION and f"{name.removesuffix(DESCRIPTION)}hidden/{DESCRIPTION}" in sizes
    ]  # fmt: skip
    listings = []
    for folder in sorted(folders):
        inside = known({name.removeprefix(folder): size for name, size in sizes.items() if name.startswith(folder)})
        try:
            attributes = parse_attributes(place.read(f"{folder}{DESCRIPTION}"), url)
        except CacheFormatError:
            continue
        shards = [found[0] for name in inside if (found := shard_of(name))]
        listings.append(
            CacheListing(
                place=f"{url.rstrip('/')}/{folder}".rstrip("/"),
                teacher=attributes["teacher"]["model"],
                mode=attributes["teacher"]["mode"],
                regions=attributes["rows"],
                shards=len(ShardPlan(attributes["rows"], attributes["rows_per_shard"])),
                done={name: shards.count(name) for name in ARRAYS},
                set_aside_lists=sum(name.startswith("quarantine/") for name in inside),
                bytes=sum(inside.values()),
            )
        )
    return listings
