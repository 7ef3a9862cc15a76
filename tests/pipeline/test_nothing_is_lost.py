"""Every command that writes, pointed at a folder of somebody else's, leaves every byte in it as it was."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.pipeline.cli.main import app
from mocha_pipe.teacher_cache.teachers import loading

pytestmark = pytest.mark.usefixtures("one_teacher")

LONG_AGO = (1_000_000_000, 1_000_000_000)


# --- what may lie there -----------------------------------------------------------------------------------------------


def yolo_data_set(folder: Path, world: Path, built: Path) -> None:
    """Also what the miniature world looks like, without its marker."""
    shutil.copytree(world, folder)


def home_folder(folder: Path, world: Path, built: Path) -> None:
    """Names that other programs use too."""
    names = (
        "Documents/thesis.tex", "train/weights/last.pt", "train/.film.partial.mp4", ".backup.partial", "report.html",
        "student/student.json", "evaluation/complete.json", "images/a.txt", "transfer/x", "hidden/c.0.0",
        "last-distill.json", ".bashrc", ".ssh/id",
    )  # fmt: skip
    write(folder, dict.fromkeys(names, "years of work"))
    write(folder, {"begun.json": '{"by": "hand"}', "report.json": "{}", "sweep.json": "{}", "teacher.json": "[]"})
    write(folder.parent, {f".{folder.name}.partial": "half a download", f".{folder.name}.tar.partial": "another"})


def photo_album(folder: Path, world: Path, built: Path) -> None:
    write(folder, {".picasa.ini": "", "train-000000.tar": "pictures", "film.mp4": "frames"})
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"IMG_{number}.jpg")
    (folder / "linked.jpg").symlink_to(folder / "IMG_0.jpg")


def damaged_cache(folder: Path, world: Path, built: Path) -> None:
    """A cache whose description and marker are no json any more; by its shards it is no copy of another either."""
    shutil.copytree(built, folder)
    for name in ("zarr.json", "complete.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    for shard in folder.glob("*/c.*.0"):
        shard.write_bytes(b"other" + shard.read_bytes()[5:])
    write(folder, {"hidden/.c.0.0.partial": "another program's", f".zarr.7-{'0f' * 4}.partial.json": ""})


def finished_run(folder: Path, world: Path, built: Path) -> None:
    """A stage that none of the commands below makes."""
    marker = {"stage": "bake", "config": {}, "inputs": {}, "outputs": {}, "versions": {}, "seconds": 1.0}
    text = json.dumps(marker)
    write(folder, {"complete.json": text, "begun.json": text, "student/student.pt": "weeks", "report.json": "{}"})


STRANGERS = (yolo_data_set, home_folder, photo_album, damaged_cache, finished_run)


def write(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def everything(folder: Path) -> dict[str, object]:
    """What a folder and the hidden files beside it hold: bytes, links and folders by name."""
    found: dict[str, object] = {}
    for path in [*folder.rglob("*"), *folder.parent.glob(f".{folder.name}.*partial*")]:
        name = os.path.relpath(path, folder)
        found[name] = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
    return found


# --- what is tried ----------------------------------------------------------------------------------------------------

DATA, TEACHER = ("--data", "WORLD/data.yaml"), ("--teacher", "miniature")
TRAINING = ("--epochs", 1, "--imgsz", 64, "--device", "cpu")
COMMANDS: dict[str, tuple[Any, ...]] = {
    "data miniature": ("data", "miniature", "FOLDER"),
    "data regions": ("data", "regions", "ALBUM", "--out", "FOLDER", "--crops", 2),
    "data pack": ("data", "pack", *DATA, "--out", "FOLDER"),
    "data import": ("data", "import", "openimages", "OPENIMAGES", "FOLDER"),
    "cache build": ("cache", "build", *DATA, *TEACHER, "--cache", "FOLDER"),
    "cache build --retry-failed": ("cache", "build", *DATA, *TEACHER, "--cache", "FOLDER", "--retry-failed"),
    "cache plan": ("cache", "plan", *DATA, *TEACHER, "--cache", "FOLDER"),
    "cache pull": ("cache", "pull", "BUILT", "FOLDER"),
    "cache pull --targets": ("cache", "pull", "BUILT", "FOLDER", "--targets"),
    "cache merge": ("cache", "merge", "FOLDER", "BUILT"),
    "cache push": ("cache", "push", "BUILT", "FOLDER"),
    "cache verify --repair": ("cache", "verify", "FOLDER", "--repair", *DATA),
    "cache audit": ("cache", "audit", "FOLDER", *DATA),
    "pretrain": ("pretrain", *DATA, "--model", "yolov8n.yaml", "--run", "FOLDER", *TRAINING),
    "distill": ("distill", *DATA, "--cache", "BUILT", "--student", "yolov8n.yaml", "--run", "FOLDER", *TRAINING),
    "fewshot": ("fewshot", "--run", "RUN", "--benchmark", "WORLD/benchmark", "--out", "FOLDER", "--no-teacher"),
    "sweep": (
        "sweep", "objective=paper", *DATA, "--cache", "BUILT", "--student", "yolov8n.yaml", "--out", "FOLDER",
        "--benchmark", "WORLD/benchmark", *TRAINING, "--shots", 1,
    ),
    "export": ("export", "--student", "RUN/student", "--out", "FOLDER/FILE"),
    "export over a folder": ("export", "--student", "RUN/student", "--out", "FOLDER"),
    "profile remove": ("profile", "remove", "my mug", "--profile", "FOLDER/FILE"),
    "demo": ("demo", "--root", "PARENT"),
    "a root that is a file": ("data", "miniature", "--root", "FOLDER/FILE"),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(one_teacher: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A world, a cache of it, a distillation of which only the digests count here, pictures and Open Images' files."""
    root = tmp_path_factory.mktemp("places")
    size = WorldSize(train_scenes=4, val_scenes=2, objects_per_shape=2, scenes_per_object=3)
    make_miniature(root / "world", size, progress=False)
    arguments = ["cache", "build", "--data", root / "world/data.yaml", "--teacher", "miniature"]
    built = CliRunner().invoke(app, [*map(str, arguments), "--cache", str(root / "cache"), "--dim", "4"])
    assert built.exit_code == 0, built.stderr
    card = {"format": 1, "features": "fine", "feature_dims": [1, 1], "target_dim": 4, "class_names": ["mug"]}
    card |= {"image_size": 64, "meta": {}}
    outputs = {"student": "student", "base": "base.pt", "base_run": None, "map50_95": 1.0, "curves": "", "cache": ""}
    marker = {"stage": "distill", "config": {}, "inputs": {"cache": "c"}, "outputs": outputs, "versions": {}}
    write(root / "run", {
        "complete.json": json.dumps({**marker, "seconds": 1.0}), "base.pt": "weights", "student/student.pt": "weights",
        "student/translation.safetensors": "weights", "student/student.json": json.dumps(card),
    })  # fmt: skip
    photo_album(root / "album", root, root)
    columns = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction"
    write(root / "openimages", {
        "class-descriptions-boxable.csv": "/m/mug,Mug\n",
        "train-annotations-bbox.csv": f"{columns}\nIMG_0,/m/mug,0.1,0.5,0.1,0.5,0,0\n",
    })  # fmt: skip
    shutil.copytree(root / "album", root / "openimages/train", symlinks=True)
    return {
        "WORLD": root / "world", "BUILT": root / "cache", "RUN": root / "run", "ALBUM": root / "album",
        "OPENIMAGES": root / "openimages",
    }  # fmt: skip


