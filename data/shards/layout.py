"""What `mocha-pipe data pack` leaves in a folder: tar shards, one index per split, and dataset.json, written last.

    dataset.json            class names; for each split its shards, and the digest of its index
    train.index.parquet     one row per image: its place in the shards, its size, boxes and class ids
    train-000000.tar  ...   WebDataset samples 000000000.jpg + 000000000.json, in the order of the region table
    val.index.parquet  val-000000.tar  ...

The tars are plain WebDataset for anybody else. We read them through the index, which gives random access.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import atomic_path, bytes_digest, write_json

MANIFEST = "dataset.json"
FORMAT = "mocha-pipe shards 1"

_SPLIT = re.compile(r"[A-Za-z0-9_.-]+")
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("readable", pa.bool_()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("xyxy", pa.list_(pa.float64())),
        ("class_ids", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar."""

    file: str
    """Its name in the folder."""
    bytes: int
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split in shards."""

    images: int
    regions: int
    table: str
    """Digest of its region table."""
    index_digest: str
    """Hex of blake2b-16 over the index file."""
    shards: tuple[Shard, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of dataset.json."""

    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    recipe: str | None = None
    """Name of the settings that suit the data, where they are known: `miniature`."""

    def write(self, folder: Path) -> None:
        """Write dataset.json."""
        splits = {name: asdict(split) for name, split in self.splits.items()}
        content = {"format": FORMAT, "recipe": self.recipe, "class_names": self.class_names, "splits": splits}
        write_json(folder / MANIFEST, content)

    def split(self, name: str, where: object) -> Split:
        """One split.

        Raises:
            DatasetError: It is not there.
        """
        if name not in self.splits:
            found = ", ".join(f"'{other}'" for other in self.splits) or "none"
            raise DatasetError(
                f"{where}: holds no split '{name}', found: {found}; pack it into the same folder with: "
                f"mocha-pipe data pack --split {name}"
            )
        return self.splits[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """The images of one split. Legend: I = images, N = boxes."""

    names: tuple[str, ...]
    """POSIX paths relative to the data set that was packed."""
    digests: tuple[str, ...]
    """Hex of blake2b-16 over the image's bytes."""
    sizes: NDArray[np.int32]  # (I, 2)
    """Upright width and height."""
    readable: NDArray[np.bool_]  # (I,)
    shards: NDArray[np.int32]  # (I,)
    """Which shard of the split holds the image."""
    offsets: NDArray[np.int64]  # (I,)
    """Where its bytes begin in that tar."""
    num_bytes: NDArray[np.int64]  # (I,)
    first_box: NDArray[np.int64]  # (I + 1,)
    xyxy: NDArray[np.float64]  # (N, 4)
    class_ids: NDArray[np.int32]  # (N,)

    def __len__(self) -> int:
        return len(self.names)

    def member(self, image: int) -> str:
        """Name of the image's member in its tar."""
        return f"{sample_key(image)}{member_suffix(self.names[image])}"

    def write(self, path: Path) -> str:
        """Write as parquet; returns the file's digest. Equal content gives equal bytes."""
        lists = [
            pa.ListArray.from_arrays(pa.array(self.first_box * width, pa.int32()), pa.array(flat.ravel(), kind))
            for flat, width, kind in ((self.xyxy, 4, pa.float64()), (self.class_ids, 1, pa.int32()))
        ]
        columns = [self.names, self.digests, *self.sizes.T, self.readable, self.shards, self.offsets, self.num_bytes]
        arrays = [
            *(pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=False)),
            *lists,
        ]
        with atomic_path(path) as temporary:
            # Every setting that decides bytes is fixed here, so that a newer default of pyarrow changes none.
            pq.write_table(
                pa.Table.from_arrays(arrays, schema=_SCHEMA), temporary, version="2.6", compression="zstd",
                compression_level=3, use_dictionary=False, write_page_checksum=True,
            )  # fmt: skip
            return bytes_digest(temporary.read_bytes())

    @classmethod
    def read(cls, path: Path, digest: str) -> "ShardIndex":
        """Read an index of that digest.

        Raises:
            DatasetNotFoundError: There is none.
            DatasetError: It is another one.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DatasetNotFoundError(
                f"{path}: the index of the shards is not there; copy it beside them, or pack again"
            ) from None
        if bytes_digest(content) != digest:
            raise DatasetError(
                f"{path}: is not the index that {MANIFEST} speaks of, it is damaged or of another packing; copy both "
                "again, or pack again"
            )
        table = pq.read_table(pa.BufferReader(content))
        boxes = table["xyxy"].combine_chunks()
        first_box = boxes.offsets.to_numpy() if len(table) else np.zeros(1)
        return cls(
            names=tuple(table["name"].to_pylist()),
            digests=tuple(table["digest"].to_pylist()),
            sizes=np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1),
            readable=table["readable"].to_numpy(),
            shards=table["shard"].to_numpy(),
            offsets=table["offset"].to_numpy(),
            num_bytes=table["bytes"].to_numpy(),
            first_box=first_box.astype(np.int64) // 4,
            xyxy=boxes.values.to_numpy().reshape(-1, 4),
            class_ids=table["class_ids"].combine_chunks().values.to_numpy(),
        )


def sample_key(image: int) -> str:
    """What the members of one image share."""
    return f"{image:09d}"


def member_suffix(name: str) -> str:
    """Suffix of an image in a tar: its own, or `.image` where it has none that WebDataset could tell from the key."""
    suffix = PurePosixPath(name).suffix
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) and suffix.lower() != ".json" else ".image"


def index_file(split: str) -> str:
    """Name of a split's index."""
    return f"{split}.index.parquet"


