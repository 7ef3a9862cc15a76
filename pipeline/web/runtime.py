"""onnxruntime-web, which runs the student in a browser: one pinned release from the npm registry, checked and kept.

Nothing of it is part of this package. npm finds the registry as the user set it up; what it fetches must have the
digest that stands here, whoever sent it.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import publish, temporary_folder

VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the release's archive, as npm writes it."""
FILES = (
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
"""Of the release: WebAssembly alone, then WebGPU. A browser loads one of the two."""

_NAME = "onnxruntime-web"
_SECONDS = 600


class RuntimeMissingError(MochaError, RuntimeError):
    """onnxruntime-web is not there and could not be fetched."""


def runtime_files(cache: Path) -> Mapping[str, Path]:
    """Where each of `FILES` lies; fetched where they do not yet.

    Args:
        cache: folder that keeps them. An archive of the release that somebody put there is taken in place of npm's.

    Raises:
        RuntimeMissingError: npm is missing or got nothing, or the archive is another one.
    """
    folder = cache / f"{_NAME}-{VERSION}"
    if not folder.is_dir():
        own = cache / f"{_NAME}-{VERSION}.tgz"
        if own.is_file():
            _unpack(own, folder)
        else:
            with tempfile.TemporaryDirectory() as download:
                _unpack(_download(Path(download), own), folder)
    return {name: folder / name for name in FILES}


def _download(folder: Path, own: Path) -> Path:
    """The release's archive, by npm."""
    npm = shutil.which("npm")
    otherwise = f"or put the archive of {_NAME} {VERSION} from the npm registry there by hand: {own}"
    if npm is None:
        raise RuntimeMissingError(
            f"the page runs with {_NAME}, which npm fetches once, found no npm; install Node.js (Debian and Ubuntu: "
            f"apt install npm) and run the same command again, {otherwise}"
        )
    command = [npm, "pack", f"{_NAME}@{VERSION}", "--pack-destination", str(folder), "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(  # noqa: S603  (no shell, and nothing of the user's)
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        said = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        said = [f"no answer in {_SECONDS} seconds"]
    archives = sorted(folder.glob("*.tgz"))
    if len(archives) != 1:
        reason = said[-1] if said else "it said nothing"
        raise RuntimeMissingError(
            f"the page runs with {_NAME} {VERSION}, which npm could not fetch ({reason}); look at the connection and "
            f"at `npm config get registry`, and run the same command again, {otherwise}"
        )
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    """Check the archive, and keep the files that are needed of it."""
    content = archive.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != INTEGRITY:
        raise RuntimeMissingError(
            f"{archive.name} must be the archive of {_NAME} {VERSION} with the digest {INTEGRITY[:20]}..., found "
            f"{found[:20]}...; take it from https://registry.npmjs.org, or remove it and run the same command again"
        )
    with temporary_folder(folder) as building, tarfile.open(archive) as tar:
        for name in FILES:  # by their names: no other member is looked at
            member = tar.extractfile(f"package/dist/{name}")
            assert member is not None, "the digest says which files there are"
            with (building / name).open("wb") as file:
                shutil.copyfileobj(member, file)
        publish(building, folder)  # another process may have been first, with the same files


if __name__ == "__main__":  # what the tests of the page want
    from mocha_pipe.student.environment import own_folder

    runtime_files(own_folder() / "web")
