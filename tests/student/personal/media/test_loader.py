"""Files one after the other: batches, videos that end, and what cannot be read."""

from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split
import cv2
import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.images import read_image
from mocha_pipe.student.personal.media.loader import FileLoader


def picture(name: str, shade: int) -> str:
    Image.new("RGB", (40, 30), (shade, 0, 0)).save(name)
    return name


def video(name: str, frames: int) -> str:
    writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 30))
    for frame in range(frames):
        writer.write(np.full((30, 40, 3), frame % 20 * 10, np.uint8))
    writer.release()
    return name


def read(files: list[str], batch: int = 1, vid_stride: int = 1) -> tuple[list[list[str]], FileLoader]:
    loader = FileLoader(files, [], batch=batch, vid_stride=vid_stride)
    batches = []
    for paths, images, texts in loader:
        assert len(paths) == len(images) == len(texts) <= batch
        assert all(text.startswith(loader.mode) and text.endswith(": ") for text in texts)
        batches.append(paths)
    return batches, loader


def test_files_come_in_their_order_and_batches_never_mix() -> None:
    files = [picture("a.png", 1), video("b.avi", 3), video("c.avi", 1), picture("d.png", 2), picture("e.png", 3)]
    one_by_one, _ = read(files)
    assert [name for (name,) in one_by_one] == ["a.png", *["b.avi"] * 3, "c.avi", "d.png", "e.png"]
    batches, _ = read(files, batch=2)
    assert batches == [["a.png"], ["b.avi", "b.avi"], ["b.avi"], ["c.avi"], ["d.png", "e.png"]]
    assert read(files, batch=2, vid_stride=2)[0] == [["a.png"], ["b.avi"], ["d.png", "e.png"]]


def test_a_loader_can_be_read_again() -> None:
    loader = FileLoader([picture("a.png", 1), video("b.avi", 2)], [], batch=1, vid_stride=1)
    assert [len(list(loader)) for _ in range(2)] == [3, 3]


def test_pictures_are_decoded_as_where_objects_are_learnt() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save("clear.tif")
    Image.fromarray(pixels[..., :3]).save("turned.jpg", exif=_sideways())
    for name in ("clear.tif", "turned.jpg"):
        ((_, (image,), _),) = FileLoader([name], [], batch=1, vid_stride=1)
        np.testing.assert_array_equal(image[:, :, ::-1], read_image(Path(name)))


def _sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("place", [0, 1, 3])
def test_what_cannot_be_read_is_left_out_and_the_rest_goes_on(place: int) -> None:
    good = [picture("a.png", 1), video("b.avi", 2), picture("c.jpg", 3)]
    whole = Path("c.jpg").read_bytes()
    broken = {
        "text.png": b"no picture", "empty.jpg": b"", "cut.jpg": whole[: len(whole) // 2], "text.mp4": b"no video",
        "empty.avi": b"", "cut.avi": Path("b.avi").read_bytes()[:200],
    }  # fmt: skip
    for name, content in broken.items():
        Path(name).write_bytes(content)
    for batch in (1, 4):
        batches, loader = read([*good[:place], *broken, "gone.png", *good[place:]], batch=batch)
        assert [name for names in batches for name in names] == ["a.png", "b.avi", "b.avi", "c.jpg"]
        assert [source for source, _ in loader.left_out] == [*broken, "gone.png"]
        assert all(reason and "\n" not in reason for _, reason in loader.left_out)
        assert dict(loader.left_out)["text.mp4"] == "it cannot be opened as a video"


def test_a_video_that_ends_too_early_is_named() -> None:
    content = Path(video("long.avi", 40)).read_bytes()
    Path("cut.avi").write_bytes(content[: len(content) // 2])
    batches, loader = read(["cut.avi"])
    assert 0 < len(batches) < 40
    assert loader.left_out == [("cut.avi", f"it ended after {len(batches)} of 40 frames")]


def test_nothing_that_can_be_read_ends_at_once() -> None:
    Path("text.png").write_text("no picture")
    assert read(["text.png"])[0] == []
