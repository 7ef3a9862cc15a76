"""The files of the page: ours, a student as a browser runs it, scenes to try it on, and a user's profile."""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import atomic_path, is_vacant, json_digest, publish, temporary_folder, write_json
from mocha_pipe.pipeline.markers import read_json
from mocha_pipe.pipeline.web.runtime import runtime_files

FORMAT = "mocha-pipe-web-1"
_ABOUT = "page.json"
_PROFILE = "student/profile.safetensors"
_PAGE = Path(str(files("mocha_pipe"))) / "web"
_FILES = ("student.onnx", "student.onnx.json", "strangers.safetensors")

Site = Mapping[str, Path]
"""File of each path below the address of the page."""


class SiteError(MochaError, ValueError):
    """The page cannot be left where it was meant to."""


def build_site(student: Path, profile: Path | None, cache: Path, *, learner: str | None) -> Site:
    """The page with a student, which is exported unless the cache holds it.

    Args:
        student: folder of a distilled student.
        profile: objects that the page begins with; it was learnt with this student and learner.
        cache: folder for what is made or fetched once.
        learner: how detections are compared with prototypes; None takes the student's default.

    Raises:
        StudentModelError, StudentModelNotFoundError: the student cannot be read.
        ExportError: the package onnx is missing.
        RuntimeMissingError: onnxruntime-web could not be fetched.
    """
    runtime = runtime_files(cache)
    exported, samples = _exported(student, cache, learner), _samples(cache)
    site = {path.name: path for path in sorted(_PAGE.iterdir()) if path.is_file()}
    site |= {f"ort/{name}": path for name, path in runtime.items()}
    site |= {f"student/{name}": exported / name for name in _FILES}
    site |= {f"samples/{path.name}": path for path in samples}
    about = {"format": FORMAT, "samples": [f"samples/{path.name}" for path in samples], "profile": None}
    if profile is not None:
        site[_PROFILE] = profile
        about["profile"] = _PROFILE
    site[_ABOUT] = exported / f"{_ABOUT}-{json_digest(about)[:12]}"
    if not site[_ABOUT].exists():
        write_json(site[_ABOUT], about)
    return site


def save_site(site: Site, folder: Path) -> None:
    """Leave the files in a folder for any server of files.

    Args:
        site: what `build_site` gave.
        folder: new, empty, or one that holds an earlier page, which is replaced.

    Raises:
        SiteError: something else is there.
    """
    if not is_vacant(folder) and (not folder.is_dir() or read_json(folder / _ABOUT).get("format") != FORMAT):
        raise SiteError(
            f"{folder}: a page is left in a new or empty folder or in place of an earlier page, found something else; "
            "name another folder with --save"
        )
    (folder / _PROFILE).unlink(missing_ok=True)  # the objects of an earlier page are not published again unasked
    for name, source in site.items():
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(source, temporary)


def _exported(student: Path, cache: Path, learner: str | None) -> Path:
    """Folder with `_FILES`: the student as it is now, exported by this version."""
    from mocha_pipe.student.fewshot.strangers import STRANGERS_FILE
    from mocha_pipe.student.personal.export import export_student
    from mocha_pipe.student.personal.profile import student_digest

    # Also what the digest of a profile does not cover.
    others = [(student / name).read_bytes().hex() for name in (STRANGERS_FILE,) if (student / name).is_file()]
    key = [FORMAT, version("mocha-pipe"), student_digest(student), learner, others]
    folder = cache / "students" / json_digest(key)
    if not folder.is_dir():
        with temporary_folder(folder) as building:
            export_student(student, building / "student.onnx", learner=learner)
            shutil.copyfile(student / STRANGERS_FILE, building / STRANGERS_FILE)
            publish(building, folder)
    return folder


def _samples(cache: Path) -> list[Path]:
    """Scenes of the miniature world, drawn where they are not there yet."""
    from PIL import Image

    from mocha_pipe.data.miniature.samples import sample_scenes

    folder = cache / f"samples-{version('mocha-pipe')}"
    if not folder.is_dir():
        with temporary_folder(folder) as building:
            for number, scene in enumerate(sample_scenes(), start=1):
                Image.fromarray(scene.image).save(building / f"scene-{number}.jpg", quality=90, subsampling=0)
            publish(building, folder)
    return sorted(folder.iterdir())
