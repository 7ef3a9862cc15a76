"""What `mocha-pipe data pack` leaves in a folder: tar shards, one index per split, and dataset.json, written last.

    dataset.json            class names; for each split its shards, and the digest of its index
    train.index.parquet     one row per image: its place in the shards, its size, boxes and class ids
    train-000000.tar  ...   WebDataset samples 000000000.jpg + 000000000.json, in the order of the region table
    val.index.parquet  val-000000.tar  ...

The tars are plain WebDataset for anybody else. We read them through the index (index.py), which gives random access.
In data/ a shard is such a tar; a shard of a teacher cache is another thing.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.files import write_json
from mocha_pipe.data.parsing import parse_json, shown

MANIFEST = "dataset.json"
FORMAT = "mocha-pipe shards 2"
_READ = ("mocha-pipe shards 1", FORMAT)
"""Formats that are read. Before 2 each image kept its own suffix in the tar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TarShard:
    """One tar of a split."""

    file: str
    """Its name in the folder."""
    bytes: int
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split in tar shards."""

    images: int
    regions: int
    table: str
    """Digest of its region table."""
    index_digest: str
    """Hex of blake2b-16 over the index file."""
    shards: tuple[TarShard, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of dataset.json."""

    recipe: str | None = None
    """Name of the settings that suit the data, where they are known: `miniature`."""
    class_names: tuple[str, ...]
    splits: dict[str, Split]

    def __post_init__(self) -> None:
        for name, split in self.splits.items():  # tars have the names that we give, so that none leaves the folder
            check_split_name(name)
            if [shard.file for shard in split.shards] != [tar_file(name, n) for n in range(len(split.shards))]:
                raise ValueError(f"the shards of '{name}' have other names")

    def write(self, folder: Path) -> None:
        """Write dataset.json."""
        write_json(folder / MANIFEST, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path, asked: object) -> "Manifest":
        """The dataset.json of a folder.

        Args:
            folder: Where the shards lie.
            asked: What the user named, for errors.

        Raises:
            DatasetNotFoundError: There is none.
            DatasetError: It is not what `data pack` writes.
        """
        try:
            content = (folder / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise DatasetNotFoundError(
                f"{asked}: no {MANIFEST} beside the shards, tars are read together with the {MANIFEST} and index that "
                f"`mocha-pipe data pack` wrote; copy both to {folder}"
            ) from None
        return cls.parse(content, folder / MANIFEST)

    @classmethod
    def parse(cls, written: bytes, where: object) -> "Manifest":
        """A dataset.json from its bytes.

        Raises:
            DatasetError: It is not what `data pack` writes.
        """
        try:
            content = parse_json(written)
            if content["format"] not in _READ:
                raise DatasetError(
                    f"{where}: is of format {shown(content['format'])}, this version reads {FORMAT!r}; pack again"
                )
            return TypeAdapter(cls).validate_python(content)
        except DatasetError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                reason = " ".join(map(str, (*first["loc"], first["msg"])))
            raise DatasetError(
                f"{where}: is not a {MANIFEST} of `mocha-pipe data pack` ({reason}); copy it again, or pack again"
            ) from None

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


def index_file(split: str) -> str:
    """Name of a split's index."""
    return f"{split}.index.parquet"


def tar_file(split: str, number: int) -> str:
    """Name of a tar shard."""
    return f"{split}-{number:06d}.tar"


def pattern_of(split: str, num_shards: int) -> str:
    """The tar shards of a split in brace notation."""
    return f"{split}-{{{0:06d}..{num_shards - 1:06d}}}.tar"


def check_split_name(split: str) -> None:
    """Raises DatasetError where a split cannot be a part of file names."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", split):
        raise DatasetError(
            f"a split's name is letters, digits, '.', '_' and '-', found {split!r}; name it with --split"
        )


def is_manifest(file: Path) -> bool:
    """Whether a .json is a dataset.json of `data pack`; reads its beginning only, as a COCO json may be large."""
    try:
        with file.open("rb") as stream:
            return FORMAT.rpartition(" ")[0].encode() in stream.read(100)
    except OSError:  # none that can be read
        return False


def recipe_of(data: Path) -> str | None:
    """The recipe that the dataset.json of some tar shards names; None where there is none, or no shards."""
    if data.suffix.lower() != ".tar" and data.name != MANIFEST:
        return None
    try:
        return Manifest.read(data.parent, data).recipe
    except (DatasetError, DatasetNotFoundError):  # which opening the data set will say
        return None
