"""What a data.yaml leaves to ultralytics: its folder of data sets, the data.yaml files it ships, names of ImageNet."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

import yaml

from mocha_pipe.data.parsing import parse_json

_IMAGENET_CODE = "n0"  # of the first name, as ultralytics has it


def datasets_folders() -> list[Path]:
    """Folders of data sets (`datasets_dir`) that the user's ultralytics is set to, where there are any.

    The settings in `YOLO_CONFIG_DIR` come first, and then those in the place where ultralytics keeps them.
    """
    home = Path.home()
    default = {"win32": home / "AppData/Roaming", "darwin": home / "Library/Application Support"}.get(sys.platform)
    own = default or Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    found = []
    for place in (Path(os.environ.get("YOLO_CONFIG_DIR") or own).expanduser(), own):
        try:
            folder = parse_json((place / "Ultralytics" / "settings.json").read_bytes())["datasets_dir"]
        except (OSError, ValueError, KeyError, TypeError):  # none, or not readable: then it is set to nothing
            continue
        if isinstance(folder, str) and Path(folder).is_dir():
            found.append(Path(folder))
    return list(dict.fromkeys(found))


def shipped_yaml(name: str) -> Path | None:
    """The data.yaml of that name among those that ultralytics ships, such as `coco8`."""
    folder = _shipped_folder()
    file = folder / f"{name}.yaml" if folder else None
    return file if file and file.is_file() else None


def imagenet_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Class names as ultralytics says them: codes of ImageNet (`n01440764`) become words (`tench`)."""
    if not names[0].startswith(_IMAGENET_CODE):
        return names
    words = _imagenet_words()
    return tuple(words.get(name, name) for name in names)


@functools.cache
def _imagenet_words() -> dict[str, str]:
    file = shipped_yaml("ImageNet")
    words: dict[str, str] = yaml.safe_load(file.read_text(encoding="utf-8"))["map"] if file else {}
    return words


def _shipped_folder() -> Path | None:
    spec = importlib.util.find_spec("ultralytics")  # found, not imported
    return Path(spec.origin).parent / "cfg" / "datasets" if spec and spec.origin else None
