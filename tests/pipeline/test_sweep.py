"""A sweep at toy size, stopped and taken up again: what it trains, what it measures, what it says."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file
from typer.testing import Result

from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.errors import DatasetError, EpisodeError
from mocha_pipe.pipeline.errors import ConfigError, StageMismatchError
from mocha_pipe.pipeline.run.datasets import make_validation_world
from mocha_pipe.pipeline.run.inputs import LAST_DISTILL
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.settings.variants import parse_variants
from mocha_pipe.pipeline.stages import distill_student
from mocha_pipe.pipeline.sweep import run_sweep
from mocha_pipe.student.choices import BEST_OBJECTIVE
from mocha_pipe.student.distil.settings import DistillSettings
from mocha_pipe.student.distil.trainer import DistillResult
from mocha_pipe.student.fewshot.episodes import evaluate_episodes
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.student.network.student_files import TRANSLATION_FILE, load_student
from mocha_pipe.teacher_cache.errors import CacheNotFoundError

OBJECTIVES = ("objective=paper", "objective=cosine")
RUNS = [f"{variant}/seed-{seed}" for seed in (0, 1) for variant in OBJECTIVES]


@pytest.fixture(autouse=True)
def perfect_boxes(monkeypatch: pytest.MonkeyPatch, find_everything: Callable[..., PoolPass]) -> None:
    monkeypatch.setattr(RegionEmbedder, "embed_pool", find_everything)


class Stopped(Exception):  # noqa: N818
    """Whatever ends a sweep in its middle."""


@dataclass
class Watched:
    """Notes the runs of a sweep and stops after some; stands in for their training, which takes longer than the rest.

    A run's student is the finished one with noise of its own in the translation.
    """

    config: RunConfig
    finished: Path
    """The folder of that student."""
    most: int = 99

    def __post_init__(self) -> None:
        self.runs: list[str] = []
        self.settings: list[DistillSettings] = []
        self.announced: list[str] = []

    def sweep(self, *texts: str, **sweep: Any) -> dict[str, Any]:
        config = replace(self.config, sweep=replace(self.config.sweep, **sweep))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mocha_pipe.pipeline.distillation.distill", self._distill)
            return run_sweep(config, parse_variants(config, texts), announce=self.announced.append)

    def _distill(self, settings: DistillSettings, *, run: Path, **_: Any) -> DistillResult:
        if len(self.runs) == self.most:
            raise Stopped
        self.runs.append(f"{run.parent.name}/{run.name}")
        self.settings.append(settings)
        folder = Path(shutil.copytree(self.finished, run / "student"))
        rng = np.random.default_rng([settings.train_arguments["seed"], len(settings.objective)])
        weights = load_file(folder / TRANSLATION_FILE)
        noisy = {
            name: value + rng.normal(0, 0.2, value.shape).astype(value.dtype) if value.ndim else value
            for name, value in weights.items()
        }
        save_file(noisy, folder / TRANSLATION_FILE)
        return DistillResult(folder=folder, metrics={"metrics/mAP50-95(B)": rng.random()})


@pytest.fixture(scope="module")
def config(finished: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The finished pipeline under a root of its own, in which another distillation completed last."""
    root = tmp_path_factory.mktemp("sweep") / "work"
    shutil.copytree(finished.validation_folder, root / "validation")
    (root / LAST_DISTILL).write_text('{"run": "mine"}')
    sweep = replace(finished.sweep, folder=root / "sweep", seeds=(0, 1), shots=(1, 2))
    return replace(finished, root=root, sweep=sweep)


@pytest.fixture(scope="module")
def student(finished: RunConfig) -> Path:
    return finished.root / "distill/student"


@pytest.fixture(scope="module")
def stopped(config: RunConfig, student: Path, find_everything: Callable[..., PoolPass]) -> Watched:
    watched = Watched(config, student, most=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegionEmbedder, "embed_pool", find_everything)
        with pytest.raises(Stopped):
            watched.sweep("objective=paper,cosine")
    return watched


@pytest.fixture(scope="module")
def resumed(config: RunConfig, stopped: Watched, find_everything: Callable[..., PoolPass]) -> Watched:
    watched = Watched(config, stopped.finished)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegionEmbedder, "embed_pool", find_everything)
        watched.sweep("objective=paper,cosine")
    return watched


@pytest.fixture
def swept(config: RunConfig, resumed: Watched) -> RunConfig:
    return config


