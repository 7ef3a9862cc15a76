import errno
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data import images
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError, DecoderMissingError
from mocha_pipe.data.images import image_digest, inspect_image, is_decodable, read_image, read_with_digest

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


def test_one_look_gives_pixels_and_digest(write_image: WriteImage, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    pixels, digest = read_with_digest(path)
    np.testing.assert_array_equal(pixels, read_image(path))
    assert digest == image_digest(path)
    assert is_decodable(path)


def tiff(width: int, height: int, content: bytes, *, bits: int, bands: int = 1, kind: int = 1) -> bytes:
    """A little-endian TIFF of one strip; `kind` 1 is unsigned, 2 signed, 3 floating-point."""
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 2 if bands > 2 else 1),
        (273, 4, 1, 0), (277, 3, 1, bands), (278, 3, 1, height), (279, 4, 1, len(content)), (339, 3, 1, kind),
    ]  # fmt: skip
    if bands > 1:  # tables of one number for each band stand behind the entries
        entries += [(338, 3, bands - 3, 0)]
    entries.sort()
    end = 8 + 2 + 12 * len(entries) + 4
    tables, packed = b"", b""
    for tag, form, count, value in entries:
        if bands > 1 and tag in (258, 338, 339):
            count = bands if tag != 338 else bands - 3
            numbers = struct.pack(f"<{count}H", *[value] * count)
            if count > 2:
                value, tables = end + len(tables), tables + numbers
            else:
                value = int.from_bytes(numbers.ljust(4, b"\0"), "little")
        packed += struct.pack("<HHII", tag, form, count, value)
    packed = packed.replace(struct.pack("<HHII", 273, 4, 1, 0), struct.pack("<HHII", 273, 4, 1, end + len(tables)))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4) + tables + content


