"""Phase 1 on a GPU at the size of LLaVA-1.5-7B or Qwen3-VL-8B, with random weights: their arithmetic without them.

Regions per second in both modes, against the usual loop (one box at a time, 3 beams, 300 tokens), and the share of the
device's own matmul rate that prompt mode reaches.

Operations of one region in prompt mode are those of its products of matrices, as torch counts them; of the language
model's attention, which is causal, half. Norms, softmax and activations count nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.figures import Figure
from bench.gpu.device import give_back, peak_bytes, wait
from bench.teachers.one_by_one import describe_one
from bench.teachers.random_llava import Geometry, random_llava
from bench.teachers.random_qwen import QwenGeometry, random_qwen
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.vlm.teacher import VlmTeacher

NAMES = ("mug", "backpack", "kitchen & dining room table", "remote control")
LOOP_BEAMS, ANSWER_TOKENS = 3, 300
"""Of the usual loop, as the paper's reference has them."""
MATMUL_SHARE, GENERATE_VS_LOOP = 0.60, 50
AnyTeacher = LlavaTeacher | VlmTeacher
AnyGeometry = Geometry | QwenGeometry
GEOMETRIES: tuple[str, ...] = (*get_args(Geometry), *get_args(QwenGeometry))
LARGE: tuple[AnyGeometry, ...] = ("llava-1.5-7b", "qwen3-vl-8b")
"""What is measured unless another is named; the figures of the first stand under the plain names."""


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """How much is measured."""

    geometry: AnyGeometry
    device: str
    batch: int = 64
    """Regions per forward pass in prompt mode."""
    generate_batch: int = 48
    """Regions per batch in generate mode; each keeps half a megabyte per token."""
    tokens: int = ANSWER_TOKENS
    """Length of every answer."""
    batches: int = 12
    """Timed batches in prompt mode."""
    loop_boxes: int = 3
    """Boxes that the loop is timed on."""
    matmul_side: int = 8192
    compiled: bool = False


@dataclass(frozen=True, kw_only=True)
class TeacherResult:
    """What was measured; rates are regions per second."""

    prompt: float
    generate: float
    loop: float
    matmul: float
    """Operations per second of one large product, in the teacher's number type."""
    operations: float
    """Of one region in prompt mode."""
    text_tokens: int
    image_tokens: int
    weights: int
    peak_bytes: int | None
    """None where there is no GPU."""

    @property
    def share(self) -> float:
        """Of the matmul rate that prompt mode reaches, crops and copies included."""
        return self.prompt * self.operations / self.matmul


def measure(settings: TeacherSettings) -> TeacherResult:
    """Prompt mode and the product, then generate mode and the loop."""
    device = torch.device(settings.device)
    config = TeacherConfig(
        model=settings.geometry, device=settings.device, batch=settings.batch, compile=settings.compiled
    )
    teacher = _make(settings.geometry, config)
    operations, text_tokens, image_tokens = _operations(teacher)
    weights = sum(weight.numel() for weight in teacher._model.parameters())
    prompt = _rate(teacher, settings.batch * settings.batches, device)
    matmul = _matmul_rate(settings.matmul_side, teacher._model.dtype, device)
    kept = None if settings.compiled else teacher._model
    del teacher  # there is room for one
    give_back(device)
    config = TeacherConfig(
        model=settings.geometry, device=settings.device, batch=settings.generate_batch, mode="generate",
        max_new_tokens=settings.tokens,
    )  # fmt: skip
    teacher = _make(settings.geometry, config, model=kept)
    generate = _rate(teacher, settings.generate_batch, device)
    crops, names = _regions(teacher, settings.loop_boxes + 1)
    describe = _one_by_one(teacher, settings.geometry, config)
    describe(crops[0], names[0])

    def loop() -> None:
        for crop, name in zip(crops[1:], names[1:], strict=True):
            describe(crop, name)

    loop_rate = settings.loop_boxes / _seconds(loop, device)
    return TeacherResult(
        prompt=prompt, generate=generate, loop=loop_rate, matmul=matmul, operations=operations,
        text_tokens=text_tokens, image_tokens=image_tokens, weights=weights,
        peak_bytes=peak_bytes(device),
    )  # fmt: skip


def _make(geometry: AnyGeometry, config: TeacherConfig, model: Any = None) -> AnyTeacher:
    if geometry in get_args(QwenGeometry):
        return random_qwen(geometry, config, model=model)  # type: ignore[arg-type]
    return random_llava(geometry, config, model=model)  # type: ignore[arg-type]


def _one_by_one(
    teacher: AnyTeacher, geometry: AnyGeometry, config: TeacherConfig
) -> Callable[[NDArray[np.uint8], str], object]:
    """The usual way to describe one box: transformers' own search with beams."""
    if isinstance(teacher, LlavaTeacher):
        return partial(describe_one, teacher, num_beams=LOOP_BEAMS)
    beams = _make(geometry, replace(config, num_beams=LOOP_BEAMS, batch=1), model=teacher._model)
    return lambda crop, name: beams.embed([crop], [name])


def _rate(teacher: AnyTeacher, regions: int, device: torch.device) -> float:
    """Regions per second of `embed`, after one call to warm up."""
    crops, names = _regions(teacher, regions)
    teacher.embed(crops, names)
    return regions / _seconds(lambda: teacher.embed(crops, names), device)


