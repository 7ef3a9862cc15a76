"""Image files: upright RGB pixels, upright size from the header alone, digest of the bytes.

`read_image` is the one decoder: teacher, `data check`, training, evaluation, enrolment and detection see its pixels.
Boxes live in the frame of the upright image: the EXIF orientation is applied to pixels and to sizes, as ultralytics
does for both.
"""

import errno
import functools
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mocha_pipe.data.errors import (
    DatasetError,
    DatasetNotFoundError,
    DecoderMissingError,
    MochaError,
    first_line,
    in_print,
)
from mocha_pipe.data.files import bytes_digest
from mocha_pipe.data.types import ImageFile, Problem, error, warning

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)
"""What ultralytics takes for an image, in lower case."""

MIN_SIDE = 10
"""Pixels; ultralytics drops smaller images without stopping."""

MAX_PIXELS = 2**28
"""Photographs of phones have up to 200 megapixels; what is far larger would fill the memory of every loader."""

# Pillow warns of images half as large as a phone's, in words that speak of an attack. Twice this it still refuses.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_open_image = Image.open  # ultralytics puts another in its place, which asks for pi-heif whatever a broken file is
_FORMATS = {"AVIF", "BMP", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_TIFF_BITS = {1, 2, 4, 8, 16}
_BANDS = 4  # red, green, blue and transparency
_SIDEWAYS = {5, 6, 7, 8}  # EXIF orientations that swap width and height
_TRAILING = (
    "JPEG does not end in its end marker; it decodes, but `yolo train` rewrites such a file and so changes its region "
    "keys; save it again before building a cache"
)


def read_image(path: ImageFile) -> NDArray[np.uint8]:  # (H, W, 3)
    """Decode an image, upright, as RGB; transparency is dropped and 16-bit channels keep their high byte.

    Raises:
        DatasetNotFoundError: There is no such file, or the disk that holds it does not answer.
        DatasetError: The file is no image, is damaged, or holds what is no picture of three colours.
        DecoderMissingError: It needs a package that is not installed.
    """
    return np.asarray(read_picture(path))


def read_picture(path: ImageFile) -> Image.Image:
    """What `read_image` gives, as a picture of Pillow's; boxes are cut from it without a copy of the whole.

    Raises:
        DatasetNotFoundError, DatasetError, DecoderMissingError: As `read_image`.
    """
    with _errors_in_words(path):
        return _decode(path, path.read_bytes())


def read_with_digest(path: ImageFile) -> tuple[NDArray[np.uint8], str]:  # (H, W, 3)
    """What `read_image` and `image_digest` give, from one look at the file.

    Raises:
        DatasetNotFoundError, DatasetError, DecoderMissingError: As `read_image`.
    """
    with _errors_in_words(path):
        content = path.read_bytes()
        return np.asarray(_decode(path, content)), bytes_digest(content)


def is_decodable(path: ImageFile) -> bool:
    """Whether `read_image` can decode a file.

    Raises:
        DatasetNotFoundError: There is no such file, or the disk that holds it does not answer.
    """
    try:
        read_image(path)
    except DatasetError:
        return False
    return True


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
        with _errors_in_words(path), path.open("rb") as stream, _open(path, stream) as image:
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
        # Where only a package is missing, its boxes are not set aside: a colleague's machine would read them.
        unreadable = isinstance(refused, DatasetError) and not isinstance(refused, DecoderMissingError)
        return None, [error(path, message_of(refused, path), unreadable=unreadable)]


def message_of(refused: MochaError, path: ImageFile) -> str:
    """What `read_image` says of a file, without the path before it."""
    return str(refused).removeprefix(f"{in_print(path)}: ")


@functools.cache
def register_heif() -> bool:
    """Let Pillow read HEIC where pi-heif is installed; whether it is."""
    try:
        import pi_heif  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return False
    pi_heif.register_heif_opener()
    return True


def _open(path: ImageFile, stream: IO[bytes]) -> Image.Image:
    """Open an image that is to be decoded; only its header is read."""
    _find_decoder(path, stream.read(64))
    stream.seek(0)
    image = _open_image(stream)
    if refusal := _refusal(image):
        raise DatasetError(f"{path}: {refusal}")
    return image


def _find_decoder(path: ImageFile, head: bytes) -> None:
    """Have the package ready that an image needs, by the first bytes of its content: its name may lie."""
    if head[4:8] != b"ftyp":  # a container of the ISO
        return
    brands = {head[at : at + 4] for at in range(8, len(head), 4)}
    if brands & _AVIF_BRANDS:
        if ".avif" not in Image.registered_extensions():
            raise DecoderMissingError(
                f"{path}: AVIF needs Pillow 11.3 or newer; pip install 'pillow>=11.3', or save it as PNG or JPEG"
            )
    elif brands & _HEIF_BRANDS and not register_heif():
        raise DecoderMissingError(f"{path}: HEIC needs pi-heif; pip install pi-heif, or save it as PNG or JPEG")


def _refusal(image: Image.Image) -> str | None:
    """Why an image is no picture that can be learnt from, where it is none."""
    if image.width * image.height > MAX_PIXELS:
        return f"{_too_large()}, found {image.width} x {image.height}; make it smaller"
    bits, bands = 8, len(image.getbands())
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, bands = max(tags.get(258, (1,))), tags.get(277, 1)
    if bands > _BANDS:
        return f"a picture has at most {_BANDS} bands, found {bands}; save its red, green and blue as RGB"
    whole = image.mode != "F" and not (image.format == "TIFF" and image.mode == "I")  # unsigned 16 bits are no "I"
    if not whole or bits not in _TIFF_BITS:
        kind = {"F": "floating-point numbers", "I": "signed or 32-bit numbers"}.get(image.mode, f"{bits} bits")
        return f"a picture has 8 or 16 bits per channel, found {kind}; save it as PNG or JPEG"
    return None


def _too_large() -> str:
    return f"an image has at most {MAX_PIXELS // 10**6} megapixels"


@contextmanager
def _errors_in_words(path: ImageFile) -> Iterator[None]:
    """Turn whatever a file's reading raises into an error of ours, which says whether disk or content is at fault."""
    if isinstance(path, Path) and not path.is_file() and path.exists():  # reading a pipe would wait for ever
        raise DatasetError(f"{path}: is no file but a folder, pipe or device; replace or remove it")
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
        if isinstance(reason, Image.DecompressionBombError):
            raise DatasetError(f"{path}: {_too_large()}, and this one far more; make it smaller") from None
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


def _decode(path: ImageFile, content: bytes) -> Image.Image:
    """The picture in a file's content: upright, RGB, decoded to its end."""
    with _open(path, io.BytesIO(content)) as image:
        return _rgb(_upright(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; to RGB at once Pillow prints a warning
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()
    return image
