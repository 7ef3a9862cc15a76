"""The detector of a student beside its base detector, and what happens without a data set for it."""

from dataclasses import replace
from pathlib import Path

import torch

from bench.inputs import BenchInputs
from bench.personal.random_student import make_student
from bench.photos.base import base_figures, identical_figure
from bench.photos.recipe import Study


def test_without_a_data_set_there_is_a_note_and_no_figure(study: Study) -> None:
    figures, (note,) = base_figures(study, None)
    assert figures == {}
    assert note == (
        "frozen_base_identical and joint_base_delta are left out: they need a data set with the detector's classes; "
        "name its data.yaml with --coco (make study-photos COCO=data.yaml)"
    )


def test_a_detector_is_identical_to_itself_alone(study: Study, inputs: BenchInputs, tiny_detector: Path) -> None:
    student = study.student("deep", 0)
    make_student(student, str(tiny_detector), class_names=inputs.source.class_names, width=8)
    study = replace(study, detector=student / "student.pt")
    same = identical_figure(study, inputs.data)["frozen_base_identical"]
    assert (same.value, same.target, same.is_met) == (1, 1, True)
    checkpoint = torch.load(study.detector, weights_only=False)
    for level in checkpoint["model"].model[-1].cv3:
        level[-1].bias.data += 1
    torch.save(checkpoint, study.root / "other.pt")
    other = identical_figure(replace(study, detector=study.root / "other.pt"), inputs.data)["frozen_base_identical"]
    assert (other.value, other.is_met) == (0, False)
