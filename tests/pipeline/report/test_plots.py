"""Figures: valid SVG that draws what it was given."""

import base64
import io
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.pipeline.report import plots


def texts(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_the_comparison_names_every_method_and_number_of_shots(report: dict[str, Any]) -> None:
    svg = plots.comparison(report["results"])
    for words in ("histogram", "yolo", "mocha", "teacher", "1 shot", "5 shots", "mAP50-95"):
        assert words in texts(svg)
    for colour in plots.METHOD_COLOURS.values():
        assert colour in svg


def test_the_roc_names_methods_with_their_auroc_and_the_threshold(report: dict[str, Any]) -> None:
    del report["results"][1]["unknown"]["calibrated"]
    svg = plots.roc(report["results"])
    for words in ("1 shot", "5 shots", "histogram 0.601", "mocha 0.801", "teacher 0.905"):
        assert words in texts(svg)
    assert texts(svg).count("threshold for 7 %") == 1
    for colour in plots.METHOD_COLOURS.values():
        assert colour in svg


def test_the_roc_of_one_number_of_shots_is_no_wider_than_a_panel(report: dict[str, Any]) -> None:
    assert "5 shots" not in texts(plots.roc(report["results"][:1]))


def test_the_spectrum_marks_the_width_of_the_target() -> None:
    svg = plots.spectrum(np.exp(-np.arange(30.0)), 12)
    assert texts(svg).count("target: 12") == 2
    assert "variance explained, %" in texts(svg)


def test_a_spectrum_with_vanished_directions_is_drawn() -> None:
    assert "component" in texts(plots.spectrum(np.array([2.0, 1.0, 0.0, 0.0]), 2))


def test_training_curves_have_a_panel_for_each_quantity_that_a_run_recorded() -> None:
    base = {"train/box_loss": [2.0, 1.0]}
    student = {"train/box_loss": [2.0, 1.0], "train/emb_loss": [3.0, 2.0], "other": [1.0, 1.0]}
    shown = texts(plots.training_curves({"base detector": base, "distillation": student}))
    for words in ("box loss", "L_emb", "base detector", "distillation"):
        assert words in shown
    for words in ("L_dist", "mAP50-95", "other"):
        assert words not in shown


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("nan"), 0.5], []])
def test_epochs_without_a_value_have_no_point(values: list[float]) -> None:
    assert "mAP50-95" in texts(plots.training_curves({"run": {"metrics/mAP50-95(B)": values}}))


def test_a_picture_is_a_small_jpeg_with_its_proportions(scene_image: np.ndarray) -> None:
    uri = plots.picture(scene_image, longest_side=30)
    kind, data = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (30, 20)
