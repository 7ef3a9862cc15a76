"""Packs splits of a data set into tar shards (data/shards/layout.py says what lies where), which train like the folder.

Images go in byte for byte and in the order of the region table, so that a teacher cache of the folder fits the tars,
and the other way round. Equal data gives equal bytes. A killed pack goes on, and writes only what is not there.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import LOCK_NAME, atomic_path, bytes_digest, exclusive, is_temporary
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards import layout
from mocha_pipe.data.shards.tars import BLOCK, END, TarMember, member_header, padding
from mocha_pipe.data.source import open_source, splits_of
from mocha_pipe.data.types import DetectionSource

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
    plan = _Plan.make(split, source, table, shard_bytes)
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


def _claim(out: Path, plan: "_Plan", recipe: str | None) -> layout.Manifest:
    """The folder's dataset.json. It is written at once where there is none, so that the folder is known as ours.

    Raises:
        DatasetError: The folder holds another packing.
    """
    another = f"name another folder with --out, or delete it with: rm -r {shlex.quote(str(out))}"
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


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The layout of a split's tar shards: every byte but those of the images."""

    split: str
    source: DetectionSource
    table: RegionTable
    shards: tuple[layout.TarShard, ...]
    index: layout.ShardIndex

    @classmethod
    def make(cls, split: str, source: DetectionSource, table: RegionTable, shard_bytes: int) -> "_Plan":
        """Lay the images out one after the other; a shard ends before the image that would make it too large."""
        records = source.records
        paths = [record.path for record in records]
        num_bytes = [path.size if isinstance(path, TarMember) else Path(path).stat().st_size for path in paths]
        shard_of: list[int] = []
        offsets: list[int] = []
        ends: list[int] = []
        for image, size in enumerate(num_bytes):
            text = len(_label(source, table, image))
            taken = 2 * BLOCK + size + len(padding(size)) + text + len(padding(text))
            if not ends or ends[-1] + taken + len(END) > shard_bytes:
                ends.append(0)
            shard_of.append(len(ends) - 1)
            offsets.append(ends[-1] + BLOCK)
            ends[-1] += taken
        counts = np.bincount(np.array(shard_of, np.int64), minlength=len(ends))
        index = layout.ShardIndex(
            names=table.image_names,
            digests=table.image_digests,
            sizes=table.image_sizes,
            readable=np.array([record.readable for record in records], bool),
            shards=np.array(shard_of, np.int32),
            offsets=np.array(offsets, np.int64),
            num_bytes=np.array(num_bytes, np.int64),
            first_box=table.first_row,
            xyxy=np.concatenate([np.zeros((0, 4)), *(record.xyxy for record in records)]),
            class_ids=table.class_ids,
        )
        shards = tuple(
            layout.TarShard(file=layout.tar_file(split, number), bytes=end + len(_end(end)), images=int(counts[number]))
            for number, end in enumerate(ends)
        )
        return cls(split=split, source=source, table=table, shards=shards, index=index)

    def is_written(self, out: Path, number: int) -> bool:
        """Whether a shard is there, of the right size and with these labels; a file of that name is always whole."""
        path, shard = out / self.shards[number].file, self.shards[number]
        if not path.exists() or path.stat().st_size != shard.bytes:
            return False
        with path.open("rb") as stream:
            for part in self._parts(number):
                if isinstance(part, int):
                    stream.seek(int(self.index.num_bytes[part]), 1)
                elif stream.read(len(part)) != part:
                    return False
        return True

    def write_shard(self, out: Path, number: int) -> None:
        """Write one shard, whole or not at all."""
        shard = self.shards[number]
        with atomic_path(out / shard.file) as temporary:
            with temporary.open("wb") as stream:
                for part in self._parts(number):
                    stream.write(self._content(part) if isinstance(part, int) else part)
                stream.write(_end(stream.tell()))
            assert temporary.stat().st_size == shard.bytes

    def _parts(self, number: int) -> Iterator[bytes | int]:
        """What a shard consists of, without its end: bytes, and the number of an image where its bytes stand."""
        for image in range(*np.searchsorted(self.index.shards, [number, number + 1]).tolist()):
            size, label = int(self.index.num_bytes[image]), _label(self.source, self.table, image)
            header = member_header(f"{layout.sample_key(image)}.json", len(label))
            yield member_header(self.index.member(image), size)
            yield image
            yield padding(size) + header + label + padding(len(label))

    def _content(self, image: int) -> bytes:
        path = self.source.records[image].path
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DatasetNotFoundError(f"{path}: is gone since packing began; put it back and pack again") from None
        if bytes_digest(content) != self.index.digests[image]:
            raise DatasetError(f"{path}: was changed while it was packed; run the same command again")
        return content


def _label(source: DetectionSource, table: RegionTable, image: int) -> bytes:
    """The .json of a sample: all that is known about an image, for any reader of WebDataset."""
    record, rows = source.records[image], slice(*table.first_row[image : image + 2].tolist())
    label = {
        "name": record.name,
        "digest": table.image_digests[image],
        "width": record.width,
        "height": record.height,
        "readable": record.readable,
        "first_row": rows.start,
        "xyxy": record.xyxy.tolist(),
        "class_ids": record.class_ids.tolist(),
        "class_names": [source.class_names[class_id] for class_id in record.class_ids.tolist()],
        "keys": [key.decode() for key in table.keys[rows].tolist()],
    }
    return json.dumps(label, ensure_ascii=False, allow_nan=False).encode()


def _end(position: int) -> bytes:
    """What closes a tar: two empty blocks, filled up to whole records of 20 blocks."""
    return END + bytes(-(position + len(END)) % (20 * BLOCK))
