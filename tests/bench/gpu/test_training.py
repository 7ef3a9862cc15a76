"""The measurement of phase 2 at toy size on the CPU: real trainings, and what is made of their figures."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.gpu import __main__ as gpu
from bench.gpu import training as gpu_training
from bench.gpu.training import Kind, Pair, TrainingSettings
from bench.gpu.watched_steps import TrainingRun, Window

PAIR = Pair("yolov8n.yaml", "yolov8s.yaml")
SETTINGS = TrainingSettings(
    pairs=[PAIR], device="cuda", image_size=640, batch=16, workers=8, window=Window(warm_up=40, timed=3, profiled=10)
)


def training_run(**values: Any) -> TrainingRun:
    measured = {"step_seconds": [0.04, 0.02, 0.04], "waiting_seconds": 0.01, "busy": 0.02, "peak_bytes": 3 << 30}
    return TrainingRun(**{**measured, "mixed": True, **values})


def runs(**values: Any) -> Mapping[Pair, Mapping[Kind, TrainingRun]]:
    """Ours take half as long again, and a GiB more."""
    ours = {"step_seconds": [0.06, 0.03, 0.06], "peak_bytes": 4 << 30}
    return {PAIR: {"plain": training_run(**values), "ours": training_run(**{**ours, **values})}}


def test_the_command_trains_in_three_ways_prints_and_keeps(
    tiny_detector: Path, tmp_path: Path, in_this_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[Kind, dict[str, float]] = {}

    def train(name: str, work: Callable[..., Any], kind: Kind, *arguments: Any) -> Any:
        run = in_this_process(name, work, kind, *arguments)
        assert (len(run.step_seconds), run.idle, run.peak_bytes, run.mixed) == (1, None, None, False)
        with (tmp_path / "bench-gpu-training" / f"tiny-{kind}" / "results.csv").open() as stream:
            [row] = csv.DictReader(stream)
        losses[kind] = {name: float(value) for name, value in row.items() if name.startswith("train/")}
        return run

    monkeypatch.setattr(gpu_training, "in_a_process", train)
    place = ["--device", "cpu", "--root", str(tmp_path)]
    options = "--image-size 64 --batch 1 --workers 0 --warm-up 1 --timed 1 --profiled 1"
    pair = f"{tiny_detector}:{tiny_detector}"
    ran = CliRunner().invoke(gpu.app, [*place, "training", "--model", pair, *options.split()])
    assert ran.exit_code == 0, ran.output
    detectors = {f"train/{name}_loss" for name in ("box", "cls", "dfl")}
    own = {kind: found.keys() - detectors for kind, found in losses.items()}
    assert own == {"plain": set(), "distill_model": {"train/dis_loss"}, "ours": {"train/dist_loss", "train/emb_loss"}}
    assert all(losses[kind][name] > 0 for kind, names in own.items() for name in names)
    content = json.loads((tmp_path / "bench-gpu.json").read_text())
    assert set(content["figures"]) == {
        "gpu_tiny_plain_images_per_s", "gpu_tiny_distill_model_images_per_s", "gpu_tiny_ours_images_per_s",
        "gpu_tiny_distill_model_step_vs_plain", "gpu_tiny_ours_step_vs_plain",
    }  # fmt: skip
    assert all(figure["value"] > 0 for figure in content["figures"].values())
    assert content["devices"]["training"] == {"name": "cpu"}
    assert "64 px, batch 1, float32" in ran.stdout
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("| tiny | ours |")]
    assert line.endswith("| - | - |")  # memory of a GPU, and how long it was idle
    assert [path.name for path in tmp_path.iterdir()] == ["bench-gpu.json"]


def test_figures_are_rates_memory_idle_time_and_the_ratio_of_median_steps() -> None:
    found = {name: figure.value for name, figure in gpu_training.figures(runs(), SETTINGS).items()}
    assert found == {
        "gpu_yolov8n_plain_images_per_s": pytest.approx(16 / (0.1 / 3)),
        "gpu_yolov8n_plain_peak_mib": 3072,
        "gpu_yolov8n_plain_idle_share": pytest.approx(0.4),
        "gpu_yolov8n_ours_images_per_s": pytest.approx(16 / 0.05),
        "gpu_yolov8n_ours_peak_mib": 4096,
        "gpu_yolov8n_ours_idle_share": pytest.approx(0.6),
        "gpu_yolov8n_ours_step_vs_plain": pytest.approx(1.5),
    }


def test_the_table_has_a_row_for_each_way_and_says_how_it_was_measured() -> None:
    text = gpu_training.markdown(runs(), SETTINGS, "NVIDIA H100")
    assert "640 px, batch 16, mixed precision, random weights, targets 512 wide" in text
    assert "at most 8 loader workers, NVIDIA H100" in text
    assert "; 3 steps after 40 of warm-up, loading included." in text
    assert "| yolov8n | plain | 480 | 40.0 ms | 1.00 | 10 % | 3072 MiB | 40 % |" in text
    assert "| yolov8n | ours | 320 | 60.0 ms | 1.50 | 7 % | 4096 MiB | 60 % |" in text
    assert "10 further steps under the profiler" in text
    assert "batch 16, float32, random" in gpu_training.markdown(runs(mixed=False), SETTINGS, "NVIDIA H100")


def test_the_teacher_of_ultralytics_way_is_named() -> None:
    text = gpu_training.markdown({PAIR: {"plain": training_run(), "distill_model": training_run()}}, SETTINGS, "cpu")
    assert "| yolov8n | ultralytics' `distill_model` with yolov8s |" in text


def test_a_detector_is_measured_against_its_next_larger_scale() -> None:
    assert [(pair.name, pair.teacher) for pair in gpu_training.PAIRS] == [("yolov8n", "yolov8s.yaml")]
