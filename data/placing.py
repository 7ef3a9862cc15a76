"""Puts a user's picture into a data set of ours, so that no training can write to the user's own file."""

import os
import shutil
from pathlib import Path

from mocha_pipe.data.images import inspect_image
from mocha_pipe.data.types import ImageFile


def is_rewritten(file: Path) -> bool:
    """Whether `yolo train` would rewrite the file in place, such as a JPEG that does not end in its end marker."""
    return bool(inspect_image(file)[1])


def place_picture(file: ImageFile, target: Path, *, may_link: bool, symbolic: bool = False) -> str:
    """Link a picture, or copy it.

    Args:
        file: The picture; a member of a tar is always copied.
        target: Its new name.
        may_link: False where a training would write through the link (`is_rewritten`).
        symbolic: Whether the link is a symbolic one.

    Returns:
        `linked` or `copied`; the second also where the disk allows no link.
    """
    if not isinstance(file, Path):
        target.write_bytes(file.read_bytes())
        return "copied"
    if may_link:
        try:
            (os.symlink if symbolic else os.link)(file.resolve(), target)
            return "linked"
        except OSError:  # another disk, a disk without links, or a file that only its owner may link
            pass
    shutil.copyfile(file, target)
    return "copied"