REFUSED = {
    "float": (
        tiff(12, 12, bytes(576), bits=32, kind=3),
        "a picture has 8 or 16 bits per channel, found floating-point numbers; save it as PNG or JPEG",
    ),
    "32 bits": (
        tiff(12, 12, bytes(576), bits=32),
        "a picture has 8 or 16 bits per channel, found signed or 32-bit numbers; save it as PNG or JPEG",
    ),
    "signed": (
        tiff(12, 12, bytes(288), bits=16, kind=2),
        "a picture has 8 or 16 bits per channel, found signed or 32-bit numbers; save it as PNG or JPEG",
    ),
    "12 bits": (
        tiff(12, 12, bytes(216), bits=12),
        "a picture has 8 or 16 bits per channel, found 12 bits; save it as PNG or JPEG",
    ),
    "five bands": (
        tiff(12, 12, bytes(720), bits=8, bands=5),
        "a picture has at most 4 bands, found 5; save its red, green and blue as RGB",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tiff_that_is_no_picture_is_refused_by_its_header(tmp_path: Path, kind: str) -> None:
    """Pillow opens these, and makes of most something black; OpenCV gives up on them in the middle of a training."""
    content, message = REFUSED[kind]
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    assert Image.open(path).size == (12, 12)
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: {message}"
    size, (problem,) = inspect_image(path)
    assert (size, problem.message, problem.unreadable) == (None, message, True)
    assert not is_decodable(path)


@pytest.mark.parametrize(("bits", "bands"), [(8, 1), (16, 1), (8, 3), (8, 4)])
def test_tiff_that_is_a_picture(tmp_path: Path, bits: int, bands: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(12, 10, bytes([7]) * (120 * bands * bits // 8), bits=bits, bands=bands))
    assert inspect_image(tmp_path / "a.tif") == ((12, 10), [])
    assert (read_image(tmp_path / "a.tif") == 7).all()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
AVIF = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf" + bytes(40)
HEIC_WORDS = "HEIC needs pi-heif; pip install pi-heif, or save it as PNG or JPEG"
AVIF_WORDS = "AVIF needs Pillow 11.3 or newer; pip install 'pillow>=11.3', or save it as PNG or JPEG"


@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
@pytest.mark.parametrize(("content", "message"), [(HEIC, HEIC_WORDS), (AVIF, AVIF_WORDS)], ids=["HEIC", "AVIF"])
def test_the_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str, name: str
) -> None:
    monkeypatch.setattr(images, "register_heif", lambda: False)
    monkeypatch.setattr(Image, "registered_extensions", dict)
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DecoderMissingError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: {message}"
    size, (problem,) = inspect_image(path)
    assert (size, problem.severity, problem.message) == (None, "error", message)
    assert not problem.unreadable, "a region set aside here would be embedded on a machine that has the package"


def test_pi_heif_is_registered_where_it_is_installed(tmp_path: Path) -> None:
    """In a process that knows no ultralytics; a stand-in for the package tells that it was asked."""
    package = tmp_path / "site" / "pi_heif"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from PIL import Image\n"
        "def register_heif_opener():\n"
        "    def opened(stream, name):\n"
        "        image = Image.new('RGB', (30, 20), (1, 2, 3))\n"
        "        image.format = 'HEIF'\n"
        "        return image\n"
        "    Image.register_open('HEIF', opened, lambda head: head[4:12] == b'ftypheic')\n"
    )
    (tmp_path / "a.heic").write_bytes(HEIC)
    code = (
        "import sys; from pathlib import Path; from mocha_pipe.data.images import inspect_image, read_image\n"
        "path = Path(sys.argv[1])\n"
        "assert inspect_image(path) == ((30, 20), []), inspect_image(path)\n"
        "assert (read_image(path) == [1, 2, 3]).all() and read_image(path).shape == (20, 30, 3)\n"
        "assert 'ultralytics' not in sys.modules\n"
    )
    path = ":".join([str(package.parent), *sys.path])
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.heic")], check=True, env={"PYTHONPATH": path})


def huge_png(path: Path, width: int, height: int) -> Path:
    """The header of a picture of one bit per pixel; nobody gets to what is missing."""
    Image.new("1", (16, 16)).save(path)
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    return path


def test_the_limit_of_a_picture_is_ours_and_in_our_words(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Phones take pictures of 200 megapixels; Pillow warns of half as many, and speaks of an attack."""
    assert inspect_image(huge_png(tmp_path / "a.png", 16320, 12240)) == ((16320, 12240), [])
    path = huge_png(tmp_path / "b.png", 20000, 20000)
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    message = "an image has at most 268 megapixels, found 20000 x 20000; make it smaller"
    assert str(caught.value) == f"{path}: {message}"
    assert inspect_image(path)[1][0].message == message
    (problem,) = inspect_image(huge_png(tmp_path / "c.png", 30000, 30000))[1]
    assert problem.message == "an image has at most 268 megapixels, and this one far more; make it smaller"


def test_pillow_says_nothing_of_a_large_picture(tmp_path: Path) -> None:
    path = huge_png(tmp_path / "a.png", 16320, 12240)
    code = "import sys; from pathlib import Path; from mocha_pipe.data.images import inspect_image as look\n"
    code += "assert look(Path(sys.argv[1]))[0]; look(Path(sys.argv[2]))"
    large = huge_png(tmp_path / "b.png", 20000, 20000)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(large)], check=True, capture_output=True, text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


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


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    make = {"pipe": os.mkfifo, "folder": Path.mkdir, "link to a device": lambda link: link.symlink_to("/dev/zero")}
    make[kind](path)
    said = "is no file but a folder, pipe or device; replace or remove it"
    with pytest.raises(DatasetError) as refused:
        read_image(path)
    assert str(refused.value) == f"{path}: {said}"
    size, [problem] = inspect_image(path)
    assert (size, problem.message, problem.severity) == (None, said, "error")


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


def test_a_broken_file_is_not_taken_for_heic_once_ultralytics_is_loaded(tmp_path: Path) -> None:
    """It replaces `Image.open` by one that says of every broken file that pi-heif is missing."""
    (tmp_path / "zero.jpg").write_bytes(b"")
    program = (
        "import logging, pathlib; import mocha_pipe.data.images as images; import mocha_pipe.student.environment\n"
        "import ultralytics.utils\n"
        "print(images.inspect_image(pathlib.Path('zero.jpg'))[1][0].message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "cannot be read as an image (no known image format); replace or remove the file\n"
    assert done.stderr == ""
