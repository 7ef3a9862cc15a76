"""What the rivals do when they are timed, with random weights, and how turns are taken."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
from ultralytics import YOLO

from bench import timing
from bench.inputs import BenchInputs, shipped_teacher
from bench.personal.random_student import make_student
from bench.rivals import contestants, yoloe
from bench.rivals.contestants import (
    BASE_GALLERY,
    OURS,
    STUDENT_GALLERY,
    YOLOE,
    Contestant,
    Race,
    milliseconds,
)
from bench.rivals.yoloe import one_box
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.pipeline.run.inputs import MINIATURE_TEACHER, teacher_config
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

SIDE, OBJECTS, WIDTH = 64, 5, 16


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory, inputs: BenchInputs, tiny_detector: Path) -> Race:
    """Objects of two classes, which the base detector counts the other way round."""
    folder, names = tmp_path_factory.mktemp("rivals"), inputs.source.class_names
    make_student(folder / "student", str(tiny_detector), class_names=names, width=WIDTH)
    make_student(folder / "base", str(tiny_detector), class_names=[names[1], names[0], *names[2:]], width=WIDTH)
    records = [record for record in inputs.source.records if len(record.xyxy)][: OBJECTS + 1]
    classes = np.array([0, 0, 1, 1, 1])
    return Race(
        student=folder / "student", base=folder / "base" / "student.pt",
        teacher=teacher_config(TeacherConfig(model=MINIATURE_TEACHER, device="cpu")), yoloe=None,
        lessons=[one_box(record, record.xyxy[0]) for record in records[:OBJECTS]],
        coarse_of={OURS: classes, STUDENT_GALLERY: classes, BASE_GALLERY: 1 - classes},
        images=records, image_size=SIDE, rounds=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def without_teacher(race: Race, tiny_yoloe: Path) -> dict[str, Contestant]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yoloe, "MODEL", str(tiny_yoloe))
        return contestants.contestants(replace(race, teacher=None))


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are sure of nothing."""
    monkeypatch.setattr(contestants, "CONFIDENCE", 1e-6)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("name", [OURS, BASE_GALLERY])
def test_whatever_is_detected_gets_the_nearest_objects_name(race: Race, name: str) -> None:
    weights = race.base if name == BASE_GALLERY else race.student
    rival = contestants._region_names(race, weights, name, "conditional")
    (found,) = rival.find(race.images[0])  # type: ignore[misc]
    kinds = race.coarse_of[name]
    np.testing.assert_array_equal(found.is_personal.numpy(), np.isin(found.coarse.numpy(), kinds))
    assert found.is_personal.any()
    named = found[found.is_personal]
    personal = named.boxes.cls.long().numpy() - len(load_student(weights).class_names)
    np.testing.assert_array_equal(kinds[personal], named.coarse.numpy())


def test_ours_is_the_product_and_the_others_are_galleries_of_their_own_features(
    race: Race, without_teacher: dict[str, Contestant]
) -> None:
    profiles = {name: without_teacher[name].enrol(race.lessons[0]) for name in (OURS, STUDENT_GALLERY, BASE_GALLERY)}
    found = {name: (p.learner.name, p.learner.prototypes_.shape[1]) for name, p in profiles.items()}  # type: ignore[attr-defined]
    base_width = load_student(race.base).embedding_dim
    assert base_width != WIDTH
    assert found == {
        OURS: ("conditional", WIDTH), STUDENT_GALLERY: ("gallery", WIDTH), BASE_GALLERY: ("gallery", base_width),
    }  # fmt: skip