def shard_file(split: str, number: int) -> str:
    """Name of a shard."""
    return f"{split}-{number:06d}.tar"


def pattern_of(split: str, num_shards: int) -> str:
    """The shards of a split in brace notation."""
    return f"{split}-{{{0:06d}..{num_shards - 1:06d}}}.tar"


def check_split_name(split: str) -> None:
    """Raises DatasetError where a split cannot be a part of file names."""
    if not _SPLIT.fullmatch(split) or split.startswith("."):
        raise DatasetError(
            f"a split's name is letters, digits, '.', '_' and '-', found {split!r}; name it with --split"
        )


def is_manifest(file: Path) -> bool:
    """Whether a .json is a dataset.json of `data pack`; reads its beginning only, as a COCO json may be large."""
    with file.open("rb") as stream:
        return FORMAT.rpartition(" ")[0].encode() in stream.read(100)


def read_manifest(folder: Path, asked: object) -> Manifest:
    """The dataset.json of a folder.

    Args:
        folder: Where the shards lie.
        asked: What the user named, for errors.

    Raises:
        DatasetNotFoundError: There is none.
        DatasetError: It is not what `data pack` writes.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetNotFoundError(
            f"{asked}: no {MANIFEST} beside the shards, tars are read together with the {MANIFEST} and index that "
            f"`mocha-pipe data pack` wrote; copy both to {folder}"
        ) from None
    return parse_manifest(text, folder / MANIFEST)


def recipe_of(data: Path) -> str | None:
    """The recipe that the dataset.json of some shards names; None where there is none, or no shards."""
    if data.suffix.lower() != ".tar" and data.name != MANIFEST:
        return None
    try:
        return read_manifest(data.parent, data).recipe
    except (DatasetError, DatasetNotFoundError):  # which opening the data set will say
        return None


def parse_manifest(text: str, where: object) -> Manifest:
    """A dataset.json from its text.

    Raises:
        DatasetError: It is not what `data pack` writes.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise DatasetError(
                f"{where}: is of format {content['format']!r}, this version reads {FORMAT!r}; pack again"
            )
        manifest = Manifest(
            class_names=tuple(map(str, content["class_names"])),
            splits={name: _split(split) for name, split in content["splits"].items()},
            recipe=content.get("recipe"),
        )
        for name, split in manifest.splits.items():
            check_split_name(name)
            if [shard.file for shard in split.shards] != [shard_file(name, at) for at in range(len(split.shards))]:
                raise ValueError(f"the shards of '{name}' have other names")
    except DatasetError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{where}: is not a {MANIFEST} of `mocha-pipe data pack` ({error!r}); copy it again, or pack again"
        ) from None
    return manifest


def _split(content: Mapping[str, object]) -> Split:
    shards = content["shards"]
    assert isinstance(shards, Sequence)
    return Split(
        images=int(str(content["images"])),
        regions=int(str(content["regions"])),
        table=str(content["table"]),
        index_digest=str(content["index_digest"]),
        shards=tuple(Shard(file=str(s["file"]), bytes=int(s["bytes"]), images=int(s["images"])) for s in shards),
    )
