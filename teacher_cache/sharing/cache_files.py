"""CacheFiles: the files of a cache at a place, read as mocha-pipe would have written them.

Where another program laid an array out anew, or put the chunks of a shard in another order, zarr reads the rows, and
they are encoded again.
"""

from contextlib import suppress
from pathlib import Path

from mocha_pipe.data.errors import MochaError, first_line, quoted
from mocha_pipe.teacher_cache.errors import CacheCorruptError, mend_advice
from mocha_pipe.teacher_cache.sharing.places.place import Place
from mocha_pipe.teacher_cache.store.array_layout import DESCRIPTION, ArrayLayout, rows_through_zarr
from mocha_pipe.teacher_cache.store.layout import SHARD_NAME, ShardPlan, describe_array, encode_shard, shard_path
from mocha_pipe.teacher_cache.store.quarantine import QUARANTINE_FOLDER
from mocha_pipe.teacher_cache.store.shard_file import ShardFile


def is_shard(name: str) -> bool:
    """Whether a file of a cache is a shard of an array."""
    return SHARD_NAME.fullmatch(name.rpartition("/")[2]) is not None


def shard_of(name: str) -> int:
    """The number in the name of a shard's file."""
    return int(name.rpartition("/")[2].split(".")[1])


class CacheFiles:
    """What reading takes to know of a cache; `Holding` finds it out."""

    place: Place
    plan: ShardPlan
    dims: dict[str, int]
    """Width of each array; `targets` is among them from its first file on."""
    layouts: dict[str, ArrayLayout]
    """Of each array that has a description."""

    def damaged(self, name: str, finding: str) -> CacheCorruptError:
        """The error that says that a file of this cache is damaged, and what mends it there."""
        # A shard that lost its list of what was set aside looks damaged too, so the whole shard goes.
        what = "it and the other files of its shard" if name.startswith(QUARANTINE_FOLDER) else "it"
        remedy = (
            mend_advice(self.place.path)
            if self.place.path is not None
            else f"remove {what} there and push again from a sound copy: "
            f"`{self.place.filled_by} FOLDER {quoted(self.place.url)}`"
        )
        return CacheCorruptError.of(f"{self.place.url}/{name}", finding, remedy)

    def read(self, name: str) -> bytes:
        """Content of a file as mocha-pipe would have written it.

        Raises:
            CacheCorruptError: zarr cannot read the rows.
            TransferError: the place cannot be reached.
        """
        array, _, last = name.rpartition("/")
        layout = self.layouts.get(array)
        if layout is None or layout.is_ours:
            return self.place.read(name)
        if last == DESCRIPTION:
            return describe_array(array, self.plan, layout.dim, layout.attributes)
        try:
            rows = rows_through_zarr(
                layout, lambda file: self._read_any(f"{array}/{file}"), *self.plan.span(shard_of(name))
            )
        except MochaError:
            raise
        except Exception as error:  # on a damaged file zarr lets through whatever its codecs meet
            raise self.damaged(name, first_line(error)) from error
        return encode_shard(rows, self.plan.rows_per_shard)

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file to a local one; a shard in the layout of mocha-pipe, whoever wrote it.

        Raises:
            CacheCorruptError, TransferError: as `read`.
        """
        array, _, last = name.rpartition("/")
        layout = self.layouts.get(array)
        if layout is not None and not layout.is_ours:
            to.write_bytes(self.read(name))
            return
        self.place.fetch(name, to)
        if layout is not None and last != DESCRIPTION:
            with suppress(CacheCorruptError):  # the check of what arrived tells of it
                if not self.shard_file(to, name).is_plain():
                    to.write_bytes(self._in_order(layout, to.read_bytes(), shard_of(name)))

    def is_as_written(self, name: str) -> bool:
        """Whether a file of this local cache lies as mocha-pipe writes it, as far as can be told without its rows."""
        assert self.place.path is not None
        array, _, last = name.rpartition("/")
        layout = self.layouts.get(array)
        if layout is None or not layout.is_ours or last == DESCRIPTION:
            return layout is None or layout.is_ours
        with suppress(CacheCorruptError):  # its check tells of it
            return self.shard_file(self.place.path / name, name).is_plain()
        return True

    def shard_file(self, path: Path, name: str) -> ShardFile:
        """A shard of this cache that lies in a local file."""
        return ShardFile(path, self.plan, shard_of(name), self.dims[name.partition("/")[0]])

    def _read_any(self, name: str) -> bytes | None:
        try:
            return self.place.read(name)
        except FileNotFoundError:
            return None

    def _in_order(self, layout: ArrayLayout, content: bytes, shard: int) -> bytes:
        """A shard of ours that another program wrote, whose chunks it put in another order."""
        files = {shard_path(Path(), shard).name: content}
        try:
            rows = rows_through_zarr(layout, files.get, *self.plan.span(shard))
        except Exception:  # as in `read`; the check of what arrived tells of it
            return content
        return encode_shard(rows, self.plan.rows_per_shard)
