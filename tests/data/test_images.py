import errno
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.images import image_digest, inspect_image, read_image

WriteImage = Callable[..., Path]
UPRIGHT = {1: lambda a: a, 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1), 8: lambda a: np.rot90(a, 1)}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_turns_pixels_and_size(
    tmp_path: Path, write_image: WriteImage, suffix: str, orientation: int
) -> None:
    raw = read_image(write_image(tmp_path / "raw.png", 40, 20))
    path = write_image(tmp_path / f"turned.{suffix}", 40, 20, orientation=orientation)
    upright = UPRIGHT[orientation](raw)
    np.testing.assert_array_equal(read_image(path), upright)
    assert inspect_image(path) == ((upright.shape[1], upright.shape[0]), [])


def test_jpeg_with_orientation_6_stands_upright(tmp_path: Path, write_image: WriteImage) -> None:
    path = write_image(tmp_path / "a.jpg", 40, 20, orientation=6)
    assert inspect_image(path) == ((20, 40), [])
    assert read_image(path).shape == (40, 20, 3)
    lying = read_image(write_image(tmp_path / "b.jpg", 40, 20))
    np.testing.assert_array_equal(read_image(path), np.rot90(lying, -1))


@pytest.mark.parametrize(
    "exif",
    [
        b"broken header",
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI4sI", 0x0112, 2, 4, b"six\0", 0),
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI4sI", 0x0112, 3, 1, b"\x09\0\0\0", 0),
    ],
    ids=["no header", "text for a number", "no such orientation"],
)
def test_broken_exif_beside_a_sound_picture_turns_nothing(tmp_path: Path, exif: bytes) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert inspect_image(tmp_path / "a.jpg") == ((40, 20), [])
    assert read_image(tmp_path / "a.jpg").shape == (20, 40, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "RGB"])
def test_every_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (12, 10), (255, 255, 255)).convert(mode).save(tmp_path / "a.tif")
    pixels = read_image(tmp_path / "a.tif")
    assert (pixels.shape, pixels.dtype) == ((10, 12, 3), np.uint8)
    assert (pixels == 255).all()


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    Image.fromarray(np.full((10, 10), 0x7F80, dtype=np.uint16)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 0x7F).all()


def test_digest_follows_the_bytes_and_not_the_name(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    assert image_digest(tmp_path / "a") == image_digest(tmp_path / "b")
    assert image_digest(tmp_path / "a") != image_digest(tmp_path / "c")
    assert len(image_digest(tmp_path / "a")) == 32


def test_missing_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    message = "no such image; put the file there or remove it from the data set"
    for reader in (read_image, image_digest):
        with pytest.raises(DatasetNotFoundError) as caught:
            reader(path)
        assert str(caught.value) == f"{path}: {message}"
    size, (problem,) = inspect_image(path)
    assert size is None
    assert problem.message == message


LOST = {"Input/output error": errno.EIO, "Stale file handle": errno.ESTALE, "Permission denied": errno.EACCES}


@pytest.mark.parametrize(("words", "number"), LOST.items(), ids=LOST)
def test_image_that_cannot_be_reached_is_not_taken_for_a_broken_one(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch, words: str, number: int
) -> None:
    """A missing mount must not set a whole data set aside."""
    path = write_image(tmp_path / "a.jpg")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, words)

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Image, "open", fail)
    message = f"cannot be reached ({words}); bring the disk back and run the same command again"
    for reader in (read_image, image_digest):
        with pytest.raises(DatasetNotFoundError) as caught:
            reader(path)
        assert str(caught.value) == f"{path}: {message}"
    size, (problem,) = inspect_image(path)
    assert size is None
    assert (problem.severity, problem.message, problem.unreadable) == ("error", message, False)


def test_disk_that_fails_while_pixels_are_read(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "a.png")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(DatasetNotFoundError, match="cannot be reached"):
        read_image(path)


def test_header_that_leads_nowhere_is_the_content_s_fault(tmp_path: Path) -> None:
    """The system refuses to seek there, with an error number of its own."""
    path = tmp_path / "a.tif"
    path.write_bytes(b"II+\0\x08\0\0\0" + b"\xff" * 7 + b"\x7f")
    with pytest.raises(OSError, match="Invalid argument"):
        Image.open(path)
    with pytest.raises(DatasetError, match=r"a\.tif: cannot be read as an image \("):
        read_image(path)
    _, (problem,) = inspect_image(path)
    assert problem.unreadable


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    message = "cannot be read as an image (no known image format); replace or remove the file"
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: {message}"
    size, (problem,) = inspect_image(path)
    assert size is None
    assert (problem.severity, problem.where, problem.message) == ("error", str(path), message)
    assert problem.unreadable


def test_no_image_reads_the_same_once_ultralytics_has_patched_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_for_plugin(*args: object) -> None:
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Image, "open", look_for_plugin)
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match=r"cannot be read as an image \(no known image format\)"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("missing", [1, 2, 100, 600])
def test_truncated_jpeg_is_an_error_from_its_header_check(
    tmp_path: Path, write_image: WriteImage, missing: int
) -> None:
    path = write_image(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-missing])
    size, (problem,) = inspect_image(path)
    assert size is None
    assert problem.message.startswith("cannot be read as an image (image file is truncated")


def test_truncated_png_shows_when_it_is_decoded(tmp_path: Path, write_image: WriteImage) -> None:
    path = write_image(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:-600])
    assert inspect_image(path) == ((40, 20), [])
    with pytest.raises(DatasetError, match=r"a\.png: cannot be read as an image \(.+\); replace or remove the file$"):
        read_image(path)


def test_bytes_after_the_picture_are_a_warning(tmp_path: Path, write_image: WriteImage) -> None:
    path = write_image(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\0\0")
    size, (problem,) = inspect_image(path)
    assert size == (40, 20)
    assert problem.severity == "warning"
    assert problem.message == (
        "JPEG does not end in its end marker; it decodes, but `yolo train` rewrites such a file and so changes its "
        "region keys; save it again before building a cache"
    )


def test_images_that_ultralytics_drops_are_errors(tmp_path: Path, write_image: WriteImage) -> None:
    _, (problem,) = inspect_image(write_image(tmp_path / "a.png", 40, 9))
    assert problem.message == "an image must be at least 10 x 10 pixels, found 40 x 9; remove it"
    Image.new("RGB", (20, 20)).save(tmp_path / "b.jpg", format="GIF")
    _, (problem,) = inspect_image(tmp_path / "b.jpg")
    assert problem.message == "GIF content is not trained on; save it as PNG or JPEG"


def test_header_inspection_decodes_no_pixels(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_image(tmp_path / name) for name in ("a.jpg", "b.png")]
    paths.append(write_image(tmp_path / "c.jpg", orientation=6))

    def refuse(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert [inspect_image(path) for path in paths] == [((40, 20), []), ((40, 20), []), ((20, 40), [])]
