"""The wheel in an environment of its own, beside a project whose folders have the names of ours."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.shared import ROOT

API = """
import data, pipeline, student
assert (data.MINE, pipeline.MINE, student.MINE) == (1, 2, 3)
import mocha_pipe.data, mocha_pipe.student.personal.profile, mocha_pipe.teacher_cache.store.cache
from mocha_pipe.data.source import open_source
print(mocha_pipe.data.__file__)
print(open_source(__import__("pathlib").Path("mine/data.yaml"), "train").num_regions)
"""


def run(*command: object, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A virtual environment with the wheel; its dependencies are those of this one, without our editable install."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip())
    # A line of a .pth file puts a folder on the path without reading the .pth files in it.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own project: `data/`, `pipeline.py` and `student.py` are not ours."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    (folder / "data" / "__init__.py").write_text("MINE = 1\n")
    (folder / "pipeline.py").write_text("MINE = 2\n")
    (folder / "student.py").write_text("MINE = 3\n")
    return folder


def test_the_wheel_holds_one_package_and_what_it_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mocha_pipe"}
    rooms = {name.split("/")[1] for name in names if name.startswith("mocha_pipe/")}
    assert rooms == {"__init__.py", "data", "pipeline", "student", "teacher_cache", "web"}
    held = {name.partition("/")[2] for name in names}
    assert {
        "teacher_cache/teachers/miniature/model.safetensors",
        "pipeline/report/templates/report.html.jinja2",
    } <= held
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if "test" in Path(name).name or "bench/" in name]


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    rooms = ("data", "pipeline", "student", "teacher_cache")
    sources = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    sources += [path for path in (ROOT / "web").rglob("*") if path.is_file()]
    assert len(sources) > 150
    assert [path for path in sources if f"mocha_pipe/{path.relative_to(ROOT)}" not in names] == []


def test_commands_work_beside_a_project_with_the_same_names(environment: Path, project: Path) -> None:
    command = environment / "bin" / "mocha-pipe"
    assert "report.html" in run(command, "demo", "--help", folder=project)
    code = "from mocha_pipe.data.miniature import WorldSize, make_miniature; import pathlib; "
    code += "make_miniature(pathlib.Path('mine'), WorldSize(train_scenes=4, val_scenes=2), progress=False)"
    run(environment / "bin" / "python", "-c", code, folder=project)
    assert "train" in run(command, "data", "check", "mine/data.yaml", folder=project)
    where, regions = run(environment / "bin" / "python", "-c", API, folder=project).split()
    assert environment in Path(where).parents
    assert int(regions) > 0