@pytest.mark.parametrize("tried", COMMANDS)
@pytest.mark.parametrize("strangers", STRANGERS, ids=lambda make: make.__name__)
def test_a_folder_of_others_is_left_as_it_was(
    command: Callable[..., Result],
    places: dict[str, Path],
    tmp_path: Path,
    strangers: Callable[[Path, Path, Path], None],
    tried: str,
) -> None:
    folder = tmp_path / "root/miniature"
    strangers(folder, places["WORLD"], places["BUILT"])
    for path in [*folder.rglob("*"), *folder.parent.iterdir()]:
        os.utime(path, LONG_AGO, follow_symlinks=False)  # leftovers of ours would be swept now
    file = min(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    words = places | {"FOLDER": folder, "PARENT": folder.parent, "FILE": Path(file)}

    def filled(argument: object) -> str:
        first, slash, rest = str(argument).partition("/")
        return f"{words.get(first, first)}{slash}{words.get(rest, rest)}"

    before = everything(folder)
    result = command(*map(filled, COMMANDS[tried]))
    assert everything(folder) == before, result.output
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), "an error of ours, in words"
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert str(folder) in result.stderr, "what is there was the reason"


@pytest.mark.parametrize("name", ["report.html", "last-distill.json", "base/notes.txt", "distill/notes.txt"])
def test_the_demo_refuses_a_root_with_things_of_others_before_its_first_stage(
    command: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    root = tmp_path / "root"
    write(root, {name: "years of work"})
    before = everything(root)
    result = command("demo", "--root", root)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert result.stderr.startswith("error: ")
    assert str(root) in result.stderr
    assert everything(root) == before


def test_a_cache_at_fault_keeps_its_sound_files_where_it_cannot_be_mended(
    command: Callable[..., Result], places: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(places["BUILT"], tmp_path / "cache"))
    shard = folder / "hidden/c.0.0"
    shard.write_bytes(b"\1" + shard.read_bytes()[1:-1] + b"\1")
    other = tmp_path / "other"
    size = WorldSize(train_scenes=4, val_scenes=2, objects_per_shape=2, scenes_per_object=1)
    make_miniature(other, size, seed=1, progress=False)
    before = everything(folder)
    repair = ("cache", "verify", folder, "--repair")
    refused = {
        "no data": (command(*repair), f"the pictures that {folder} was made from are needed, found no data set at "),
        "other data": (command(*repair, "--data", other / "data.yaml"), f"cache {folder} was made from something else"),
        "no teacher": (
            command(*repair, "--data", places["WORLD"] / "data.yaml", "--teacher", tmp_path / "gone"),
            "",
        ),
    }
    for what, (result, text) in refused.items():
        assert result.exit_code == 2, what
        assert result.stderr.splitlines()[-1].startswith(f"error: {text}"), what
    assert everything(folder) == before
    assert not (tmp_path / "work").exists(), "no world is made for a cache that is there"
    mended = command(*repair, "--data", places["WORLD"] / "data.yaml")
    assert mended.exit_code == 0, mended.stderr
    assert shard.read_bytes() == (places["BUILT"] / "hidden/c.0.0").read_bytes()


def test_a_teacher_that_does_not_load_costs_no_file(
    command: Callable[..., Result], places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mocha_pipe.teacher_cache.errors import TeacherError

    folder = Path(shutil.copytree(places["BUILT"], tmp_path / "cache"))
    shard = folder / "visual/c.0.0"
    shard.write_bytes(b"\1" + shard.read_bytes()[1:-1] + b"\1")

    def fail(_config: object) -> None:
        raise TeacherError("no memory")

    monkeypatch.setattr(loading, "load_teacher", fail)
    before = everything(folder)
    result = command("cache", "verify", folder, "--repair", "--data", places["WORLD"] / "data.yaml")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "error: no memory")
    assert everything(folder) == before


def test_a_disk_that_cannot_be_written_is_one_line(
    command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = command("data", "miniature", "--root", tmp_path / "notes.txt")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {tmp_path}/notes.txt cannot be used (File exists): name another place for it; --root names the folder "
        "for whatever has no place of its own\n"
    )
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: Any, **named: Any) -> None:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = command("data", "miniature", "--root", tmp_path / "locked")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}/locked cannot be used (Permission denied): name another place")
    assert len(result.stderr.splitlines()) == 1
