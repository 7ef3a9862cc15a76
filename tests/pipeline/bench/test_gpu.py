"""The measurement of a GPU, at toy size on the CPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from pipeline.bench import gpu
from pipeline.bench.gpu import GpuResult, GpuSettings
from teacher_cache.config import TeacherConfig
from teacher_cache.teachers.random_llava import random_llava

SETTINGS = GpuSettings(
    geometry="tiny", device="cpu", batch=4, generate_batch=4, tokens=5, batches=2, loop_boxes=1, matmul_side=64,
    compiled=False,
)  # fmt: skip


def result(**values: Any) -> GpuResult:
    measured = {"prompt": 50.0, "generate": 5.0, "loop": 0.1, "matmul": 800e12, "operations": 8e12, "text_tokens": 38}
    return GpuResult(**{**measured, "image_tokens": 576, "weights": 7_063_427_072, "peak_bytes": 0, **values})


def test_the_command_measures_prints_and_keeps(tmp_path: Path) -> None:
    arguments = "--geometry tiny --device cpu --batch 4 --generate-batch 4 --tokens 5 --batches 2 --loop-boxes 1"
    ran = CliRunner().invoke(gpu.app, [*arguments.split(), "--matmul-side", "64", "--root", str(tmp_path)])
    content = json.loads((tmp_path / "bench-gpu.json").read_text())
    figures = content["figures"]
    assert set(figures) == {
        "gpu_prompt_share_of_matmul", "gpu_prompt_regions_per_s", "gpu_generate_regions_per_s", "gpu_loop_regions_per_s"
    }  # fmt: skip
    assert all(figure["value"] > 0 for figure in figures.values())
    assert ran.exit_code == (0 if figures["gpu_prompt_share_of_matmul"]["value"] >= 0.6 else 1)
    assert content["device"]["name"] == "cpu"
    assert content["versions"]["torch"]
    assert "| generate mode, greedy, 5 tokens | 4 |" in ran.stdout


def test_operations_are_those_that_torch_counts() -> None:
    """Up to what the count leaves out (the masked half of attention, and layers of no weight)."""
    teacher = random_llava("tiny", TeacherConfig(model="tiny", device="cpu", batch=1))
    operations, text_tokens, image_tokens = gpu._operations(teacher)
    counted = []
    for name in gpu.NAMES:
        [batch] = teacher.prepare([np.zeros((56, 56, 3), np.uint8)], [name])
        with FlopCounterMode(display=False) as counter:
            teacher.forward(batch)
        counted.append(counter.get_total_flops())
    assert operations == pytest.approx(np.mean(counted), rel=0.06)
    lengths = [len(teacher._prompts.encode(name)) for name in gpu.NAMES]
    assert (image_tokens, text_tokens) == (16, round(np.mean(lengths)) - 16)


def test_the_share_is_operations_done_over_operations_possible() -> None:
    assert result().share == pytest.approx(0.5)
    assert not gpu.figures(result(), SETTINGS)["gpu_prompt_share_of_matmul"].is_met
    assert gpu.figures(result(prompt=60.0), SETTINGS)["gpu_prompt_share_of_matmul"].is_met


def test_the_table_compares_with_the_loop_and_says_what_was_extrapolated() -> None:
    text = gpu.markdown(result(), SETTINGS, "NVIDIA H100")
    assert "tiny (7.06 billion random weights), NVIDIA H100" in text
    assert "| prompt mode | 4 | 50 | 6 h | 500x |" in text
    assert "| one box at a time, 3 beams, 5 tokens | 1 | 0.1 | 2,778 h | 1x |" in text
    assert "reaches 50 % of the measured matmul rate of 800 Tflop/s (aim: 60 %)" in text
    assert "timed on 1 boxes; its million is extrapolated" in text


def test_an_unknown_geometry_is_refused() -> None:
    ran = CliRunner().invoke(gpu.app, ["--geometry", "llava-13b"])
    assert ran.exit_code == 2
    said = " ".join(ran.stderr.replace("│", " ").split())
    assert "--geometry is one of llava-1.5-7b, tiny; found llava-13b" in said