def _regions(teacher: AnyTeacher, number: int) -> tuple[list[NDArray[np.uint8]], Sequence[str]]:
    """Random pictures, cut already: cutting is the CPU's part, and `make bench` measures it."""
    size, generator = teacher.spec.crop_size, np.random.default_rng(0)
    crops = [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(number)]
    return crops, [NAMES[index % len(NAMES)] for index in range(number)]


def _operations(teacher: AnyTeacher) -> tuple[float, int, int]:
    """Operations of a region in prompt mode, mean over the names, and its tokens of text and picture."""
    text: Any = teacher._model.config.get_text_config()
    crops, _ = _regions(teacher, 1)
    operations, lengths = [], [teacher.tokens(name) for name in NAMES]
    for name, length in zip(NAMES, lengths, strict=True):
        [batch] = teacher.prepare(crops, [name])
        # Plain attention in a plain pass: torch counts neither every kernel nor what is compiled.
        eager = torch.compiler.set_stance("force_eager")
        with eager, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            teacher.forward(batch)  # type: ignore[arg-type]
        masked = 2 * length**2 * text.num_attention_heads * text.head_dim * text.num_hidden_layers
        counts = counter.get_flop_counts()  # some versions of transformers make the angles of positions by a product
        angles = sum(sum(counts[module].values()) for module in counts if module.endswith("rotary_emb"))
        operations.append(counter.get_total_flops() - masked - angles)
    if isinstance(teacher, LlavaTeacher):
        image_tokens = teacher._prompts.image_tokens
    else:
        image_tokens = teacher._questions.image_tokens(teacher.spec.crop_size)
    return sum(operations) / len(NAMES), round(sum(lengths) / len(NAMES)) - image_tokens, image_tokens


def _matmul_rate(side: int, dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a square product, the best of some."""
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.matmul(one, other)
    return max(2 * side**3 * 10 / _seconds(lambda: [one @ other for _ in range(10)], device) for _ in range(3))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time until the device has done all of it."""
    wait(device)
    started = perf_counter()
    work()
    wait(device)
    return perf_counter() - started


def figures(result: TeacherResult, settings: TeacherSettings) -> dict[str, Figure]:
    """The measured, with targets where there are any; a rate alone has none to miss."""
    boxes = f"{settings.loop_boxes} boxes timed, the rest extrapolated"
    of = "" if settings.geometry == LARGE[0] else f"_{settings.geometry}"
    found = {
        "prompt_share_of_matmul": Figure(
            value=result.share, target=MATMUL_SHARE, better="higher",
            note=f"prompt mode's {result.operations / 1e12:.3g} Tflop per region x regions/s / measured matmul rate",
        ),
        "generate_vs_loop": Figure(
            value=result.generate / result.loop, target=GENERATE_VS_LOOP, better="higher",
            note=f"greedy in batches of {settings.generate_batch} / one box at a time, {LOOP_BEAMS} beams; {boxes}",
        ),
        "gpu_prompt_regions_per_s": Figure(value=result.prompt, better="higher", note="`embed`, whole"),
        "gpu_generate_regions_per_s": Figure(
            value=result.generate, better="higher", note=f"greedy, {settings.tokens} tokens each"
        ),
        "gpu_loop_regions_per_s": Figure(
            value=result.loop, better="higher",
            note=f"one box at a time, {LOOP_BEAMS} beams, {settings.tokens} tokens, second pass; {boxes}",
        ),
    }  # fmt: skip
    if result.peak_bytes is not None:
        found["gpu_teacher_peak_gib"] = Figure(value=result.peak_bytes / 2**30, better="lower", note="both modes")
    return {name + of: figure for name, figure in found.items()}


def markdown(result: TeacherResult, settings: TeacherSettings, device_name: str) -> str:
    """The table for docs/benchmarks.md."""
    rows = [
        ("prompt mode", settings.batch, result.prompt),
        (f"generate mode, greedy, {settings.tokens} tokens", settings.generate_batch, result.generate),
        (f"one box at a time, {LOOP_BEAMS} beams, {settings.tokens} tokens", 1, result.loop),
    ]
    lines = [
        f"{settings.geometry} ({result.weights / 1e9:.2f} billion random weights), {device_name}, torch "
        f"{torch.__version__}{', compiled' if settings.compiled else ''}; {result.image_tokens} image tokens and about "
        f"{result.text_tokens} of text per region.",
        "",
        "| way | batch | regions/s | a million regions | against the loop |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {batch} | {rate:.3g} | {1e6 / rate / 3600:,.0f} h | {rate / result.loop:,.0f}x |"
            for name, batch, rate in rows
        ),
        "",
        f"{_peak(result.peak_bytes)}Prompt mode reaches {100 * result.share:.0f} % of the measured matmul rate of "
        f"{result.matmul / 1e12:.3g} Tflop/s (aim: {100 * MATMUL_SHARE:.0f} %), at {result.operations / 1e12:.3g} "
        f"Tflop per region. The loop was timed on {settings.loop_boxes} boxes; its million is extrapolated. Weights "
        "are random and answers never end by themselves, so every answer has full length. Prompts are tokenized by the "
        "miniature's tokenizer: of realistic length, other ids. The loop yields no image embedding, the others do.",
    ]
    return "\n".join(lines)


def _peak(memory: int | None) -> str:
    return "" if memory is None else f"Peak memory of the device: {memory / 2**30:.1f} GiB. "
