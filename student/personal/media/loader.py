"""Reads images and videos one after the other; what cannot be read is left out, and the rest goes on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import cv2
import numpy as np
from numpy.typing import NDArray
from ultralytics.data.loaders import LoadImagesAndVideos, SourceTypes
from ultralytics.data.utils import IMG_FORMATS

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.images import message_of, read_image

_WHOLE = 0.9  # share of the frames that a video's header promises; the number there is often an estimate


class LeftOut(NamedTuple):
    """What was not looked at, or not to its end."""

    source: str
    reason: str


class FileLoader(LoadImagesAndVideos):  # type: ignore[misc]  # ultralytics is untyped
    """As ultralytics' own, for files that were found already.

    Images are decoded as they are where an object is learnt (`read_image`).
    """

    left_out: list[LeftOut]
    """Grows while the loader is read."""

    def __init__(self, files: Sequence[str], left_out: Sequence[LeftOut], *, batch: int, vid_stride: int) -> None:
        """Opens nothing yet.

        Args:
            files: paths of images and videos, which their suffixes tell apart.
            left_out: what was left out already.
            batch: most images at once; frames of two videos are never in one batch, nor images and frames.
            vid_stride: every so many frames of a video one is looked at.
        """
        self.files = list(files)
        self.video_flag = [Path(file).suffix[1:].lower() not in IMG_FORMATS for file in files]
        self.nf, self.ni = len(files), self.video_flag.count(False)
        self.bs, self.vid_stride = batch, vid_stride
        self.mode = "image" if self.ni else "video"
        self.source_type = SourceTypes()
        self.left_out = list(left_out)
        self.cap: cv2.VideoCapture | None = None
        self.count = self.frame = self.frames = 0
        self.fps = 0.0

    def __next__(self) -> tuple[list[str], list[NDArray[np.uint8]], list[str]]:
        """Paths, images (H, W, 3) in BGR, and a line about each."""
        paths: list[str] = []
        images: list[NDArray[np.uint8]] = []
        texts: list[str] = []
        while self.count < self.nf and len(images) < self.bs:
            file, number, mode = self.files[self.count], self.count + 1, ("image", "video")[self.video_flag[self.count]]
            if images and mode != self.mode:
                break
            self.mode = mode
            image = self._next_frame(file) if mode == "video" else self._image(file)
            if image is not None:
                place = f" (frame {self.frame}/{self.frames})" if mode == "video" else ""
                texts.append(f"{mode} {number}/{self.nf}{place} {file}: ")
                paths.append(file)
                images.append(image)
            if image is None or mode == "image":
                self.count += 1
                if mode == "video" and images:
                    break
        if not images:
            raise StopIteration
        return paths, images, texts

    def _image(self, file: str) -> NDArray[np.uint8] | None:
        try:
            return np.ascontiguousarray(read_image(Path(file))[:, :, ::-1])
        except MochaError as error:
            self.left_out.append(LeftOut(file, message_of(error, Path(file))))
            return None

    def _next_frame(self, file: str) -> NDArray[np.uint8] | None:
        """The next frame of the video that is open, or of this one; None where there is no more."""
        if self.cap is None:
            self.cap, self.frame = cv2.VideoCapture(file), 0
            self.fps = self.cap.get(cv2.CAP_PROP_FPS)
            self.frames = max(int(self.cap.get(cv2.CAP_PROP_FRAME_COUNT) / self.vid_stride), 0)
        while all(self.cap.grab() for _ in range(self.vid_stride)):
            decoded, image = self.cap.retrieve()
            if decoded and image is not None:
                self.frame += 1
                return np.asarray(image, np.uint8)
        opened = self.cap.isOpened()
        self.cap.release()
        self.cap = None
        if not self.frame:
            reason = "no frame of it can be decoded" if opened else "it cannot be opened as a video"
            self.left_out.append(LeftOut(file, reason))
        elif self.frame < _WHOLE * self.frames:
            self.left_out.append(LeftOut(file, f"it ended after {self.frame} of {self.frames} frames"))
        return None
