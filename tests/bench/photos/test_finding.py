"""Objects learnt by a toy student, and names counted that are known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.personal.random_student import make_student
from bench.photos import finding
from bench.photos.finding import Sight, count, find_objects, found_figures, learn_objects, split_photos, subjects_of
from bench.photos.sheet import FailureSheet
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.student.personal.profile import Profile

COARSE = ("mug", "ball")
NAMES = dict(enumerate([*COARSE, "my blue cat", "my red dog"]))
SEEN = {
    "blue cat/1.png": [2], "blue cat/2.png": [2, 3, 0], "blue cat/3.png": [1], "blue cat/4.png": [],
    "red dog/1.png": [3, 3], "red dog/2.png": [2], "red dog/3.png": [3], "red dog/4.png": [3],
}  # fmt: skip
"""What a stand-in for the detector says of each picture, as numbers of `NAMES`."""


class Detector:
    """Says what `SEEN` has."""

    profile: Profile

    @classmethod
    def load(cls, *_: Any, **__: Any) -> "Detector":
        return cls()

    def __call__(self, path: Path) -> list[SimpleNamespace]:
        assert self.profile.names == ("my blue cat", "my red dog")
        numbers = torch.tensor(SEEN[f"{path.parent.name}/{path.name}"])
        plot = np.zeros((40, 48, 3), np.uint8)
        return [
            SimpleNamespace(
                boxes=SimpleNamespace(cls=numbers),
                is_personal=numbers >= len(COARSE),
                names=NAMES,
                plot=lambda **_: plot,
            )
        ]


@pytest.fixture
def student(tmp_path: Path, tiny_detector: Path) -> Path:
    make_student(tmp_path / "student", str(tiny_detector), class_names=COARSE, width=8)
    return tmp_path / "student"


def test_the_first_picture_of_each_object_teaches_and_no_other_is_left_out(benchmark: PersonalBenchmark) -> None:
    first, others = split_photos(benchmark)
    assert [record.name for record in first] == ["blue cat/0.png", "red dog/0.png"]
    assert [f"{path.parent.name}/{path.name}" for _, path in others] == list(SEEN)
    assert [subject for subject, _ in others] == ["blue cat"] * 4 + ["red dog"] * 4


def test_objects_without_a_class_are_learnt_only_where_classes_do_not_matter(
    benchmark: PersonalBenchmark, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "CONFIDENCE", 1.0)  # the detector says nothing of any picture
    first, _ = split_photos(benchmark)
    profile, left_out = learn_objects(student, benchmark, first, "simpleshot")
    assert (profile.names, left_out) == (("my blue cat", "my red dog"), [])
    assert [profile.photos(name) for name in profile.names] == [{"none": 1}] * 2
    profile, left_out = learn_objects(student, benchmark, first, "conditional")
    assert (profile.names, left_out) == ((), ["blue cat", "red dog"])


def test_an_object_may_be_called_like_a_class(
    benchmark: PersonalBenchmark, tmp_path: Path, tiny_detector: Path
) -> None:
    make_student(tmp_path / "student", str(tiny_detector), class_names=("blue cat", "ball"), width=8)
    first, _ = split_photos(benchmark)
    profile, _ = learn_objects(tmp_path / "student", benchmark, first, "simpleshot")
    assert profile.names == ("my blue cat", "my red dog")


def test_names_are_counted_and_failures_drawn(
    benchmark: PersonalBenchmark, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "PersonalDetector", Detector)
    sheet = FailureSheet(tmp_path / "failures")
    sights, _ = find_objects(student, benchmark, "simpleshot", sheet.see)
    assert count(sights) == {"found": 5 / 8, "wrong": 2 / 8, "missed": 2 / 8}
    assert sights[1].names == ("blue cat", "red dog")
    assert subjects_of([sights, sights]) == {
        "blue cat": {"found": 0.5, "wrong": 0.25, "missed": 0.5},
        "red dog": {"found": 0.75, "wrong": 0.25, "missed": 0},
    }
    page = sheet.write("Failures").read_text()
    assert page.count("<img") == len(list((tmp_path / "failures").glob("*.jpg"))) == 4
    assert "<b>blue cat</b>: no personal name" in page
    assert "<b>red dog</b>: blue cat" in page
    with Image.open(tmp_path / "failures" / "000.jpg") as picture:
        assert picture.size == (48, 40)


def test_figures_are_means_over_seeds() -> None:
    right, wrong, none = (Sight(subject="mug", names=names) for names in (("mug",), ("cup",), ()))
    figures = found_figures([[right, right, none], [right, wrong, none]], [[none], [right]], [3, 4])
    assert figures["photo_found_1shot"].value == pytest.approx(0.5)
    assert figures["photo_wrong_1shot"].value == pytest.approx(1 / 6)
    assert "no name: 0.333" in figures["photo_found_1shot"].note
    assert (figures["photo_found_1shot"].is_met, figures["photo_wrong_1shot"].is_met) == (True, False)
    before = figures["photo_found_1shot_by_class"]
    assert (before.value, before.target) == (0.5, None)
    assert "3.5 objects have none" in before.note
