"""Image files: upright RGB pixels, upright size from the header alone, digest of the bytes.

Boxes live in the frame of the upright image: the EXIF orientation is applied to pixels and to sizes, as ultralytics
does for both (cv2.imread and its label verification).
"""

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, MochaError, first_line
from mocha_pipe.data.files import bytes_digest
from mocha_pipe.data.types import ImageFile, Problem, error, warning

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)
"""What ultralytics takes for an image, in lower case."""

MIN_SIDE = 10
"""Pixels; ultralytics drops smaller images without stopping."""

_FORMATS = {"AVIF", "BMP", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP"}
_SIDEWAYS = {5, 6, 7, 8}  # EXIF orientations that swap width and height
_TRAILING = (
    "JPEG does not end in its end marker; it decodes, but `yolo train` rewrites such a file and so changes its region "
    "keys; save it again before building a cache"
)


def read_image(path: ImageFile) -> NDArray[np.uint8]:  # (H, W, 3)
    """Decode an image, upright, as RGB; transparency is dropped and 16-bit grey keeps its high byte.

    Raises:
        DatasetNotFoundError: There is no such file, or the disk that holds it does not answer.
        DatasetError: The file is no image, or is damaged.
    """
    with _errors_in_words(path), Image.open(io.BytesIO(path.read_bytes())) as image:
        return _rgb(_upright(image))


def image_digest(path: ImageFile) -> str:
    """Hex of blake2b-16 over the file's bytes.

    Raises:
        DatasetNotFoundError: There is no such file, or the disk that holds it does not answer.
    """
    with _errors_in_words(path):
        return bytes_digest(path.read_bytes())


def inspect_image(path: Path) -> tuple[tuple[int, int] | None, list[Problem]]:
    """Upright (width, height) from the header, without decoding, and what is wrong with the file.

    The size is None where a problem is an error. A JPEG that does not end in its end marker is decoded to tell a
    truncated file (error) from bytes after the picture (warning).
    """
    try:
        with _errors_in_words(path), path.open("rb") as stream, Image.open(stream) as image:
            size = _upright_size(image)
            if image.format not in _FORMATS:
                return None, [error(path, f"{image.format} content is not trained on; save it as PNG or JPEG")]
            if min(size) < MIN_SIDE:
                rule = f"an image must be at least {MIN_SIDE} x {MIN_SIDE} pixels"
                return None, [error(path, f"{rule}, found {size[0]} x {size[1]}; remove it")]
            stream.seek(-2, 2)
            if image.format == "JPEG" and stream.read() != b"\xff\xd9":
                stream.seek(0)
                _upright(image).load()
                return size, [warning(path, _TRAILING)]
            return size, []
    except (DatasetError, DatasetNotFoundError) as refused:
        return None, [error(path, message_of(refused, path), unreadable=isinstance(refused, DatasetError))]


def message_of(refused: MochaError, path: ImageFile) -> str:
    """What `read_image` says of a file, without the path before it."""
    return str(refused).removeprefix(f"{path}: ")


@contextmanager
def _errors_in_words(path: ImageFile) -> Iterator[None]:
    """Turn whatever a file's reading raises into an error of ours, which says whether disk or content is at fault."""
    try:
        yield
    except MochaError:
        raise
    except FileNotFoundError:
        raise DatasetNotFoundError(
            f"{path}: no such image; put the file there or remove it from the data set"
        ) from None
    except Exception as reason:  # on a broken file Pillow lets through whatever its parsing meets
        # EINVAL, or no number: the content is at fault, since a broken header may lead to a place that is not there.
        if isinstance(reason, OSError) and reason.errno not in (None, errno.EINVAL):
            raise DatasetNotFoundError(
                f"{path}: cannot be reached ({reason.strerror}); bring the disk back and run the same command again"
            ) from reason
        # ImportError: once ultralytics is imported, its patched Image.open looks for an HEIF plugin before it gives up.
        is_no_image = isinstance(reason, (UnidentifiedImageError, ImportError))
        what = "no known image format" if is_no_image else first_line(reason)
        raise DatasetError(f"{path}: cannot be read as an image ({what}); replace or remove the file") from None


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:  # getexif() would decode the pixels to look behind them
        return 1
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    # A broken tag may hold anything.
    return orientation if isinstance(orientation, int) and 2 <= orientation <= 8 else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if _orientation(image) not in _SIDEWAYS:
        return image.size
    if image.format == "TIFF":  # which versions of Pillow swap the size before decoding differs
        return _upright(image).size
    return image.height, image.width


def _upright(image: Image.Image) -> Image.Image:
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:  # (H, W, 3)
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
