"""`python -m bench.gpu`: which phases run, what is kept, how it ends; on the CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from bench.gpu import __main__ as gpu
from bench.gpu.teacher import TeacherResult, TeacherSettings
from bench.gpu.training import PAIRS, TrainingSettings
from bench.gpu.watched_steps import TrainingRun


def run(*arguments: object) -> Result:
    return CliRunner().invoke(gpu.app, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measurements that return at once; prompt mode misses its aim. The list tells which ran."""
    ran: list[str] = []

    def teacher(settings: TeacherSettings) -> TeacherResult:
        ran.append(settings.geometry)
        return TeacherResult(
            prompt=50.0, generate=5.0, loop=0.1, matmul=800e12, operations=8e12, text_tokens=38, image_tokens=576,
            weights=7_000_000_000, peak_bytes=None,
        )  # fmt: skip

    def training(_root: Path, settings: TrainingSettings) -> Any:
        ran.append("training")
        step = TrainingRun(step_seconds=[0.1], waiting_seconds=0.0, busy=None, peak_bytes=None, mixed=False)
        return {pair: {"plain": step, "ours": step} for pair in settings.pairs}

    monkeypatch.setattr(gpu.gpu_teacher, "measure", teacher)
    monkeypatch.setattr(gpu.gpu_training, "measure", training)
    return ran


@pytest.mark.parametrize("geometry", ["tiny", "tiny-qwen3-vl"])
def test_phase_1_is_measured_printed_and_kept(geometry: str, tmp_path: Path) -> None:
    options = (
        f"--geometry {geometry} --batch 4 --generate-batch 4 --tokens 5 --batches 2 --loop-boxes 1 --matmul-side 64"
    )
    ran = run("--device", "cpu", "--root", tmp_path, "teacher", *options.split())
    content = json.loads((tmp_path / "bench-gpu.json").read_text())
    figures = content["figures"]
    names = [
        "prompt_share_of_matmul", "generate_vs_loop", "gpu_prompt_regions_per_s", "gpu_generate_regions_per_s",
        "gpu_loop_regions_per_s",
    ]  # fmt: skip
    assert set(figures) == {f"{name}_{geometry}" for name in names}
    assert all(figure["value"] > 0 for figure in figures.values())
    aims = {f"prompt_share_of_matmul_{geometry}": 0.6, f"generate_vs_loop_{geometry}": 50}
    assert {name: figures[name]["target"] for name in aims} == aims
    assert ran.exit_code == (0 if all(figures[name]["value"] >= aim for name, aim in aims.items()) else 1)
    assert content["devices"][f"teacher {geometry}"]["name"] == "cpu"
    assert content["versions"]["torch"]
    assert "| generate mode, greedy, 5 tokens | 4 |" in ran.stdout


def test_without_a_name_both_phases_run_and_a_missed_aim_ends_with_exit_code_1(
    measured: list[str], tmp_path: Path
) -> None:
    result = run("--device", "cpu", "--root", tmp_path)
    content = json.loads((tmp_path / "bench-gpu.json").read_text())
    assert (result.exit_code, measured) == (1, ["training", "llava-1.5-7b", "qwen3-vl-8b"])
    assert set(content["devices"]) == {"training", "teacher", "teacher qwen3-vl-8b"}
    names = {"gpu_yolov8n_ours_step_vs_plain", "gpu_prompt_regions_per_s", "gpu_prompt_regions_per_s_qwen3-vl-8b"}
    assert names <= set(content["figures"])
    assert "| yolov8n | ours |" in result.stdout
    took = content["figures"]["gpu_bench_s"]
    assert (took["target"], 0 < took["value"] < 600) == (600, True)
    assert "s (aim: 600 s)." in result.stdout
    assert "| prompt mode |" in result.stdout


def test_a_phase_that_is_named_runs_alone_and_keeps_what_the_other_found(measured: list[str], tmp_path: Path) -> None:
    out = tmp_path / "other.json"
    for phase in ("teacher", "training"):
        result = run("--device", "cpu", "--root", tmp_path, "--out", out, phase)
    content = json.loads(out.read_text())
    assert (result.exit_code, measured) == (0, ["llava-1.5-7b", "training"])
    assert "gpu_bench_s" not in content["figures"]
    assert content["devices"]["teacher"]["matmul_flops_per_s"] == 800e12
    assert len(content["figures"]) == 5 + 3 * len(PAIRS)
    assert not (tmp_path / "bench-gpu.json").exists()


def test_a_machine_without_a_gpu_is_told_so_before_anything_runs(
    measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refusal("--root", tmp_path)
    assert "--device cuda: torch finds no CUDA GPU; name another device, such as cpu" in said
    assert measured == []


def test_an_unknown_geometry_is_refused() -> None:
    said = refusal("--device", "cpu", "teacher", "--geometry", "llava-13b")
    assert (
        "--geometry is one of llava-1.5-7b, 2-gigabytes, 49-tokens, tiny, qwen3-vl-8b, tiny-qwen3-vl; found llava-13b"
        in said
    )


@pytest.mark.parametrize("model", ["yolov8n.yaml", "yolov8n.yaml:", ":yolov8s.yaml"])
def test_a_model_without_its_teacher_is_refused(model: str, measured: list[str]) -> None:
    said = refusal("--device", "cpu", "training", "--model", model)
    assert f"--model names a student and its teacher, as a.yaml:b.yaml; found {model}" in said
    assert measured == []
