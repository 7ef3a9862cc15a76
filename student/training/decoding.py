"""Has ultralytics read pictures by the decoder of everything else, `data.images.read_image`.

So the teacher, training, evaluation, enrolment and detection see the same pixels of every file. ultralytics' data sets
keep a list of file names and hand each to `imread`; ours may put anything with `read_bytes` in that list as well: a
member of a tar, or an image that a stream has just brought.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ultralytics.data.base
import ultralytics.data.loaders
import ultralytics.utils.patches
from numpy.typing import NDArray
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import imread

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.images import read_image, register_heif

_imread: Callable[[str, int], NDArray[np.uint8] | None] = imread


def read_bgr(file: Any, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8] | None:  # (H, W, 3)
    """The pixels of `read_image`, blue first; in place of ultralytics' `imread` where a data set is read.

    Args:
        file: name of a file, or anything with `read_bytes`.
        flags: what other than colour is asked for (by a model of one channel, say) is ultralytics' own affair.

    Raises:
        DatasetNotFoundError, DatasetError: as `read_image`.
    """
    if flags != cv2.IMREAD_COLOR:
        return _imread(str(file), flags)
    pixels = read_image(Path(file) if isinstance(file, str) else file)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)


def look_at_bgr(file: Any, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8] | None:  # (H, W, 3)
    """The same where a detector looks at files: one that cannot be decoded is named in a warning and passed over."""
    try:
        return read_bgr(file, flags)
    except MochaError as refused:
        LOGGER.warning(str(refused))
        return None


ultralytics.data.base.imread = read_bgr
ultralytics.data.loaders.imread = look_at_bgr
# Or ultralytics would look for pi-heif, and say so in the log, at every file whose format Pillow does not know.
register_heif()
ultralytics.utils.patches._pil_plugins_registered = True
