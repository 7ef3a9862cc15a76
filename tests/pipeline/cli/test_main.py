"""The command line: what it prints, where it fails in one line, and what it keeps out of memory."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import Result

from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.pipeline.cli.main import app

Command = Callable[..., Result]

HEAVY = ("torch", "ultralytics", "transformers", "zarr", "matplotlib")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "miniature"
    size = WorldSize(train_scenes=3, val_scenes=2, objects_per_shape=2, scenes_per_object=1)
    make_miniature(root, size, seed=0, progress=False)
    return root


def imported_by(program: str) -> set[str]:
    """Heavy packages that a fresh interpreter holds after running a program."""
    script = f"import sys\n{program}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))


def test_help_imports_nothing_heavy() -> None:
    assert (
        imported_by(
            "from typer.testing import CliRunner\nfrom pipeline.cli import app\n"
            "for command in ([], ['cache'], ['cache', 'build'], ['distill'], ['fewshot'], ['personalize'],\n"
            "                ['profile', 'list']):\n"
            "    assert CliRunner().invoke(app, [*command, '--help']).exit_code == 0"
        )
        == set()
    )


def test_the_check_of_heavy_imports_can_fail() -> None:
    assert "zarr" in imported_by("import teacher_cache.cache")


def all_commands(group: typer.Typer, *names: str) -> list[list[str]]:
    own = [[*names, command.name or str(command.callback.__name__)] for command in group.registered_commands]
    parts = [(str(part.name), part.typer_instance) for part in group.registered_groups]
    return own + [path for name, part in parts for path in all_commands(part, *names, name)]


@pytest.mark.parametrize("arguments", all_commands(app), ids=" ".join)
def test_every_command_explains_itself(command: Command, arguments: list[str]) -> None:
    result = command(*arguments, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_the_commands_are_those_of_the_readme() -> None:
    names = {" ".join(arguments) for arguments in all_commands(app)}
    assert {"demo", "cache build", "cache verify", "cache push", "data pack", "distill", "fewshot", "doctor"} <= names
    assert {"personalize", "profile list", "profile show", "profile remove", "profile rename", "profile merge"} <= names


def test_version(command: Command) -> None:
    assert command("--version").stdout.startswith("mocha-pipe 0.")


def test_data_check_prints_a_table_and_json(command: Command, world: Path) -> None:
    result = command("data", "check", world / "data.yaml")
    assert result.exit_code == 0
    assert "train" in result.stdout
    splits = json.loads(command("data", "check", world / "data.yaml", "--json").stdout)["splits"]
    assert [(split["split"], split["images"], split["problems"]) for split in splits] == [
        ("train", 3, []),
        ("val", 2, []),
    ]


def test_data_check_lists_every_problem_and_exits_2(command: Command, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(world, root)
    (root / "labels/train/00000.txt").write_text("99 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n")
    result = command("data", "check", root / "data.yaml")
    assert result.exit_code == 2
    assert result.stdout.count("error: ") == 2
    assert result.stderr == (f"error: {root / 'data.yaml'} has 2 errors: mend what is listed above and check again\n")


def test_a_missing_data_set_is_one_line_and_exit_code_2(command: Command, tmp_path: Path) -> None:
    result = command("cache", "build", "--data", tmp_path / "nowhere.yaml")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert str(tmp_path / "nowhere.yaml") in errors[0]


def test_fewshot_before_distill_names_the_command_to_run(command: Command) -> None:
    result = command("fewshot", "--shots", "1")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: no distillation was completed under work: run mocha-pipe distill, or name its folder with --run\n"
    )


def test_distill_before_cache_names_the_command_to_run(command: Command, world: Path) -> None:
    result = command("distill", "--data", world / "data.yaml", "--cache", "work/cache")
    assert result.exit_code == 2
    assert "mocha-pipe cache build" in result.stderr


def test_debug_shows_the_traceback(command: Command) -> None:
    result = command("--debug", "fewshot")
    assert result.exception is not None
    assert type(result.exception).__name__ == "StageMissingError"


def test_data_miniature_writes_the_world_and_skips_it_the_second_time(command: Command, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        "[miniature.size]\ntrain_scenes = 2\nval_scenes = 1\nobjects_per_shape = 2\nscenes_per_object = 1\n"
    )
    first = command("data", "miniature", "world", "--config", config)
    assert first.exit_code == 0, first.stderr
    assert (tmp_path / "world/data.yaml").is_file()
    assert (tmp_path / "world/benchmark/data.yaml").is_file()
    stamp = (tmp_path / "world/data.yaml").stat().st_mtime_ns
    second = command("data", "miniature", "world", "--config", config)
    assert "already complete" in second.stdout
    assert (tmp_path / "world/data.yaml").stat().st_mtime_ns == stamp


def test_doctor_reports_this_machine(command: Command) -> None:
    result = command("doctor", "--json")
    checks = {check["name"]: check["status"] for check in json.loads(result.stdout)}
    assert "fail" not in checks.values()
    assert len(checks) >= 6
