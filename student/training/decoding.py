"""Lets ultralytics read images that are no files of their own, such as members of tars.

ultralytics' data sets keep a list of file names and hand each to `imread`. Ours may put anything with `read_bytes` and
`suffix` in that list: a member of a tar, or an image that a stream has just brought.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ultralytics.data.base
from numpy.typing import NDArray
from ultralytics.utils.patches import imread

_PLAIN = frozenset({".bmp", ".jpeg", ".jpg", ".mpo", ".png", ".webp"})
"""Formats that ultralytics decodes by cv2 alone; what it does with others depends on the file's name."""
_imread: Callable[[str, int], NDArray[np.uint8] | None] = imread


def read_bgr(file: Any, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8] | None:  # (H, W, C)
    """What ultralytics' `imread` gives for a file of these bytes; None where it cannot be decoded."""
    if isinstance(file, str | Path):
        return _imread(str(file), flags)
    return decode_bgr(file.read_bytes(), file.suffix, flags)


def decode_bgr(content: bytes, suffix: str, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8] | None:  # (H, W, C)
    """The same for the bytes of a file and its suffix."""
    if suffix.lower() in _PLAIN and content:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if image is None:
            return None
        if image.dtype == np.uint8:
            return np.asarray(image if image.ndim == 3 else image[..., None], np.uint8)
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(content)
        file.flush()
        return _imread(file.name, flags)


ultralytics.data.base.imread = read_bgr
