"""Headers of a tar that no `data pack` wrote: one line each, and the stream ends."""

import io
import tarfile
from pathlib import Path

import pytest

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.packing import remote
from mocha_pipe.data.packing.remote import RemoteShard
from mocha_pipe.student.distil.stream.dataset import read_shard
from tests.hostile import DIGITS


def tar(headers: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as made:
        entry = tarfile.TarInfo("000000000.jpg")
        entry.size, entry.pax_headers = 3, headers
        made.addfile(entry, io.BytesIO(b"abc"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tar({"size": DIGITS}),
        tar({"mtime": DIGITS}),
        tar({"path": 300 * "x" + ".jpg"}),
        tar({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": DIGITS}),
        tar({"GNU.sparse.map": f"1,{DIGITS}"}),
        b"000000000.jpg".ljust(100, b"\0") + 412 * b"\xff" + bytes(1024),
    ],
    ids=["size", "time", "name", "sparse", "map", "numbers"],
)
def test_hostile_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(remote, "_FIRST_WAIT", 0)
    path = tmp_path / "train-000000.tar"
    path.write_bytes(content)
    shard = RemoteShard(url=f"file://{path}", bytes=len(content), first_image=0, digests=("0",))
    with pytest.raises(MochaError) as caught:
        list(read_shard(shard))
    assert str(caught.value).startswith(f"file://{path}: ")
    assert "\n" not in str(caught.value)
