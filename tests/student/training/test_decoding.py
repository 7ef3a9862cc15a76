"""What ultralytics reads of pictures, from files, tars and streams, is what the teacher and enrolment see of them."""

import io
import logging
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import cv2
import numpy as np
import pytest
import ultralytics.data.base
import ultralytics.data.loaders
from PIL import Image
from ultralytics.data.loaders import LoadImagesAndVideos
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import imread

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.images import read_image
from mocha_pipe.data.shards.tars import END, TarMember, member_header, padding
from mocha_pipe.student.training.decoding import look_at_bgr, read_bgr

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


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".jpg", "RGB"), (".jpg", "L"), (".JPEG", "RGB"), (".png", "RGBA"), (".png", "L"), (".png", "I;16"),
     (".png", "P"), (".bmp", "RGB"), (".webp", "RGB"), (".tif", "RGB"), (".tif", "L"), (".tif", "I;16"),
     (".jp2", "RGB"), (".avif", "RGB")],
)  # fmt: skip
def test_ordinary_pictures_are_what_ultralytics_alone_makes_of_them(tmp_path: Path, suffix: str, mode: str) -> None:
    if suffix == ".avif" and not Image.registered_extensions().get(".avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / f"image{suffix}"
    path.write_bytes(encoded(suffix, mode))
    expected, found = imread(str(path)), read_bgr(str(path))
    assert expected is not None
    assert found is not None
    assert (found.dtype, found.shape[2]) == (np.uint8, 3)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))
    np.testing.assert_array_equal(found[..., ::-1], read_image(path))


def test_a_transparent_tiff_is_one_picture(tmp_path: Path) -> None:
    """OpenCV multiplies the colours of a TIFF, and of nothing else, by their transparency."""
    for suffix in (".tif", ".png"):
        Image.fromarray(NOISE, "RGBA").save(tmp_path / f"a{suffix}")
    expected = NOISE[..., :3]
    for suffix in (".tif", ".png"):
        path = tmp_path / f"a{suffix}"
        np.testing.assert_array_equal(read_image(path), expected)
        trained_on = ultralytics.data.base.imread(str(path), flags=cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(trained_on, expected[..., ::-1])
        (_, (looked_at,), _) = next(iter(LoadImagesAndVideos(str(path))))
        np.testing.assert_array_equal(looked_at, expected[..., ::-1])


@pytest.mark.parametrize("content", [b"", b"none", encoded(".png", "RGB")[:60], encoded(".jpg", "RGB")[:-300]])
def test_what_cannot_be_decoded_is_refused_in_the_words_of_data_check(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    with pytest.raises(DatasetError) as again:
        ultralytics.data.base.imread(str(path), flags=cv2.IMREAD_COLOR)
    assert str(again.value) == str(caught.value)
    with pytest.raises(DatasetNotFoundError, match="no such image"):
        read_bgr(str(tmp_path / "none.jpg"))


def test_a_detector_names_a_picture_that_it_cannot_decode_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"none")
    (tmp_path / "b.jpg").write_bytes(encoded(".jpg", "RGB"))
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level(logging.WARNING, LOGGER.name):
        paths, _, _ = next(iter(LoadImagesAndVideos(str(tmp_path))))
    assert paths == [str(tmp_path / "b.jpg")]
    words = f"{tmp_path}/a.jpg: cannot be read as an image (no known image format); replace or remove the file"
    assert any(line.endswith(words) for line in caplog.messages)
    assert not [line for line in caplog.messages if "heif" in line]


def test_members_of_tars_and_files_are_read_alike(tmp_path: Path) -> None:
    content = encoded(".jpg", "RGB")
    path, tar = tmp_path / "image.jpg", tmp_path / "a.tar"
    path.write_bytes(content)
    tar.write_bytes(member_header("0.jpg", len(content)) + content + padding(len(content)) + END)
    assert ultralytics.data.base.imread is read_bgr
    assert ultralytics.data.loaders.imread is look_at_bgr
    for file in (str(path), path, TarMember(tar, "0.jpg", 512, len(content))):
        np.testing.assert_array_equal(ultralytics.data.base.imread(file, flags=cv2.IMREAD_COLOR), imread(str(path)))


@pytest.mark.parametrize("flags", [cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED])
def test_a_model_of_other_channels_reads_as_ultralytics_has_it(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encoded(".png", "RGBA"))
    np.testing.assert_array_equal(read_bgr(str(path), flags), imread(str(path), flags))
