"""Flags are made from settings: which there are, what they say, and that they end in the configuration."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mocha_pipe.pipeline.cli import flags
from mocha_pipe.pipeline.cli.main import app
from mocha_pipe.pipeline.settings.recipes import photographs, reference
from mocha_pipe.pipeline.settings.sections import RunConfig

Command = Callable[..., Result]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """The configuration that a command gets from its flags; no stage runs."""
    seen: list[RunConfig] = []

    class ReceivedError(Exception):
        pass

    def stop(config: RunConfig, *_: Any, **__: Any) -> None:
        seen.append(config)
        raise ReceivedError

    for place in (
        "caching.audit", "caching.plan_cache", "stages.build_teacher_cache", "stages.distill_student",
        "stages.evaluate_fewshot", "stages.pretrain_base", "stages.run_demo", "sweep.run_sweep",
    ):  # fmt: skip
        monkeypatch.setattr(f"mocha_pipe.pipeline.{place}", stop)

    def run(line: str, *more: object) -> RunConfig:
        result = CliRunner().invoke(app, [*line.split(), *map(str, more)])
        assert isinstance(result.exception, ReceivedError), result.output
        return seen.pop()

    return run


def flags_of(command: Command, line: str) -> set[str]:
    words = command(*line.split(), "--help").stdout.split("Options:")[1].replace(",", " ").split()
    return {word for word in words if word.startswith("--")}


COMMON = {"--root", "--config", "--help"}
TRAINING = {"--epochs", "--imgsz", "--batch", "--seed", "--device", "--set", "--run", "--data"}
TEACHER = {
    "--teacher", "--teacher-revision", "--mode", "--prompt", "--layer", "--crop-margin", "--visual", "--dtype",
    "--image-tokens", "--device", "--batch", "--max-new-tokens", "--num-beams", "--sampling-seed", "--no-repeat-ngram",
    "--all-beams", "--compile", "--data", "--cache", "--dim",
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("demo", set()),
        ("pretrain", TRAINING | {"--model"}),
        ("distill", TRAINING | {"--val", "--cache", "--student", "--features", "--objective", "--schedule",
                                "--lambda-dist", "--lambda-emb", "--detector-rate", "--target-scale", "--average",
                                "--no-average", "--warmup-steps", "--recipe"}),
        ("fewshot", {"--shots", "--benchmark", "--data", "--run", "--base", "--out", "--episodes", "--queries",
                     "--seed", "--learner", "--confidence", "--false-accept-rate", "--device", "--teacher",
                     "--no-teacher", "--head-epochs", "--json"}),
        ("sweep", TRAINING - {"--run", "--seed"} | {"--seeds", "--shots", "--benchmark", "--out", "--cache",
                                                     "--student", "--val"}),
        ("cache plan", TEACHER | {"--sample", "--json"}),
        ("cache build", TEACHER | {"--reuse", "--retry-failed", "--part", "--engine", "--json"}),
        ("cache verify", {"--data", "--teacher", "--device", "--batch", "--repair", "--json"}),
        ("cache audit", {"--data", "--teacher", "--device", "--batch", "--rows", "--seed", "--json"}),
        ("cache merge", {"--dim"}),
        ("data pack", {"--data", "--out", "--split", "--shard-size", "--json"}),
        ("data miniature", {"--seed"}),
        ("doctor", {"--cache", "--json"}),
    ],
)  # fmt: skip
def test_a_command_has_the_flags_of_the_settings_that_it_exposes(
    command: Command, line: str, expected: set[str]
) -> None:
    found = flags_of(command, line)
    in_texts = {"--head-epochs"} if line != "fewshot" else set()  # a help text may name another flag
    assert found - in_texts == expected | COMMON


def test_values_take_the_type_of_their_setting(received: Callable[..., RunConfig]) -> None:
    config = received(
        "distill --data d.yaml --cache c --run r --epochs 3 --lambda-dist 2 --student 1 --features paper --device cpu "
        "--set lr0=0.5 --set optimizer=SGD --set cos_lr=True"
    )
    assert (config.data.path, config.cache.folder, config.distill.folder) == (Path("d.yaml"), Path("c"), Path("r"))
    assert (config.distill.epochs, config.distill.lambda_dist, config.distill.student) == (3, 2.0, "1")
    assert config.distill.train == {"lr0": 0.5, "optimizer": "SGD", "cos_lr": True}


def test_lists_are_written_with_commas_or_repeated(received: Callable[..., RunConfig]) -> None:
    assert received("fewshot --shots 1 --shots 5").fewshot.shots == (1, 5)
    assert received("fewshot --shots 1,2 --shots 5").fewshot.shots == (1, 2, 5)
    assert received("sweep --seeds 4 --shots 2,3").sweep.seeds == (4,)
    assert received("cache build --reuse a,b --reuse c").cache.reuse == (Path("a,b"), Path("c")), (
        "a name may hold commas"
    )


def test_switches(received: Callable[..., RunConfig], tmp_path: Path) -> None:
    assert received("fewshot").fewshot.teacher
    assert not received("fewshot --no-teacher").fewshot.teacher
    (tmp_path / "run.toml").write_text("[fewshot]\nteacher = false\n[teacher]\ncompile = true\n")
    assert not received("fewshot --config run.toml").fewshot.teacher
    assert received("fewshot --config run.toml --teacher").fewshot.teacher
    assert received("cache plan --config run.toml").teacher.compile
    assert received("cache build --retry-failed --compile").cache.retry_failed


def test_a_recipe_stands_where_the_defaults_do(received: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = received("distill --data d.yaml --student y.pt --recipe reference --epochs 3 --set lrf=0.5")
    assert config.distill == replace(
        reference(photographs()).resolved().distill, student="y.pt", epochs=3,
        train={**reference(photographs()).distill.train, "lrf": 0.5},
    )  # fmt: skip
    assert received("distill --data d.yaml --student y.pt").distill.features == "deep"
    (tmp_path / "run.toml").write_text("[distill]\nbatch = 4\n")
    on_miniature = received("distill --recipe reference --config run.toml")
    assert (on_miniature.cache.dim, on_miniature.distill.features, on_miniature.distill.batch) == (128, "reference", 4)


def test_another_recipe_is_refused(command: Command) -> None:
    result = command("distill", "--recipe", "paper")
    message = "error: --recipe must be reference, found 'paper'; leave it out for the defaults\n"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", message)


def test_a_folder_and_a_url_share_a_flag_and_the_later_word_wins(
    received: Callable[..., RunConfig], tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text(
        '[data]\nurl = "s3://team/a-{0..1}.tar"\n[cache]\nurl = "s3://team/cache"\ndim = 8\n'
    )
    config = received("distill --config run.toml")
    assert (config.data.url, config.cache.url) == ("s3://team/a-{0..1}.tar", "s3://team/cache")
    config = received("distill --config run.toml --data d.yaml --cache c")
    assert (config.data.path, config.data.url) == (Path("d.yaml"), "")
    assert (config.cache.folder, config.cache.url, config.cache.dim) == (Path("c"), "", 8)
    config = received("sweep objective=rkd --data gs://b/t.tar --cache hf://c")
    assert (config.data.url, config.cache.url) == ("gs://b/t.tar", "hf://c")


def test_a_sweep_measures_where_it_trains(received: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[fewshot]\ndevice = "cpu"\n')
    assert received("sweep --config run.toml").fewshot.device == "cpu"
    assert received("sweep --device cpu").fewshot.device == "cpu"


def test_the_teacher_of_a_plan_is_that_of_the_build(received: Callable[..., RunConfig]) -> None:
    line = "--teacher t --teacher-revision v --mode generate --prompt {label}? --layer -2 --crop-margin 0.1 --visual c"
    line += " --dtype float16 --device cpu --batch 3 --max-new-tokens 9 --num-beams 2 --compile"
    assert received(f"cache plan {line}").teacher == received(f"cache build {line}").teacher
    assert received(f"cache plan {line}").teacher.layer == -2


def test_help_shows_choices_and_defaults(command: Command) -> None:
    shown = " ".join(command("distill", "--help").stdout.split())
    assert "--features deep|fine|paper|reference " in shown
    assert "--epochs N Passes over the training split. [default: 50; 8 on the miniature world]" in shown
    assert "[default: auto]" in shown
    assert "[default: 128 on the miniature world]" in " ".join(command("cache", "plan", "--help").stdout.split())


def test_every_setting_has_a_sentence() -> None:
    for section, settings in vars(RunConfig()).items():
        for name in getattr(settings, "__pydantic_fields__", ()):
            assert flags._description(type(settings), name), f"{section}.{name}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("distill --epochs 0", "distill.epochs must be at least 1, found 0"),
        ("distill --epochs many", "distill.epochs must be a whole number, found 'many'"),
        ("pretrain --imgsz 8", "pretrain.image_size must be at least 32, found 8"),
        ("fewshot --shots 1,x", "fewshot.shots[1] must be a whole number, found 'x'"),
        ("fewshot --confidence high", "fewshot.confidence must be a number, found 'high'"),
        ("sweep --seeds 1,1", "sweep.seeds must be one number or several different ones, found [1, 1]"),
        ("distill --set imgsz=64", "distill.train must not hold 'imgsz', which has a setting of its own: image_size "
         "(--imgsz)"),
        ("cache plan --dtype int8", "teacher.dtype must be 'auto', 'float32', 'bfloat16' or 'float16', found 'int8'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_flag_is_one_line(command: Command, line: str, message: str) -> None:
    result = command(*line.split())
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: the command line: {message}\n")


def test_a_mistake_in_the_file_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[fewshot]\nepisodes = 0\n[distill]\nepoch = 3\n")
    result = command("fewshot", "--config", "run.toml", "--episodes", 3)
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith(
        "error: run.toml: [distill] has no 'epoch'; it knows average, batch, detector_rate, device, epochs, "
    )
    assert second == "error: run.toml: fewshot.episodes must be at least 1, found 0"
