"""The command line: what it prints, where it fails in one line, and what it keeps out of memory."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from torch.utils.data import DataLoader, Dataset
from typer.testing import Result

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.pipeline import doctor
from mocha_pipe.pipeline.cli.main import COMMANDS, _lines, app, main

Command = Callable[..., Result]
ROOT: Any = typer.main.get_command(app)

HEAVY = ("torch", "ultralytics", "transformers", "zarr", "matplotlib", "numpy", "pydantic", "rich")
NEEDED = {"pydantic", "rich"}  # by the settings and tables of a single command


def test_help_imports_nothing_heavy() -> None:
    """Seen from a fresh interpreter; the last line shows that the check can fail."""
    script = f"""
import sys
from typer.testing import CliRunner
from mocha_pipe.pipeline.cli.main import app
def heavy(*commands):
    for command in commands:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command
    return {{name for name in {HEAVY!r} if name in sys.modules}}
assert heavy("") == set(), heavy("")
found = heavy(*{[" ".join(arguments) for arguments in all_commands()]!r})
assert found <= {NEEDED!r}, found
import mocha_pipe.teacher_cache.store.cache
assert "zarr" in heavy()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def all_commands(group: Any = ROOT, *names: str) -> list[list[str]]:
    found = [(name, group.get_command(None, name)) for name in group.list_commands(None)]
    return [
        path
        for name, command in found
        for path in (all_commands(command, *names, name) if hasattr(command, "commands") else [[*names, name]])
    ]


def test_every_command_explains_itself_and_takes_no_markup_for_a_style(command: Command) -> None:
    for arguments in all_commands():
        result = command(*arguments, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: root {' '.join(arguments)} ")
    assert "[default: work]" in " ".join(command("detect", "--help").stdout.split())


def test_the_list_of_commands_says_what_they_say_themselves(command: Command) -> None:
    shown = " ".join(command("--help").stdout.split())
    for name, (_, text) in COMMANDS.items():
        assert f"{name} {text}" in shown
        assert " ".join(ROOT.get_command(None, name).help.partition("\n\n")[0].split()) == text


def test_the_commands_are_those_of_the_readme() -> None:
    names = {" ".join(arguments) for arguments in all_commands()}
    assert {"demo", "cache build", "cache verify", "cache push", "data pack", "distill", "fewshot", "doctor"} <= names
    assert {"personalize", "profile list", "profile show", "profile remove", "profile rename", "profile merge"} <= names


class _Unreadable(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise DatasetError("/photos/a.png: cannot be read as an image (truncated: by far); replace or remove the file")


def test_an_error_in_a_worker_of_a_loader_is_one_line() -> None:
    """torch puts its own traceback before the text."""
    with pytest.raises(DatasetError) as caught:
        next(iter(DataLoader(_Unreadable(), num_workers=1)))
    assert len(str(caught.value).splitlines()) > 3
    line = "/photos/a.png: cannot be read as an image (truncated: by far); replace or remove the file"
    assert _lines(caught.value) == [line]
    assert _lines(DatasetError("one\ntwo")) == ["one", "two"]


def test_an_unknown_command_is_answered_with_a_known_one(command: Command) -> None:
    result = command("fewshoot")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "Error: No such command 'fewshoot'. Did you mean 'fewshot'?"


def test_version(command: Command) -> None:
    assert command("--version").stdout.startswith("mocha-pipe 0.")


def test_data_check_prints_a_table_and_json(command: Command, world: Path) -> None:
    result = command("data", "check", world / "data.yaml")
    assert result.exit_code == 0
    assert "train" in result.stdout
    splits = json.loads(command("data", "check", world / "data.yaml", "--json").stdout)["splits"]
    assert [(split["split"], split["images"], split["problems"]) for split in splits] == [
        ("train", 6, []),
        ("val", 2, []),
    ]


def test_data_check_lists_every_problem_and_exits_2(command: Command, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(world, root)
    (root / "labels/train/00000.txt").write_text("99 0.5 0.5 0.1 0.1\n0 0.5 0.5 x 0.1\n")
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
    data, cache = world / "data.yaml", "work/cache"
    assert result.stderr == (
        f"error: there is no teacher cache at {cache}; make it with `mocha-pipe cache build --cache {cache} "
        f"--data {data}` and your --teacher\n"
    )


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


@pytest.mark.parametrize("status", ["ok", "fail"])
def test_doctor_prints_its_checks_and_exits_1_if_one_fails(
    command: Command, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    def examine(*places: Path) -> list[doctor.Check]:
        assert places == (Path("r"), Path("c"))
        return [
            doctor.Check(name="disk", status="ok", found="3 GB"),
            doctor.Check(name="torch", status=status, found="none"),
        ]

    monkeypatch.setattr(doctor, "examine", examine)
    result = command("doctor", "--root", "r", "--cache", "c", "--json")
    assert result.exit_code == (status == "fail")
    assert [(check["name"], check["status"]) for check in json.loads(result.stdout)] == [
        ("disk", "ok"),
        ("torch", status),
    ]
    assert "3 GB" in command("doctor", "--root", "r", "--cache", "c").stdout


def test_a_terminal_without_the_letters_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    monkeypatch.setattr("mocha_pipe.pipeline.cli.main.app", lambda **_: typer.echo("\u043a: nothing"))
    main()
    sys.stdout.flush()
    assert written.getvalue().splitlines() == [b"\\u043a: nothing"]
