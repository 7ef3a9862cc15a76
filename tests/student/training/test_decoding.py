"""Pictures from bytes are what ultralytics reads from files."""

import io
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import cv2
import numpy as np
import pytest
import ultralytics.data.base
from PIL import Image
from ultralytics.utils.patches import imread

from mocha_pipe.data.shards.tars import END, TarMember, member_header, padding
from mocha_pipe.student.training.decoding import decode_bgr, read_bgr

NOISE = np.random.default_rng(0).integers(0, 256, (24, 16, 4), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (24, 16), dtype=np.uint16)


def encoded(suffix: str, mode: str) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(DEEP) if mode == "I;16" else Image.fromarray(NOISE, "RGBA").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    kind = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000"}.get(suffix.lower(), suffix[1:].upper())
    image.save(stream, kind, **({} if suffix in (".bmp", ".jp2") or mode == "I;16" else {"exif": exif}))
    return stream.getvalue()


@pytest.mark.parametrize("flags", [cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED])
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".jpg", "RGB"), (".jpg", "L"), (".JPEG", "RGB"), (".png", "RGBA"), (".png", "L"), (".png", "I;16"),
     (".bmp", "RGB"), (".webp", "RGB"), (".tif", "RGB"), (".tif", "I;16"), (".jp2", "RGB"), (".avif", "RGB")],
)  # fmt: skip
def test_every_format_is_read_as_from_a_file(tmp_path: Path, suffix: str, mode: str, flags: int) -> None:
    if suffix == ".avif" and not Image.registered_extensions().get(".avif"):
        pytest.skip("this Pillow reads no AVIF")
    content = encoded(suffix, mode)
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    expected, found = imread(str(path), flags), decode_bgr(content, suffix, flags)
    assert expected is not None
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("content", [b"", b"none", encoded(".png", "RGB")[:60]])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_what_cannot_be_decoded_is_none_as_from_a_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    assert imread(str(path)) is None
    assert decode_bgr(content, suffix) is None


def test_ultralytics_reads_members_of_tars_and_files_alike(tmp_path: Path) -> None:
    content = encoded(".jpg", "RGB")
    path, tar = tmp_path / "image.jpg", tmp_path / "a.tar"
    path.write_bytes(content)
    tar.write_bytes(member_header("0.jpg", len(content)) + content + padding(len(content)) + END)
    assert ultralytics.data.base.imread is read_bgr
    for file in (str(path), path, TarMember(tar, "0.jpg", 512, len(content))):
        np.testing.assert_array_equal(ultralytics.data.base.imread(file, flags=cv2.IMREAD_COLOR), imread(str(path)))
    assert read_bgr(tmp_path / "none.jpg") is None
