"""What several tests read and nobody changes, such as a trained student: made once, whatever the number of workers."""

import hashlib
import inspect
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[1]
DEVICE = os.environ.get("MOCHA_PIPE_TEST_DEVICE", "cpu")
"""What teachers and students of the tests compute on; `make test-gpu` names a GPU. Without it no test sees one."""
_KEPT = ROOT / ".pytest_cache" / "made"
_UNUSED_SECONDS = 24 * 3600
_PRODUCT = ("data", "teacher_cache", "student", "pipeline")
_LIBRARIES = ("numpy", "torch", "transformers", "ultralytics", "zarr")


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` filled, in this run or in an earlier one of the same code.

    The first worker that asks makes it under a lock, in a folder that gets its name when it is complete. Another digest
    of the product's code, of the file that defines `make`, or of the libraries' versions means another folder; one that
    nobody asked for since a day goes.

    Args:
        name: what is made, in words that a folder can be called.
        make: gets an empty folder to fill. Equal calls must make equal content.
    """
    folder = _KEPT / f"{name}-{_digest(inspect.getsourcefile(make) or '')}"
    _KEPT.mkdir(parents=True, exist_ok=True)
    with FileLock(_KEPT / f"{name}.lock"):
        if not folder.is_dir():
            for old in _KEPT.glob(f"{name}-*"):
                if time.time() - old.stat().st_mtime > _UNUSED_SECONDS:  # a run of other code may be reading it
                    shutil.rmtree(old)
            partial = folder.with_name(f"partial-{folder.name}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(folder)
        os.utime(folder)
    return folder


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Root may read and write everything, so root is somebody else for a moment, who gets as far as this folder."""
    temporary = Path(tempfile.gettempdir())
    for path in (folder, *folder.parents):
        if temporary in path.parents:
            path.chmod(0o755)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def _digest(maker: str) -> str:
    digest = hashlib.blake2b(_product_digest() + DEVICE.encode(), digest_size=8)
    digest.update(Path(maker).read_bytes())
    return digest.hexdigest()


@cache
def _product_digest() -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for package in _PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    for library in _LIBRARIES:
        digest.update(version(library).encode())
    return digest.digest()
