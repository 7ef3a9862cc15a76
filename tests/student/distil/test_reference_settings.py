"""The parts of the authors' training that no argument of ultralytics gives: scale of targets, warm-up, no average."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.utils.torch_utils import unwrap_model

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
from mocha_pipe.student.distil.target_scale import ReferenceTargets, reference_deviation
from mocha_pipe.student.distil.trainer import DistillTrainer, distill
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS
from tests.shared import DEVICE
from tests.student.conftest import ArrayTargets, first_rows, random_targets


def test_components_are_divided_by_the_curve_and_no_longer_by_their_deviation() -> None:
    generator = np.random.default_rng(0)
    scores_ND = generator.normal(size=(7, 5)) * [9.0, 4.0, 2.0, 1.0, 0.5]
    variances_D = scores_ND.var(axis=0)
    whitened = ArrayTargets((scores_ND / np.sqrt(variances_D)).astype(np.float32))
    whitened.values[3] = np.nan
    whitened.set_aside = np.array([3])
    scaled = ReferenceTargets(whitened, variances_D)
    rows = np.array([6, 0, 3, 0])
    expected = [[scores_ND[row, k] / (18 / (k + 1) ** 0.47 - 0.26) for k in range(5)] for row in rows]
    expected[2] = [np.nan] * 5
    np.testing.assert_allclose(scaled.lookup(rows), expected, rtol=1e-5)
    assert (len(scaled), scaled.dim, scaled.set_aside.tolist()) == (7, 5, [3])
    assert scaled.lookup(rows).dtype == np.float32


def test_the_curve_falls_and_stays_above_zero() -> None:
    curve = reference_deviation(512)
    assert curve[0] == pytest.approx(17.74)
    assert (np.diff(curve) < 0).all()
    assert curve[-1] == pytest.approx(18 / 512**0.47 - 0.26)
    assert reference_deviation(8000)[-1] > 0


def trainer_of(
    train: DetectionSource, val: DetectionSource, model: str, folder: Path, settings: DistillSettings, **more: Any
) -> DistillTrainer:
    setup = DistillSetup(
        train=train, val=val, targets=random_targets(train), first_row=first_rows(train), settings=settings
    )
    arguments = {
        **DEFAULT_TRAIN_ARGUMENTS, "imgsz": 64, "batch": 8, "nbs": 8, "plots": False, "val": False, "device": DEVICE,
        "model": model, "project": str(folder), "name": "train", **more,
    }  # fmt: skip
    return DistillTrainer(setup, arguments)


def test_rates_rise_for_so_many_steps_whatever_the_number_of_images(
    train_source: DetectionSource, val_source: DetectionSource, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    settings = DistillSettings(warmup_steps=6, detector_rate=0.1)
    trainer = trainer_of(
        train_source, val_source, tiny_models["v8"], tmp_path, settings, epochs=6, optimizer="Adam",
        lr0=1e-3, lrf=1.0, save=False,
    )  # fmt: skip
    rates: list[float] = []
    trainer.add_callback(
        "on_train_batch_end", lambda self: rates.append(max(group["lr"] for group in self.optimizer.param_groups))
    )
    trainer.train()
    assert len(rates) == 6 * 2
    assert rates[:7] == pytest.approx([1e-3 * step / 6 for step in range(7)])
    assert rates[7:] == pytest.approx([1e-3] * 5)


@pytest.mark.parametrize("average", [True, False])
def test_without_an_average_the_student_is_the_last_step(
    average: bool, train_source: DetectionSource, val_source: DetectionSource, tiny_models: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    settings = DistillSettings(average=average)
    trainer = trainer_of(train_source, val_source, tiny_models["v8"], tmp_path, settings, epochs=1, fraction=16)
    trainer.train()
    last, kept = (model.state_dict() for model in (unwrap_model(trainer.model), trainer.ema.ema))
    floats = [name for name, value in kept.items() if value.dtype.is_floating_point]
    assert all(torch.equal(last[name], kept[name]) for name in floats) is not average


def test_a_student_of_the_reference_is_trained_and_read(
    train_source: DetectionSource, val_source: DetectionSource, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    settings = DistillSettings(
        features="reference", schedule="alternate", average=False, warmup_steps=2, detector_rate=0.1,
        train_arguments={
            "epochs": 4, "imgsz": 64, "batch": 8, "plots": False, "device": DEVICE, "fraction": 16, "optimizer": "Adam",
            "val": False,
        },
    )  # fmt: skip
    result = distill(
        settings, model=tiny_models["v8"], train=train_source, val=val_source, targets=random_targets(train_source),
        first_row=first_rows(train_source), run=tmp_path,
    )  # fmt: skip
    assert load_student(result.folder).features == "reference"
