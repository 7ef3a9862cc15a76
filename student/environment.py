"""Prepares the process for ultralytics; import this before anything that imports ultralytics.

Left alone, ultralytics looks up hosts at import, posts telemetry, installs packages, fetches fonts and weights, writes
to ~/.config and the working folder, and unpickles whatever a checkpoint names. None of that happens after this import:

- no network, no installation: `YOLO_OFFLINE`, `YOLO_AUTOINSTALL`, and fonts that are in place before they are missed;
- restricted loading of checkpoints (`ULTRALYTICS_SAFE_LOAD`), unless the user set it otherwise;
- settings of its own (`YOLO_CONFIG_DIR`), with telemetry and logging integrations off, unless the user set the folder;
- all cores for torch, where ultralytics would set `OMP_NUM_THREADS` to 1.

These variables hold for the whole program that imports this package, and for the processes that it starts.
"""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from mocha_pipe.data.files import atomic_path, write_json

_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")
_SETTINGS_VERSION = "0.0.8"  # of ultralytics 8.4; another version is migrated by ultralytics, values kept


def prepare_environment() -> Path:
    """Sets the variables and fills the settings folder; returns that folder. Safe to repeat and to run in parallel."""
    os.environ["YOLO_OFFLINE"] = "1"
    os.environ["YOLO_AUTOINSTALL"] = "0"
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
    if not os.environ.get("OMP_NUM_THREADS"):
        # Cores that this process may run on.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        os.environ["OMP_NUM_THREADS"] = str(cores)
    if not os.environ.get("YOLO_CONFIG_DIR"):
        os.environ["YOLO_CONFIG_DIR"] = str(own_folder())
    folder = Path(os.environ["YOLO_CONFIG_DIR"]).expanduser() / "Ultralytics"
    _place_settings(folder / "settings.json")
    for name in _FONTS:
        _place_font(folder / name)
    return folder


def cpu_threads() -> int:
    """Threads that torch may use for training on the CPU: what the user set in `OMP_NUM_THREADS`, else all cores."""
    return int(os.environ["OMP_NUM_THREADS"].split(",")[0])


def own_folder() -> Path:
    """A folder under the user's cache; a fresh temporary one where the cache cannot be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mocha-pipe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    return folder if writable else Path(tempfile.mkdtemp(prefix="mocha-pipe-"))


def _place_settings(path: Path) -> None:
    """Writes settings where there are none; a file that exists holds the user's choices."""
    if path.exists():
        return
    integrations = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
    settings = {
        "settings_version": _SETTINGS_VERSION,
        **{f"{kind}_dir": str(path.parent / kind) for kind in ("datasets", "weights", "runs")},
        **dict.fromkeys(("uuid", "api_key", "openai_api_key"), ""),
        **dict.fromkeys(("sync", *integrations, "vscode_msg", "openvino_msg"), False),
    }
    write_json(path, settings)


def _place_font(path: Path) -> None:
    """Puts matplotlib's DejaVu Sans where ultralytics would look for Arial, which it would otherwise fetch."""
    spec = importlib.util.find_spec("matplotlib")
    if path.exists() or spec is None or spec.origin is None:
        return
    with atomic_path(path) as temporary:
        shutil.copyfile(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", temporary)


prepare_environment()
