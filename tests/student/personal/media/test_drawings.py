"""Drawings on disk: in place of nothing but earlier drawings, and whole or not at all."""

import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split
import cv2
import numpy as np
import pytest
from PIL import Image

from mocha_pipe.student.personal.media import drawings as module
from mocha_pipe.student.personal.media.drawings import Drawings, SavingError, is_drawing

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
OTHER = 255 - PICTURE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "found"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def draw_video(folder: Path, frames: int = 6) -> Path:
    drawings = Drawings(folder)
    for _ in range(frames):
        drawings.frame("clip", PICTURE, 12.5)
    assert names(folder) != ["clip.avi"], "not before it is whole"
    drawings.close()
    return folder / "clip.avi"


def test_a_picture_is_what_opencv_writes_and_says_that_it_was_drawn(folder: Path) -> None:
    path = Drawings(folder).picture("desk", PICTURE)
    cv2.imwrite("plain.jpg", PICTURE)
    np.testing.assert_array_equal(cv2.imread(str(path)), cv2.imread("plain.jpg"))
    with Image.open(path) as image:
        image.load()
        assert re.fullmatch(b"drawn by mocha-pipe [0-9a-f]{32}", image.info["comment"])
    assert is_drawing(path)
    assert not is_drawing(Path("plain.jpg"))
    assert names(folder) == ["desk.jpg"]


def test_a_video_can_be_read_to_its_last_frame(folder: Path) -> None:
    video = cv2.VideoCapture(str(draw_video(folder)))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    frames = [video.read()[0] for _ in range(7)]
    assert frames == [True] * 6 + [False]
    assert is_drawing(folder / "clip.avi")


def test_drawings_of_an_earlier_run_give_way(folder: Path) -> None:
    Drawings(folder).picture("desk", PICTURE)
    draw_video(folder, frames=9)
    again = Drawings(folder)
    again.picture("desk", OTHER)
    draw_video(folder, frames=2)
    assert names(folder) == ["clip.avi", "desk.jpg"]
    assert cv2.imread(str(folder / "desk.jpg")).mean() == pytest.approx(OTHER.mean(), abs=3)
    assert cv2.VideoCapture(str(folder / "clip.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert again.renamed == []


def photo(path: Path) -> None:
    Image.fromarray(PICTURE).save(path)


def edited(path: Path) -> None:
    photo(path.with_name("x.jpg"))
    drawn = Drawings(path.parent).picture("y", PICTURE)
    path.with_name("x.jpg").unlink()
    path.write_bytes(drawn.read_bytes()[:-2] + b"\x00\xff\xd9")
    drawn.unlink()


def with_a_comment_of_another(path: Path) -> None:
    Image.fromarray(PICTURE).save(path, comment=b"drawn by mocha-pipe " + b"0" * 32)


def link(path: Path) -> None:
    photo(path.parent.parent / "original.jpg")
    path.symlink_to("../original.jpg")


def link_to_a_drawing(path: Path) -> None:
    path.symlink_to(Drawings(path.parent.parent / "elsewhere").picture("z", PICTURE))


def broken_link(path: Path) -> None:
    path.symlink_to("../not there.jpg")


def hard_link(path: Path) -> None:
    photo(path.parent.parent / "original.jpg")
    os.link(path.parent.parent / "original.jpg", path)


def subfolder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    "make",
    [photo, edited, with_a_comment_of_another, link, link_to_a_drawing, broken_link, hard_link, subfolder, empty],
)
def test_what_is_no_drawing_stays_as_it_is(folder: Path, make: Callable[[Path], None], tmp_path: Path) -> None:
    folder.mkdir()
    make(folder / "desk.jpg")
    make(folder / "desk-2.jpg") if make is not edited else None
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    links = {path: path.readlink() for path in tmp_path.rglob("*") if path.is_symlink()}
    drawings = Drawings(folder)
    path = drawings.picture("desk", OTHER)
    assert path.name == ("desk-2.jpg" if make is edited else "desk-3.jpg")
    assert drawings.renamed == [path]
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.readlink() for path in links} == links


def test_a_video_that_was_not_drawn_stays(folder: Path) -> None:
    path = draw_video(folder)
    path.write_bytes(path.read_bytes() + b"x")
    before = path.read_bytes()
    draw_video(folder)
    assert names(folder) == ["clip-2.avi", "clip.avi"]
    assert path.read_bytes() == before


