"""The personal objects as a benchmark: their pictures, and the class of each."""

import re
import shutil
from pathlib import Path

import yaml

from mocha_pipe.data.benchmarks.photos import object_folders
from mocha_pipe.data.files import publish, temporary_folder

COARSE_FILE = "coarse.yaml"
_LINE = re.compile(r"(?P<name>[^:]+):\s+(?P<coarse>\S.*)")


def copy_subjects(source: Path, target: Path) -> int:
    """Copy the objects' folders with a `coarse.yaml` that `read_photos` reads.

    Args:
        source: one folder of pictures for each object, and where its classes are not their last words a coarse.yaml.
        target: new folder; one that is there is left alone.

    Returns:
        How many lines of coarse.yaml were no `object: class` of an object that is there, and were left out.
    """
    names = [folder.name for folder in object_folders(source)]
    coarse, ignored = read_coarse(source / COARSE_FILE, names)
    if target.is_dir():
        return ignored
    with temporary_folder(target, shared=False) as building:
        for name in names:
            shutil.copytree(source / name, building / name)
        (building / COARSE_FILE).write_text(yaml.safe_dump(coarse, allow_unicode=True), encoding="utf-8")
        publish(building, target, flush=False)
    return ignored


def read_coarse(file: Path, names: list[str]) -> tuple[dict[str, str], int]:
    """The class of each of these objects that has a line `object: class`, and the number of all other lines.

    Published lists of such objects have lines that are no yaml. Empty lines and comments do not count.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    found = [match for line in lines if (match := _LINE.fullmatch(line)) and match["name"].strip() in names]
    return {match["name"].strip(): match["coarse"].strip() for match in found}, len(lines) - len(found)
