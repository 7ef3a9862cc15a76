"""PackPlan: the layout of a split's tar shards, from which they are written and against which they are checked."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import atomic_path, bytes_digest
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.shards import layout
from mocha_pipe.data.shards.index import ShardIndex, common_suffix, sample_key
from mocha_pipe.data.shards.tars import BLOCK, END, TarMember, member_header, padding
from mocha_pipe.data.types import DetectionSource


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """The layout of a split's tar shards: every byte but those of the images."""

    split: str
    source: DetectionSource
    table: RegionTable
    shards: tuple[layout.TarShard, ...]
    index: ShardIndex

    @classmethod
    def make(cls, split: str, source: DetectionSource, table: RegionTable, shard_bytes: int) -> "PackPlan":
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
        index = ShardIndex(
            names=table.image_names,
            suffix=common_suffix(table.image_names),
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
        path = out / self.shards[number].file
        if not path.exists() or path.stat().st_size != self.shards[number].bytes:
            return False
        return next(self.differences(path, number, images=False), None) is None

    def differences(self, tar: Path, number: int, *, images: bool = True) -> Iterator[tuple[str, str]]:
        """Where and what of a tar is not as it is written; without `images` these are not looked at."""
        with tar.open("rb") as stream:
            near = 0
            for part in self._parts(number):
                if isinstance(part, bytes):
                    if stream.read(len(part)) != part:
                        yield str(tar), f"a header or label near image {sample_key(near)}"
                    continue
                near = part
                size = int(self.index.num_bytes[part])
                if not images:
                    stream.seek(size, 1)
                elif bytes_digest(stream.read(size)) != self.index.digests[part]:
                    yield f"{tar}/{self.index.member(part)}", "this image"
            end = _end(stream.tell())
            if stream.read() != end:
                yield str(tar), "its end"

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
            header = member_header(f"{sample_key(image)}.json", len(label))
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