@pytest.fixture
def watch(student: Path) -> Callable[..., Watched]:
    """A sweep that trains nothing."""
    return lambda config: Watched(config, student, most=0)


@pytest.fixture
def copied(swept: RunConfig, tmp_path: Path) -> RunConfig:
    """The finished sweep in a folder that a test may change."""
    folder = Path(shutil.copytree(swept.root / "sweep", tmp_path / "copy"))
    return replace(swept, sweep=replace(swept.sweep, folder=folder))


def report_of(config: RunConfig) -> dict[str, Any]:
    assert config.sweep.folder is not None
    report: dict[str, Any] = json.loads((config.sweep.folder / "sweep.json").read_text())
    return report


def test_a_stopped_sweep_goes_on_where_it_was(stopped: Watched, resumed: Watched) -> None:
    assert stopped.runs == RUNS[:2]
    assert resumed.runs == RUNS[2:]


def test_each_run_is_announced_as_it_begins(stopped: Watched, resumed: Watched) -> None:
    lines = [f"run {n} of 4: {run.replace('/seed-', ', seed ')}" for n, run in enumerate(RUNS, start=1)]
    assert resumed.announced == lines
    assert stopped.announced == lines[:3]


def test_a_finished_sweep_trains_and_measures_nothing_again(
    swept: RunConfig, watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise AssertionError("a finished sweep did something")

    monkeypatch.setattr(RegionEmbedder, "embed_pool", absent)
    before, again = report_of(swept), watch(swept)
    again.sweep("objective=paper,cosine")
    assert report_of(swept) == before
    assert again.announced[-1] == "run 4 of 4: objective=cosine, seed 1"


def test_the_last_distillation_stays_what_it_was(swept: RunConfig) -> None:
    assert (swept.root / LAST_DISTILL).read_text() == '{"run": "mine"}'


def test_a_run_is_the_distillation_of_its_settings_and_seed(
    stopped: Watched, resumed: Watched, finished: RunConfig, config: RunConfig, tmp_path: Path
) -> None:
    asked = [(one.objective, one.train_arguments["seed"]) for one in (*stopped.settings, *resumed.settings)]
    assert asked == [("paper", 0), ("cosine", 0), ("paper", 1), ("cosine", 1)]
    alone = replace(config, sweep=replace(config.sweep, folder=tmp_path, seeds=(0,)))
    run_sweep(alone, parse_variants(alone, ["objective=paper"]), announce=[].append)
    students = [load_student(run / "student") for run in (tmp_path / RUNS[0], finished.root / "distill")]
    states = [{**student.detector.state_dict(), **student.translation.state_dict()} for student in students]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_figures_means_and_gains_equal_a_plain_recomputation(
    swept: RunConfig, find_everything: Callable[..., PoolPass]
) -> None:
    benchmark = open_benchmark(swept.root / "validation")
    figures: dict[tuple[str, int], dict[str, float]] = {}
    for variant, seed in product(OBJECTIVES, (0, 1)):
        trained = load_student(swept.root / "sweep" / variant / f"seed-{seed}" / "student")
        pool = find_everything(RegionEmbedder(trained, image_size=64), benchmark.source, progress=False)
        own = figures[variant, seed] = {}
        for shots in (1, 2):
            episodes = draw_episodes(benchmark, episodes=2, shots=shots, reserve=2, seed=0)
            scores = evaluate_episodes(benchmark, episodes, {"it": pool})["it"]
            own[f"accuracy_{shots}shot"] = float(np.mean(scores.accuracy))
            own[f"map50_95_{shots}shot"] = float(np.mean(scores.map50_95))
    report = report_of(swept)
    for run in report["runs"]:
        assert run["figures"] == {**figures[run["variant"], run["seed"]], "detection": run["figures"]["detection"]}
        assert run["folder"] == f"{run['variant']}/seed-{run['seed']}"
        marker = json.loads((swept.root / "sweep" / run["folder"] / "complete.json").read_text())
        assert run["figures"]["detection"] == marker["outputs"]["map50_95"]
    assert len({run["figures"]["accuracy_1shot"] for run in report["runs"]}) > 1, "figures that can differ"
    for variant, name in product(OBJECTIVES, ("accuracy_1shot", "accuracy_2shot", "map50_95_1shot", "map50_95_2shot")):
        values = [figures[variant, seed][name] for seed in (0, 1)]
        gains = [figures[variant, seed][name] - figures[OBJECTIVES[0], seed][name] for seed in (0, 1)]
        for pair, found in ((values, "mean"), (gains, "gain")):
            middle, half = sum(pair) / 2, 12.7062047 * abs(pair[0] - pair[1]) / 2  # t of one degree of freedom
            assert report["variants"][variant][found][name]["mean"] == pytest.approx(middle)
            assert report["variants"][variant][found][name]["ci95"] == pytest.approx([middle - half, middle + half])


def test_the_report_says_what_was_asked_and_what_it_was_made_from(swept: RunConfig) -> None:
    report = report_of(swept)
    assert report["settings"]["seeds"] == [0, 1]
    assert report["settings"]["fewshot.shots"] == [1, 2]
    assert report["settings"]["fewshot.episodes"] == 2
    assert (report["settings"]["distill"]["epochs"], report["settings"]["distill"]["features"]) == (1, "fine")
    assert not {"objective", "seed", "folder"} & report["settings"]["distill"].keys(), "what differs between runs"
    assert set(report["inputs"]) == {"benchmark", "cache", "model"}
    assert "ultralytics" in report["versions"]


def test_more_seeds_only_add_runs(copied: RunConfig, watch: Callable[..., Watched]) -> None:
    watched = watch(copied)
    with pytest.raises(Stopped):
        watched.sweep("objective=paper,cosine", seeds=(0, 1, 2))
    assert watched.announced[-1] == "run 5 of 6: objective=paper, seed 2"


def test_fewer_seeds_and_another_first_variant_need_no_new_run(
    copied: RunConfig, watch: Callable[..., Watched]
) -> None:
    report = watch(copied).sweep("objective=cosine,paper", seeds=(1,))
    assert report["reference"] == "objective=cosine"
    assert report["variants"]["objective=paper"]["gain"]["accuracy_1shot"]["ci95"] is None


def test_another_question_is_measured_anew_without_training(
    copied: RunConfig,
    watch: Callable[..., Watched],
    monkeypatch: pytest.MonkeyPatch,
    find_everything: Callable[..., PoolPass],
) -> None:
    asked = []
    monkeypatch.setattr(RegionEmbedder, "embed_pool", lambda *a, **k: asked.append(a) or find_everything(*a, **k))
    watch(copied).sweep("objective=paper", seeds=(0,), shots=(2,))
    assert len(asked) == 1
    assert set(report_of(copied)["runs"][0]["figures"]) == {"accuracy_2shot", "map50_95_2shot", "detection"}


def test_it_measures_on_the_benchmark_that_is_named(copied: RunConfig, watch: Callable[..., Watched]) -> None:
    before = report_of(copied)
    benchmark = copied.miniature_folder / "benchmark"
    after = watch(copied).sweep("objective=paper", seeds=(0,), benchmark=benchmark)
    assert after["inputs"]["benchmark"] != before["inputs"]["benchmark"]
    assert after["runs"] != before["runs"][:1]


def test_another_recipe_in_the_same_folder_is_refused_with_the_flag_of_the_sweep(
    copied: RunConfig, watch: Callable[..., Watched]
) -> None:
    longer = replace(copied, distill=replace(copied.distill, epochs=2))
    with pytest.raises(StageMismatchError, match=r"epochs: it has 1, asked for 2.*name another folder with --out"):
        watch(longer).sweep("objective=paper")


def test_a_missing_cache_fails_before_anything_is_trained(
    config: RunConfig, watch: Callable[..., Watched], tmp_path: Path
) -> None:
    fresh = replace(
        config,
        cache=replace(config.cache, folder=tmp_path / "cache"),
        pretrain=replace(config.pretrain, folder=tmp_path / "base"),
    )
    watched = watch(fresh)
    with pytest.raises(CacheNotFoundError, match="mocha-pipe cache build"):
        watched.sweep("objective=paper")
    assert not (tmp_path / "base").exists()
    assert not watched.announced


def test_too_many_shots_fail_before_any_training(config: RunConfig, watch: Callable[..., Watched]) -> None:
    with pytest.raises(EpisodeError, match="needs 91 images or more for 90 shots"):
        watch(config).sweep("objective=rkd", shots=(90,))


def test_data_of_ones_own_need_a_benchmark(config: RunConfig, watch: Callable[..., Watched], tmp_path: Path) -> None:
    for data in ({"path": tmp_path / "data.yaml"}, {"url": "s3://team/shards/train-{000..031}.tar"}):
        with pytest.raises(ConfigError) as refused:
            watch(replace(config, data=replace(config.data, **data))).sweep()
        assert str(refused.value) == (
            "a sweep on a data set of one's own needs a personal benchmark to measure on: name its folder with "
            "--benchmark, and keep the one that you report figures of for the end"
        )


def test_the_data_must_have_the_classes_of_the_benchmark(
    config: RunConfig, watch: Callable[..., Watched], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(config.validation_folder, tmp_path / "desk"))
    keys = yaml.safe_load((other / "data.yaml").read_text())
    (other / "data.yaml").write_text(yaml.safe_dump({**keys, "coarse_names": ["teapot", *keys["coarse_names"][1:]]}))
    with pytest.raises(DatasetError) as refused:
        watch(config).sweep("objective=rkd", benchmark=other)
    assert str(refused.value) == (
        "the data set must know all coarse classes of the benchmark desk, but lacks teapot; it knows ball, book, kite, "
        "mug ... (8): name another benchmark with --benchmark"
    )


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_reads_file_and_flags_and_prints_the_table(
    command: Callable[..., Result], swept: RunConfig, tmp_path: Path
) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'root = "{swept.root}"\n[fewshot]\nepisodes = 2\nconfidence = 0.0001\n'
        "[sweep]\nseeds = [0, 1, 2]\nshots = [1, 2]\n"
        f'[miniature]\nfolder = "{swept.miniature_folder}"\n[miniature.size]\n'
        "train_scenes = 16\nval_scenes = 4\nobjects_per_shape = 2\nscenes_per_object = 3\n"
        f'[data]\npath = "{swept.data.path}"\n[cache]\nfolder = "{swept.cache.folder}"\n[pretrain]\n'
        f'model = "{swept.pretrain.model}"\nfolder = "{swept.pretrain.folder}"\nepochs = 1\nimage_size = 64\n'
    )
    flags = ("--config", toml, "--seeds", "0,1", "--epochs", "1", "--imgsz", "64", "--device", "cpu")
    result = command("sweep", "objective=paper,cosine", *flags)
    assert result.exit_code == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("run ")] == [
        f"run {number} of 4: {run.replace('/seed-', ', seed ')}" for number, run in enumerate(RUNS, start=1)
    ]
    assert "mean over 2 seeds" in result.stdout
    assert result.stdout.splitlines()[-1] == str(swept.root / "sweep/sweep.json")
    best = report_of(swept)["best"]
    assert f"best accuracy at 1 shot: {best}, " in result.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seeds", "0,b"), "the command line: sweep.seeds[1] must be a whole number, found 'b'"),
        (("objective=magic",), "the command line: distill.objective must be 'paper', "),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    command: Callable[..., Result], flags: tuple[str, ...], message: str
) -> None:
    result = command("sweep", *flags)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1


