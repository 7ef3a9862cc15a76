"""Whole configurations as functions: a variant is "call the base and change a few fields"."""

from dataclasses import replace
from pathlib import Path

from mocha_pipe.pipeline.settings.sections import RunConfig

_QUICK_TRAINING = {
    "optimizer": "AdamW",
    "lr0": 1.5e-3,
    "lrf": 0.05,
    "nbs": 8,  # one optimizer step per batch; the trainer's default of 64 would leave too few steps
    "warmup_epochs": 1,
    "warmup_bias_lr": 0.0,
    "mosaic": 0.0,  # scenes are small and full already
    "close_mosaic": 0,
    "scale": 0.2,
    "hsv_h": 0.0,  # colour is part of an identity, and the cached targets saw the true one
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "plots": False,
    "amp": True,  # bfloat16, where the CPU has it
    "val": False,
}

_REFERENCE_TRAINING = {
    "optimizer": "Adam",
    "momentum": 0.937,
    "lr0": 1e-3,
    "lrf": 0.0,
    "cos_lr": True,
    "weight_decay": 1e-4,
    "nbs": 16,  # the batch: an optimizer step for each
    "warmup_bias_lr": 0.0,
    **dict.fromkeys(("mosaic", "close_mosaic", "scale", "translate", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0),
}
"""Adam without augmentation."""


def photographs(root: Path = Path("work")) -> RunConfig:
    """The paper's settings for a data set of one's own (arXiv 2509.14001, section 4).

    Command: `mocha-pipe cache build --data data.yaml --teacher llava-hf/llava-1.5-7b-hf`, then `mocha-pipe distill
    --data data.yaml --student yolov8n.pt`.
    Duration: depends on the number of boxes; the first command is the one for a large GPU.
    """
    return RunConfig(root=root)


def miniature(root: Path = Path("work")) -> RunConfig:
    """The procedural world, small enough for two CPU cores and without a download.

    Command: `make demo`, or stage by stage `make cache-teacher`, `make distill`, `mocha-pipe fewshot --shots 1`.
    Everything is synthetic: the figures show that the method works, not how well it does on photographs.
    """
    base = photographs(root)
    return replace(
        base,
        cache=replace(base.cache, dim=128),  # best of 32 to 128 for the teacher on objects of the validation split
        pretrain=replace(base.pretrain, epochs=6, batch=8, image_size=160, train=_QUICK_TRAINING),
        distill=replace(
            base.distill,
            features="fine",
            schedule="joint",
            detector_rate=1.0,
            epochs=8,
            batch=8,
            image_size=160,
            train=_QUICK_TRAINING,
        ),
    )


def reference(base: RunConfig) -> RunConfig:
    """The same data and cache, distilled as the paper's authors do (docs/reference.md).

    Command: `mocha-pipe distill --recipe reference --data data.yaml --student yolov8n.pt`.
    Duration: of 50 epochs at 672 px the detector learns in 12; its student is a row of `make study`.
    """
    return replace(
        base,
        distill=replace(
            base.distill,
            features="reference",
            objective="paper",
            schedule="alternate",
            detector_rate=0.1,  # 1e-4, with a weight decay of 1e-5
            target_scale="reference",
            average=False,
            warmup_steps=1000,
            epochs=50,
            batch=16,
            image_size=672,
            train=_REFERENCE_TRAINING,
        ),
    )


def demo(root: Path = Path("work/demo")) -> RunConfig:
    """The miniature in a folder of its own, evaluated at 1 and 5 shots.

    Command: `make demo`; the reports are ROOT/report.json and ROOT/report.html.
    Duration: 8 to 15 minutes on two cores. Expected: mocha over yolo +48 mAP50-95 at 1 shot, +62 at 5 (see README.md).
    """
    base = miniature(root)
    return replace(base, fewshot=replace(base.fewshot, folder=root, shots=(1, 5)))