def test_names_that_some_disks_take_for_one_stay_apart_within_a_run(folder: Path) -> None:
    drawings = Drawings(folder)
    stems = [drawings.picture(stem, PICTURE).stem for stem in ("Desk", "desk", "caf\u00e9", "cafe\u0301", "Desk")]
    assert stems == ["Desk", "desk-2", "caf\u00e9", "cafe\u0301-2", "Desk-3"]
    assert drawings.renamed == []


def test_the_longest_name_that_a_disk_takes_is_taken(folder: Path) -> None:
    assert Drawings(folder).picture("x" * 251, PICTURE).is_file()
    with pytest.raises(SavingError, match=r"could not be written \(File name too long\)"):
        Drawings(folder).picture("x" * 252, PICTURE)


def test_frames_of_another_size_are_fitted(folder: Path) -> None:
    drawings = Drawings(folder)
    for picture in (PICTURE, PICTURE[::2, ::2]):
        drawings.frame("clip", np.ascontiguousarray(picture), 10)
    drawings.close()
    assert cv2.VideoCapture(str(folder / "clip.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 2


# --- a disk that is full ----------------------------------------------------------------------------------------------


def in_a_process_that_may_write(bytes_a_file: int, work: Callable[[], object]) -> str:
    """What a child that may not make larger files says; the limit acts as a full disk does."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        told = "no error"
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
            work()
        except SavingError as error:
            told = str(error)
        except BaseException as error:
            told = repr(error)
        os.write(writable, told.encode())
        os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    with os.fdopen(readable) as told:
        return told.read()


def test_a_picture_that_does_not_fit_is_an_error_and_leaves_the_old_one(folder: Path) -> None:
    before = Drawings(folder).picture("desk", PICTURE).read_bytes()
    told = in_a_process_that_may_write(1000, lambda: Drawings(folder).picture("desk", OTHER))
    assert told == (
        f"{folder}/desk.jpg could not be written (File too large); drawings before it are in place: make room, or save "
        "to another folder"
    )
    assert names(folder) == ["desk.jpg"]
    assert (folder / "desk.jpg").read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98, 0.9999])
def test_a_video_that_is_cut_short_is_an_error_and_leaves_the_old_one(folder: Path, share: float) -> None:
    before = draw_video(folder, frames=40).read_bytes()
    told = in_a_process_that_may_write(int(share * len(before)), lambda: draw_video(folder, frames=40))
    assert told.startswith(f"{folder}/clip.avi could not be written (")
    assert told.endswith("); drawings before it are in place: make room, or save to another folder")
    assert names(folder) == ["clip.avi"]
    assert (folder / "clip.avi").read_bytes() == before


def test_a_camera_stops_where_the_disk_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 2**19

    drawings = Drawings(folder)
    for _ in range(64):
        drawings.frame("0", PICTURE, 30)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(SavingError, match="No space left on device"):
        drawings.frame("0", PICTURE, 30)


def test_one_video_that_fails_leaves_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = Drawings(folder)
    for stem in "abc":
        drawings.frame(stem, PICTURE, 10)
    whole = module._has_frames
    monkeypatch.setattr(module, "_has_frames", lambda path, number: path.name[1] != "b" and whole(path, number))
    with pytest.raises(SavingError, match=r"b.avi could not be written \(not all of its 1 frames are on the disk\)"):
        drawings.close()
    assert names(folder) == ["a.avi", "c.avi"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SavingError, match=r"file/found could not be written \(Not a directory\)"):
        Drawings(tmp_path / "file" / "found")


def test_what_another_process_draws_meanwhile_is_not_replaced(folder: Path) -> None:
    Drawings(folder).picture("desk", PICTURE)
    one, other = Drawings(folder), Drawings(folder)
    first = one.picture("desk", PICTURE)
    before = first.read_bytes()
    second = other.picture("desk", OTHER)
    other.frame("clip", OTHER, 10)
    other.close()
    clip = (folder / f"clip{module._VIDEO[0]}").read_bytes()
    one.frame("clip", PICTURE, 10)
    one.close()
    assert (first.read_bytes(), second.name, other.renamed) == (before, "desk-2.jpg", [second])
    assert (folder / f"clip{module._VIDEO[0]}").read_bytes() == clip
    assert len(names(folder)) == 4
    assert Drawings(folder).picture("desk", OTHER) == first, "by now it is an earlier run's"
