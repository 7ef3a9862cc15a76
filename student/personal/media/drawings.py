"""Drawn pictures and videos: on disk whole or not at all, and in place of nothing but earlier drawings.

A drawing carries a note with the digest of its other bytes: a comment in a JPEG, a chunk behind a video. What has none,
or was changed since, is not ours, and neither is a link.
"""

import errno
import hashlib
import os
import shutil
import unicodedata
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from ultralytics.utils import MACOS, WINDOWS

from mocha_pipe.data.errors import MochaError, first_line
from mocha_pipe.data.files import atomic_path

_VIDEO = (".mp4", "avc1") if MACOS else (".avi", "WMV2") if WINDOWS else (".avi", "MJPG")  # as ultralytics writes them
_NOTE = b"drawn by mocha-pipe "
_DIGEST = 16  # bytes
_NOTED = len(_NOTE) + 2 * _DIGEST
_LEAST_FREE = 2**20  # bytes; OpenCV does not say when a disk is full
_LOOK_EVERY = 64  # frames


class SavingError(MochaError, OSError):
    """A drawing could not be written."""


class Drawings:
    """The drawings of one run in a folder; those of earlier runs give way to new ones of the same name."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder where it is missing.

        Raises:
            SavingError: there can be no such folder.
        """
        self.folder = folder
        self.renamed: list[Path] = []
        """Drawings that have another name than they were meant to, as something else has it."""
        self._taken: set[str] = set()
        self._videos: dict[str, _Video] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # By their inodes: a drawing that another process puts there meanwhile is not replaced, whatever its name.
            self._earlier = {(entry.name, entry.inode()) for entry in os.scandir(folder)}
        except OSError as error:
            raise _failed(folder, error) from error

    def picture(self, stem: str, image: NDArray[np.uint8]) -> Path:  # (H, W, 3)
        """Write a picture, BGR, as JPEG; where it is now.

        Raises:
            SavingError: it cannot be written.
        """
        path = self._free(stem, ".jpg")
        try:
            content = cv2.imencode(".jpg", image)[1].tobytes()
            with atomic_path(path) as temporary:
                temporary.write_bytes(_with_comment(content))
        except (OSError, cv2.error) as error:
            raise _failed(path, error) from error
        return path

    def frame(self, stem: str, image: NDArray[np.uint8], fps: float) -> None:  # (H, W, 3)
        """Add a frame, BGR, to the video of this name, which has the first one's size and gets its place in `close`.

        Raises:
            SavingError: it cannot be written.
        """
        if stem not in self._videos:
            self._videos[stem] = _Video(self._free(stem, _VIDEO[0]), (image.shape[1], image.shape[0]), fps)
        self._videos[stem].write(image)

    def close(self) -> None:
        """Finish the videos.

        Raises:
            SavingError: one of them is not whole; the others are in place.
        """
        with ExitStack() as finishing:
            while self._videos:
                finishing.callback(self._videos.popitem()[1].finish)

    def _free(self, stem: str, suffix: str) -> Path:
        """A name that nothing else has: `desk.jpg`, else `desk-2.jpg` and so on."""
        in_the_way = False
        for number in count(1):
            path = self.folder / f"{stem}{f'-{number}' * (number > 1)}{suffix}"
            name = unicodedata.normalize("NFC", path.name).casefold()  # as disks compare that tell fewer names apart
            if name in self._taken:
                continue
            if not os.path.lexists(path) or self._is_earlier(path):
                break
            in_the_way = True
        self._taken.add(name)
        if in_the_way:
            self.renamed.append(path)
        return path

    def _is_earlier(self, path: Path) -> bool:
        """Whether a file is a drawing that was there when this run began."""
        return (path.name, path.lstat().st_ino) in self._earlier and is_drawing(path)


def is_drawing(path: Path) -> bool:
    """Whether a file is a drawing as it was written; a link never is."""
    try:
        if path.is_symlink() or not path.is_file():
            return False
        if path.suffix == ".jpg":
            content = path.read_bytes()
            return content == _with_comment(_without_comment(content))
        with path.open("rb") as stream:
            size = stream.seek(-len(_chunk(b"")) - _NOTED, os.SEEK_END)
            return stream.read() == _chunk(_note(_digest(path, size)))
    except OSError:
        return False


class _Video:
    """A video that is being written under another name."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path, self._size, self._count = path, size, 0
        self._place = ExitStack()
        try:
            self._temporary = self._place.enter_context(atomic_path(path))
        except OSError as error:
            raise _failed(path, error) from error
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter.fourcc(*_VIDEO[1]), fps, size)

    def write(self, image: NDArray[np.uint8]) -> None:
        if self._count % _LOOK_EVERY == 0 and shutil.disk_usage(self._path.parent).free < _LEAST_FREE:
            raise _failed(self._path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        if (image.shape[1], image.shape[0]) != self._size:
            image = np.asarray(cv2.resize(image, self._size), np.uint8)
        self._writer.write(image)
        self._count += 1

    def finish(self) -> None:
        """Give it its name, if it is whole: OpenCV does not say what it could not write."""
        self._writer.release()
        try:
            with self._place:
                if not _has_frames(self._temporary, self._count):
                    raise OSError(f"not all of its {self._count} frames are on the disk")
                note = _note(_digest(self._temporary))
                with self._temporary.open("ab") as stream:
                    stream.write(_chunk(note))
        except OSError as error:
            raise _failed(self._path, error) from error


def _has_frames(path: Path, number: int) -> bool:
    """Whether a video says that it has so many frames, and the last one is there."""
    video = cv2.VideoCapture(str(path))
    try:
        if int(video.get(cv2.CAP_PROP_FRAME_COUNT)) < number:
            return False
        video.set(cv2.CAP_PROP_POS_FRAMES, number - 1)
        return video.read()[0]
    finally:
        video.release()


def _chunk(note: bytes) -> bytes:
    """What players skip behind the end of a video."""
    if _VIDEO[0] == ".mp4":
        return (len(note) + 8).to_bytes(4, "big") + b"free" + note
    return b"JUNK" + len(note).to_bytes(4, "little") + note


def _with_comment(jpeg: bytes) -> bytes:
    start = _comment_place(jpeg)
    note = _note(hashlib.blake2b(jpeg, digest_size=_DIGEST))
    return jpeg[:start] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + jpeg[start:]


def _without_comment(jpeg: bytes) -> bytes:
    start = _comment_place(jpeg)
    return jpeg[:start] + jpeg[start + 4 + _NOTED :]


def _comment_place(jpeg: bytes) -> int:
    """Behind the start of the image and the JFIF header."""
    return 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2


def _note(digest: "hashlib.blake2b") -> bytes:
    return _NOTE + digest.hexdigest().encode()


def _digest(path: Path, size: int | None = None) -> "hashlib.blake2b":
    """Of the first bytes of a file, all where no size is given."""
    digest, left = hashlib.blake2b(digest_size=_DIGEST), path.stat().st_size if size is None else size
    with path.open("rb") as stream:
        while block := stream.read(min(left, 2**20)):
            digest.update(block)
            left -= len(block)
    return digest


def _failed(path: Path, error: Exception) -> SavingError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return SavingError(
        f"{path} could not be written ({reason}); drawings before it are in place: make room, or save to another folder"
    )
