"""The files of the page: what belongs to it, what is made once, and where it may be left."""

import json
import shutil
from pathlib import Path

import pytest

from mocha_pipe.data.miniature.samples import SCENES, sample_scenes
from mocha_pipe.pipeline.web import site as site_module
from mocha_pipe.pipeline.web.runtime import FILES
from mocha_pipe.pipeline.web.site import Site, SiteError, build_site, save_site
from mocha_pipe.student.personal import export
from mocha_pipe.student.personal.profile import Profile, student_digest
from tests.shared import ROOT


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of onnxruntime-web."""
    folder = tmp_path / "ort"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    monkeypatch.setattr(site_module, "runtime_files", lambda _: {name: folder / name for name in FILES})


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled by the first test that builds a page."""
    return tmp_path_factory.mktemp("web")


@pytest.fixture
def student(random_student: Path) -> Path:
    return random_student


@pytest.fixture
def profile(student: Path, tmp_path: Path) -> Path:
    Profile.empty(student_digest(student), ["mug", "boot"]).save(tmp_path / "profile.safetensors")
    return tmp_path / "profile.safetensors"


def about(site: Site) -> dict[str, object]:
    content: dict[str, object] = json.loads(site["page.json"].read_text())
    return content


def test_a_page_has_all_that_it_names(student: Path, profile: Path, cache: Path) -> None:
    site = build_site(student, None, cache, learner=None)
    assert {f"ort/{name}" for name in FILES} < set(site)
    assert {path.name for path in (ROOT / "web").iterdir()} <= set(site)
    assert {"index.html", "app.js", "student/student.onnx", "student/student.onnx.json"} < set(site)
    assert all(path.is_file() for path in site.values())
    assert len(about(site)["samples"]) == len(SCENES)
    assert set(about(site)["samples"]) <= set(site)
    assert about(site)["profile"] is None
    own = build_site(student, profile, cache, learner=None)
    assert own[str(about(own)["profile"])] == profile
    told = json.loads(site["student/student.onnx.json"].read_text())
    assert told["student"] == student_digest(student)


def test_a_student_is_exported_once(
    student: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = build_site(student, None, cache, learner=None)
    exported = []

    def fail(folder: Path, *_: object, **__: object) -> None:
        exported.append(folder)
        raise export.ExportError("asked")

    monkeypatch.setattr(export, "export_student", fail)
    assert build_site(student, None, cache, learner=None) == site
    changed = Path(shutil.copytree(student, tmp_path / "changed"))
    from mocha_pipe.student.fewshot.strangers import load_strangers, save_strangers

    save_strangers(changed, load_strangers(changed)[1:])
    with pytest.raises(export.ExportError):  # other thresholds
        build_site(changed, None, cache, learner=None)
    with pytest.raises(export.ExportError):
        build_site(student, None, cache, learner="gallery")
    assert exported == [changed, student]


def test_scenes_are_the_same_each_time() -> None:
    one, other = sample_scenes(), sample_scenes()
    assert all((left.image == right.image).all() for left, right in zip(one, other, strict=True))
    assert [len(scene.objects) for scene in one] == [len(shown) for shown in SCENES]


def test_a_page_is_left_in_a_folder_and_replaced_there(
    student: Path, profile: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "left"
    save_site(build_site(student, profile, cache, learner=None), folder)
    assert (folder / "student" / "profile.safetensors").read_bytes() == profile.read_bytes()
    (folder / "app.js").write_text("old")
    save_site(build_site(student, None, cache, learner=None), folder)
    assert (folder / "app.js").read_bytes() == (ROOT / "web" / "app.js").read_bytes()
    assert not (folder / "student" / "profile.safetensors").exists()  # nobody asked to publish it
    assert json.loads((folder / "page.json").read_text())["profile"] is None


def test_a_folder_of_something_else_is_refused(student: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "page.json").write_text("{}")
    with pytest.raises(
        SiteError, match=r"other: a page is left in a new or empty folder .*; name another folder with --save"
    ):
        save_site(build_site(student, None, cache, learner=None), tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["page.json"]