def test_help_shows_the_defaults(command: Callable[..., Result]) -> None:
    shown = " ".join(command("sweep", "--help").stdout.replace("│", " ").split())
    assert "[default: 0,1,2]" in shown
    assert "[default: every objective]" in shown


# ---- the validation world -------------------------------------------------------------------------------------------


def test_the_validation_world_is_made_once_and_another_is_refused(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, root=tmp_path)
    assert make_validation_world(config).folder == tmp_path / "validation"
    assert make_validation_world(config).skipped
    assert len(open_benchmark(tmp_path / "validation").source.class_names) == 16
    with pytest.raises(StageMismatchError, match="seed: it has 0, asked for 1"):
        make_validation_world(replace(config, miniature=replace(config.miniature, seed=1)))


def test_a_folder_with_other_things_is_not_overwritten_by_a_validation_world(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation/thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError) as refused:
        make_validation_world(replace(config, root=tmp_path))
    assert str(refused.value) == (
        f"{tmp_path}/validation: must be a new or empty folder, found something there; name another with --root"
    )


def test_the_best_objective_is_taken_and_written_down_by_its_name(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(settings: Any, **_: Any) -> Any:
        asked.append(settings.objective)
        raise Stopped

    monkeypatch.setattr("mocha_pipe.pipeline.distillation.distill", note)
    best = replace(config, distill=replace(config.distill, objective="best", folder=tmp_path / "run"))
    with pytest.raises(Stopped):
        distill_student(best)
    begun = json.loads((tmp_path / "run/begun.json").read_text())
    assert asked == [begun["config"]["objective"]] == [BEST_OBJECTIVE]
