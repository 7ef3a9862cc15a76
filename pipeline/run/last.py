"""Which distillation completed last below a root: `fewshot` and `personalize` take it unless another is named."""

import os
from pathlib import Path

from mocha_pipe.data.files import write_json
from mocha_pipe.pipeline.errors import StageMissingError
from mocha_pipe.pipeline.rundir import read_json

LAST_DISTILL = "last-distill.json"
DISTILL_COMMAND = "mocha-pipe distill"


def remember_distillation(root: Path, folder: Path) -> None:
    """Note a completed distillation."""
    write_json(root / LAST_DISTILL, {"run": os.path.relpath(folder, root)})


def last_distillation(root: Path) -> Path:
    """Folder of the distillation that completed last under a root.

    Raises:
        StageMissingError: none did.
    """
    pointer = read_json(root / LAST_DISTILL)
    if "run" not in pointer:
        raise StageMissingError(
            f"no distillation was completed under {root}: run {DISTILL_COMMAND}, or name its folder with --run"
        )
    return root / str(pointer["run"])