@pytest.mark.parametrize("name", [OURS, BASE_GALLERY])
def test_enrolling_adds_the_object_in_the_box(race: Race, name: str) -> None:
    weights = race.base if name == BASE_GALLERY else race.student
    rival = contestants._region_names(race, weights, name, "conditional")
    record = one_box(race.images[OBJECTS], race.images[OBJECTS].xyxy[-1])
    profile = rival.enrol(record)
    source = DetectionSource(root=Path(), split="", class_names=(), records=(record,))
    wanted = RegionEmbedder(load_student(weights), image_size=SIDE).embed_pool(source).region_embedding[0]
    assert len(profile.names) == OBJECTS + 1  # type: ignore[attr-defined]
    learner = profile.learner  # type: ignore[attr-defined]
    row = np.flatnonzero(learner.personal_ == OBJECTS)
    np.testing.assert_allclose(learner.prototypes_[row], wanted[None], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("everything")
def test_clip_names_crops_of_the_base_detectors_boxes(race: Race) -> None:
    assert race.teacher is not None
    rival, teacher, record = contestants._crop_names(race, race.teacher), shipped_teacher(), race.images[OBJECTS]

    def look(seen: ImageRecord, box: np.ndarray) -> np.ndarray:
        crop = cut_crop(read_image(seen.path), box, teacher.spec.crop_margin, teacher.spec.crop_size)
        vector = teacher.embed([crop], ["mug"]).visual[0]
        return vector / np.linalg.norm(vector)

    known = np.stack([look(lesson, lesson.xyxy[0]) for lesson in race.lessons])
    names: set[int] = set()
    for image in race.images[:3]:
        (detected,) = YOLO(race.base).predict(str(image.path), conf=1e-6, imgsz=SIDE, device="cpu", verbose=False)
        wanted = [int((known @ look(image, box)).argmax()) for box in detected.boxes.xyxy.numpy()]
        assert rival.find(image).tolist() == wanted  # type: ignore[attr-defined]
        names |= {*wanted}
    assert len(names) > 2
    more = rival.enrol(one_box(record, record.xyxy[0]))
    np.testing.assert_allclose(more.prototypes_.sum(0), known.sum(0) + look(record, record.xyxy[0]), atol=1e-4)  # type: ignore[attr-defined]


def test_clip_without_detections_names_nothing(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants, "CONFIDENCE", 1.0)
    assert race.teacher is not None
    assert len(contestants._crop_names(race, race.teacher).find(race.images[0])) == 0  # type: ignore[arg-type]


def test_yoloe_takes_the_other_objects_along(race: Race, tiny_yoloe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yoloe, "MODEL", str(tiny_yoloe))
    rival = contestants._prompts(race)
    assert len(rival.find(race.images[0]).names) == OBJECTS  # type: ignore[attr-defined]
    rival.enrol(one_box(race.images[0], race.images[0].xyxy[0]))
    assert len(rival.find(race.images[0]).names) == OBJECTS + 1  # type: ignore[attr-defined]


def test_clip_is_left_out_without_its_teacher(without_teacher: dict[str, Contestant]) -> None:
    assert list(without_teacher) == [OURS, STUDENT_GALLERY, BASE_GALLERY, YOLOE]


def test_every_call_sees_every_record_and_all_take_the_first_turn(race: Race) -> None:
    seen: list[tuple[str, int]] = []
    place = {id(record): index for index, record in enumerate(race.images)}
    calls = {name: lambda record, name=name: seen.append((name, place[id(record)])) for name in "abc"}
    torch.set_num_threads(2)
    milliseconds(calls, race.images[:2], 2)
    warm_up, timed = seen[:3], seen[3:]
    assert warm_up == [("a", 0), ("b", 0), ("c", 0)]
    assert timed == [
        ("a", 0), ("b", 0), ("c", 0), ("b", 1), ("c", 1), ("a", 1),
        ("c", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1), ("c", 1),
    ]  # fmt: skip
    assert torch.get_num_threads() == 1


def test_speed_is_the_median_in_milliseconds_of_processor_time(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.001, 0.001, 0.004, 0.004, 0.504])
    monkeypatch.setattr(timing, "thread_time", lambda: next(ticks))
    assert milliseconds({"a": lambda record: None}, race.images[:3], 1) == {"a": pytest.approx(3)}


def test_a_race_has_one_thread_and_times_both_deeds_of_each(race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    clock, threads = [0.0], []

    def wait(seconds: float) -> None:
        clock[0] += seconds
        threads.append(cpu_threads())

    rivals = {
        name: Contestant(enrol=lambda _, start=start: wait(start), find=lambda _, start=start: wait(start + 0.5))
        for name, start in (("a", 0.001), ("b", 0.002))
    }
    monkeypatch.setattr(contestants, "contestants", lambda asked: rivals)
    monkeypatch.setattr(timing, "thread_time", lambda: clock[0])
    found = contestants.run_race(race)
    assert {name: (round(speed.enrol, 3), round(speed.find, 3)) for name, speed in found.items()} == {
        "a": (1, 501), "b": (2, 502),
    }  # fmt: skip
    assert set(threads) == {1}
