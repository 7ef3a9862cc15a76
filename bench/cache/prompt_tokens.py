"""Tokens that the language model computes beside those that it is needed for: what padding costs a whole build.

The teacher is tiny and random; its prompts are what counts. A picture is 49 tokens in a chat format like Qwen's. The
tokenizer is the miniature's, which spells most class names letter by letter: prompts differ more in length than Qwen's.
"""

import tempfile
from pathlib import Path

import yaml
from torch import Tensor

from bench.figures import Figure
from bench.gpu.pictures import picture_inputs
from bench.teachers.random_llava import random_llava
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher, PreparedBatch

IMAGES = 128
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content if part.type == 'image' %}<|vision_start|><image><|vision_end|>{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Counter:
    """Counts the tokens of all batches of a teacher on their way to its model."""

    def __init__(self, teacher: LlavaTeacher) -> None:
        self.computed = self.needed = 0
        self._forward = teacher.forward
        teacher.forward = self._count  # type: ignore[method-assign]

    def _count(self, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        self.computed += batch.ids.numel()
        self.needed += batch.ids.numel() if batch.mask is None else int(batch.mask.sum())
        return self._forward(batch)


def measure(root: Path, *, data: Path | None = None, images: int = IMAGES) -> dict[str, Figure]:
    """One build of a data set's training regions, or of made-up ones with COCO's 80 classes."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        source, table = _regions(folder, data, images)
        config = TeacherConfig(model="49-tokens", device="cpu")
        teacher = random_llava("49-tokens", config, chat_template=CHAT_TEMPLATE)
        counter = Counter(teacher)
        report = build_cache(
            source, table, folder / "cache", spec=teacher.spec, load_teacher=lambda: teacher, batch=config.batch
        )
    what = "made-up regions" if data is None else f"regions of {data.parent.name}/{data.name}"
    tokens = f"{counter.computed} / {counter.needed} tokens"
    return {
        "prompt_tokens_vs_padded": Figure(
            value=counter.computed / counter.needed, target=1.03, better="lower",
            note=f"{tokens}; {report.embedded} {what}, {len(table.class_names)} class names, batches of {config.batch}",
        )
    }  # fmt: skip


def _regions(folder: Path, data: Path | None, images: int) -> tuple[DetectionSource, RegionTable]:
    if data is None:
        inputs = picture_inputs(folder / "data", images=images, side=64, names=_coco_names())
        return inputs.source, inputs.table
    source = open_source(data, "train")
    return source, RegionTable.build(source)


def _coco_names() -> list[str]:
    """As ultralytics ships them."""
    import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

    # isort: split

    from ultralytics.utils import ROOT

    names: dict[int, str] = yaml.safe_load((ROOT / "cfg/datasets/coco8.yaml").read_text())["names"]
    return list(names.values())
