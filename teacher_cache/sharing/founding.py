"""An empty place becomes a cache, and a cache that lost its description gets it back."""

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path

from mocha_pipe.data.errors import quoted
from mocha_pipe.data.files import bytes_digest, finish_filling, is_dropping, is_vacant, publish, temporary_folder
from mocha_pipe.teacher_cache.errors import (
    CacheFormatError,
    CacheNotFoundError,
    CacheWriteError,
    DescriptionCorruptError,
    away_advice,
)
from mocha_pipe.teacher_cache.sharing.holding import TABLE, Holding
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.sharing.transfer import Carry, Transfer, fetch_checked, send_units
from mocha_pipe.teacher_cache.sharing.units import Unit
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION
from mocha_pipe.teacher_cache.store.layout import shard_name


def present(place: Place, distrusted: Collection[str] = ()) -> Holding:
    """What is at a place now that was a cache a moment ago."""
    found = Holding.at(place, distrusted)
    if found is None:
        raise CacheNotFoundError(f"the teacher cache at {place.url} went away; run the same command again")
    return found


def is_founded(place: Place, kind: str) -> bool:
    """Whether a description is at a place.

    Args:
        place: where a cache is, or is to be.
        kind: `a cache` or `an archive`, for the message.

    Raises:
        CacheFormatError: there is none, and something else is.
    """
    files, folders = place.entries()
    if DESCRIPTION in files:
        return True
    if visible := sorted(name for name in (*files, *folders) if not name.startswith(".") and not is_dropping(name)):
        raise CacheFormatError(
            f"{kind} has a folder of its own; {place.url} holds something else ({visible[0]}); name a new one, such as "
            f"{place.url}/{kind.split()[-1]}"
        )
    return False


def claim(transfer: Transfer, source: Holding, place: Place) -> Holding:
    """Send the description to an empty place, which makes the place a cache, unless somebody else is faster."""
    if not is_founded(place, "a cache"):
        transfer.run([[Unit((DESCRIPTION,))]], source, partial(send_units, source, place, ()))
    return present(place)


def adopt(source: Holding, folder: Path) -> list[str]:
    """Make an empty local folder a cache: its description and table appear at once. Returns the names that arrived."""
    finish_filling(folder, DESCRIPTION)
    if not is_vacant(folder):
        if not any((folder / name).exists() for name in (DESCRIPTION, *TABLE)):
            raise CacheFormatError(f"{folder} holds something else than a teacher cache; name another folder")
        return []
    with temporary_folder(folder) as temporary:
        for name in source.identity:
            fetch_checked(source, [name], temporary)
        return list(source.identity) if publish(temporary, folder, last=DESCRIPTION) else []


def require_folders(paths: Iterable[Path]) -> None:
    """Refuse to write where a file has the place of a folder of the cache.

    Raises:
        CacheWriteError: there is one.
    """
    for path in paths:
        if path.exists() and not path.is_dir():
            raise CacheWriteError(f"{path} must be a folder of the cache; it is a file; {away_advice(path)}")


def restore(transfer: Transfer, source: Holding, place: Place, carry: Carry) -> None:
    """Bring the description back to a cache that lost it, where the rest of it is of the same cache.

    Raises:
        DescriptionCorruptError: nothing shows that.
    """
    try:
        Holding.at(place)
    except DescriptionCorruptError as error:
        there = Holding(place, description=source.description)
        whole = [shard for shard in range(len(there.plan)) if there.has_teacher_shard(shard)]
        common = [shard for shard in whole if source.has_teacher_shard(shard)]
        looked_at = {common[0], common[len(common) // 2], common[-1]} if common else set()
        names = [shard_name(array, shard) for shard in looked_at for array in source.spec.arrays]
        tables = [name for name in TABLE if name in there.files]
        is_kin = all(bytes_digest(place.read(name)) == source.table_files[name] for name in tables)
        if not (names and is_kin and all(there.read(name) == source.read(name) for name in names)):
            raise DescriptionCorruptError.of(
                f"{place.url}/{DESCRIPTION}",
                f"{error.finding}, and no shard shows that the rest is of {source.place.url}",
                f"copy that to another place: `mocha-pipe cache pull {quoted(source.place.url)} "
                f"{quoted(f'{place.path or place.root}-2')}`",
            ) from error
        transfer.run([[Unit((DESCRIPTION,))]], source, carry)
