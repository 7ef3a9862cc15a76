"""The measurement of phase 1 at toy size on the CPU."""

from typing import Any

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu import teacher as gpu_teacher
from bench.gpu.teacher import TeacherResult, TeacherSettings
from bench.teachers.random_llava import random_llava
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

SETTINGS = TeacherSettings(
    geometry="tiny", device="cpu", batch=4, generate_batch=4, tokens=5, batches=2, loop_boxes=1, matmul_side=64,
    compiled=False,
)  # fmt: skip


def result(**values: Any) -> TeacherResult:
    measured = {"prompt": 50.0, "generate": 5.0, "loop": 0.1, "matmul": 800e12, "operations": 8e12, "text_tokens": 38}
    return TeacherResult(**{**measured, "image_tokens": 576, "weights": 7_063_427_072, "peak_bytes": 0, **values})


def test_operations_are_those_that_torch_counts() -> None:
    """Up to what the count leaves out (the masked half of attention, and layers of no weight).

    Plain attention, since torch does not count the kernels of every other kind.
    """
    teacher = random_llava("tiny", TeacherConfig(model="tiny", device="cpu", batch=1))
    operations, text_tokens, image_tokens = gpu_teacher._operations(teacher)
    counted = []
    for name in gpu_teacher.NAMES:
        [batch] = teacher.prepare([np.zeros((56, 56, 3), np.uint8)], [name])
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            teacher.forward(batch)
        counted.append(counter.get_total_flops())
    assert operations == pytest.approx(np.mean(counted), rel=0.06)
    lengths = [len(teacher._prompts.encode(name)) for name in gpu_teacher.NAMES]
    assert (image_tokens, text_tokens) == (16, round(np.mean(lengths)) - 16)


def test_the_share_is_operations_done_over_operations_possible() -> None:
    assert result().share == pytest.approx(0.5)
    assert not gpu_teacher.figures(result(), SETTINGS)["gpu_prompt_share_of_matmul"].is_met
    assert gpu_teacher.figures(result(prompt=60.0), SETTINGS)["gpu_prompt_share_of_matmul"].is_met


def test_the_table_compares_with_the_loop_and_says_what_was_extrapolated() -> None:
    text = gpu_teacher.markdown(result(), SETTINGS, "NVIDIA H100")
    assert "tiny (7.06 billion random weights), NVIDIA H100" in text
    assert "| prompt mode | 4 | 50 | 6 h | 500x |" in text
    assert "| one box at a time, 3 beams, 5 tokens | 1 | 0.1 | 2,778 h | 1x |" in text
    assert "reaches 50 % of the measured matmul rate of 800 Tflop/s (aim: 60 %)" in text
    assert "timed on 1 boxes; its million is extrapolated" in text
