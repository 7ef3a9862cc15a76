"""Packs splits of a data set into tar shards (data/shards/layout.py says what lies where), which train like the folder.

Images go in byte for byte and in the order of the region table, so that a teacher cache of the folder fits the tars,
and the other way round. Equal data gives equal bytes. A killed pack goes on, and writes only what is not there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from mocha_pipe.data.errors import DatasetError, quoted
from mocha_pipe.data.files import LOCK_NAME, exclusive, is_temporary
from mocha_pipe.data.packing.plan import PackPlan
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards import layout
from mocha_pipe.data.source import open_source, splits_of

DEFAULT_SHARD_MB = 256.0
"""Megabytes; some hundreds keep the number of files low and leave enough tars for the workers of a stream."""
_TRAINING = ("train", "val")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedSplit:
    """One split after packing."""

    split: str
    images: int
    regions: int
    shards: int
    bytes: int
    """Of all tars together."""
    written: int
    """Shards that this call wrote; the others were there."""
    pattern: Path
    """What to name with --data."""


def pack(
    data: Path,
    out: Path,
    *,
    splits: Sequence[str] = (),
    shard_mb: float = DEFAULT_SHARD_MB,
    recipe: str | None = None,
    progress: bool = False,
) -> tuple[PackedSplit, ...]:
    """Pack splits of a data set into a folder, which may hold other splits of it already.

    Args:
        data: What `open_source` opens.
        out: Folder for the tar shards.
        splits: Which; train and val when empty. A COCO .json is one split, and gets the name given here.
        shard_mb: Megabytes that a shard may have; one image more than that is a shard of its own.
        recipe: Name of the settings that suit the data, for dataset.json.
        progress: Show bars.

    Raises:
        DatasetNotFoundError, DatasetError: As `open_source`; or the folder holds something else, or an image changed
            while it was packed.
    """
    has = splits_of(data)
    named = tuple(dict.fromkeys(splits)) or tuple(split for split in has if split in _TRAINING) or (_short(has[0]),)
    if len(named) > 1 and len(has) == 1 and data.suffix.lower() == ".json":
        raise DatasetError(f"{data}: is one split, found {len(named)} names for it; pass --split once")
    for split in named:
        layout.check_split_name(split)
    _require_ours(out)
    with exclusive(out / LOCK_NAME):
        return tuple(_pack_split(data, out, split, int(shard_mb * 1e6), recipe, progress) for split in named)


def _short(split: str) -> str:
    """`train` and `val` for what COCO calls train2017 and val2017: the names that training looks for."""
    return next((name for name in _TRAINING if split.startswith(name)), split)


def _pack_split(data: Path, out: Path, split: str, shard_bytes: int, recipe: str | None, progress: bool) -> PackedSplit:
    source = open_source(data, split, keep_unreadable=True, progress=progress)
    table = RegionTable.build(source, progress=progress)
    plan = PackPlan.make(split, source, table, shard_bytes)
    manifest = _claim(out, plan, recipe)
    for left in out.glob(f".{split}-*.partial.tar"):  # by a pack that was killed; nobody else writes here now
        if is_temporary(left.name):
            left.unlink()
    written = 0
    for number in tqdm(range(len(plan.shards)), f"pack {split}", unit="shard", delay=2, disable=not progress):
        if not plan.is_written(out, number):
            plan.write_shard(out, number)
            written += 1
    if split not in manifest.splits:  # else no pack that was killed can have left a shard
        for stale in _shards_beyond(out, split, len(plan.shards)):
            stale.unlink()
    entry = layout.Split(
        images=len(source.records),
        regions=len(table),
        table=table.digest,
        index_digest=plan.index.write(out / layout.index_file(split)),
        shards=plan.shards,
    )
    if manifest.splits.get(split) != entry:
        replace(manifest, splits={**manifest.splits, split: entry}).write(out)
    return PackedSplit(
        split=split,
        images=entry.images,
        regions=entry.regions,
        shards=len(entry.shards),
        bytes=sum(shard.bytes for shard in entry.shards),
        written=written,
        pattern=out / layout.pattern_of(split, len(entry.shards)),
    )


def _require_ours(out: Path) -> None:
    """Refuse a folder with things of others: only dataset.json says that what lies beside it may be replaced.

    Raises:
        DatasetError: As said.
    """
    if (out / layout.MANIFEST).exists():
        layout.Manifest.read(out, out)
        return
    entries = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if others := [name for name in entries if name != LOCK_NAME and not is_temporary(name)]:
        raise DatasetError(
            f"{out}: holds something that `data pack` did not write ({others[0]}); name a new or empty folder with "
            "--out"
        )


def _claim(out: Path, plan: PackPlan, recipe: str | None) -> layout.Manifest:
    """The folder's dataset.json. It is written at once where there is none, so that the folder is known as ours.

    Raises:
        DatasetError: The folder holds another packing.
    """
    another = f"name another folder with --out, or delete it with: rm -r {quoted(out)}"
    if not (out / layout.MANIFEST).exists():
        manifest = layout.Manifest(class_names=plan.table.class_names, splits={}, recipe=recipe)
        manifest.write(out)
        return manifest
    manifest = layout.Manifest.read(out, out)
    if manifest.class_names != plan.table.class_names:
        raise DatasetError(
            f"{out}: holds shards with other class names, {list(manifest.class_names)[:5]} and not "
            f"{list(plan.table.class_names)[:5]}; {another}"
        )
    old = manifest.splits.get(plan.split)
    if old is not None and (old.table, old.shards) != (plan.table.digest, plan.shards):
        what = "the images or boxes" if old.table != plan.table.digest else "the sizes of the shards"
        raise DatasetError(f"{out}: holds another packing of '{plan.split}', {what} differ; {another}")
    return manifest


def _shards_beyond(out: Path, split: str, count: int) -> Iterator[Path]:
    """Shards of a split in a folder whose number is `count` or more."""
    names = (path.name for path in out.glob(f"{split}-[0-9][0-9][0-9][0-9][0-9][0-9].tar"))
    yield from (out / name for name in sorted(names) if int(name[-10:-4]) >= count)
