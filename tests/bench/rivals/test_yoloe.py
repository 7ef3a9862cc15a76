"""YOLOE through our calls against ultralytics' own, with random weights; what a name is, on boxes made by hand."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from ultralytics import YOLO, YOLOE
from ultralytics.engine.results import Results
from ultralytics.models.yolo.yoloe import YOLOEVPDetectPredictor

from bench.rivals import yoloe
from bench.rivals.yoloe import PromptedDetector, accuracies, one_box
from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, ImageRecord, PersonalBenchmark
from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.student.errors import StudentModelNotFoundError
from mocha_pipe.student.fewshot.episodes import Question, ask, source_regions

SIDE = 96
BOXES = np.array([[4.0, 8, 44, 50], [50, 40, 92, 90]])
FAINT = 1e-9  # confidence


@pytest.fixture(scope="module")
def weights(tiny_yoloe: Path) -> Path:
    """Random weights, and norms that have seen noise: without that hardly anything of an image arrives at the head."""
    torch.manual_seed(0)
    made = YOLOE(tiny_yoloe)
    network = made.model.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(4, 3, SIDE, SIDE), vpe=(torch.rand(4, 2, SIDE // 8, SIDE // 8) > 0.5).float())
    network.eval()
    for contrast in network.model[-1].cv4:
        contrast.bias.data.zero_()  # confidences near 0.5 in place of 1e-5
    path = tiny_yoloe.with_suffix(".pt")
    made.save(path)
    return path


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> ImageRecord:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    path = tmp_path_factory.mktemp("image") / "scene.png"
    Image.fromarray(pixels).save(path)
    return ImageRecord(path=path, name=path.name, width=SIDE, height=SIDE, xyxy=BOXES, class_ids=np.arange(2))


@pytest.fixture
def detector(weights: Path) -> PromptedDetector:
    return PromptedDetector(weights, image_size=SIDE, device="cpu")


def prompted_by_ultralytics(weights: Path, record: ImageRecord) -> YOLOE:
    """As its documentation does it: the boxes of one image in one call."""
    theirs, image = YOLOE(weights), str(record.path)
    theirs.predict(
        image, refer_image=image, visual_prompts={"bboxes": record.xyxy, "cls": np.arange(2)},
        predictor=YOLOEVPDetectPredictor, imgsz=SIDE, device="cpu", verbose=False,
    )  # fmt: skip
    return theirs


def test_a_prompt_is_that_of_ultralytics_own_call(
    detector: PromptedDetector, weights: Path, record: ImageRecord
) -> None:
    ours = torch.cat([detector.look(one_box(record, box)) for box in BOXES])
    theirs = prompted_by_ultralytics(weights, record).model.pe[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert (ours[0] - ours[1]).norm() > 0.01


def test_it_finds_what_ultralytics_own_call_finds(
    detector: PromptedDetector, weights: Path, record: ImageRecord
) -> None:
    detector.learn(torch.cat([detector.look(one_box(record, box)) for box in BOXES]))
    theirs = prompted_by_ultralytics(weights, record)
    (wanted,) = theirs.predict(str(record.path), imgsz=SIDE, device="cpu", verbose=False, conf=FAINT)
    found = detector.find(record, confidence=FAINT)
    assert len(set(wanted.boxes.cls.tolist())) == 2
    torch.testing.assert_close(found.boxes.data, wanted.boxes.data, rtol=1e-4, atol=1e-3)


def test_what_is_learnt_replaces_what_was(detector: PromptedDetector, record: ImageRecord) -> None:
    one, other = (detector.look(one_box(record, box)) for box in BOXES)
    detector.learn(torch.cat([one, other, one]))
    assert len(detector.find(record, confidence=FAINT).names) == 3
    detector.learn(other)
    alone = detector.find(record, confidence=FAINT)
    assert len(alone.names) == 1
    assert alone.boxes.cls.unique().tolist() == [0]


def test_nothing_is_fetched_and_no_text_is_read(
    tiny_yoloe: Path, record: ImageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked for")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setitem(sys.modules, "ultralytics.nn.text_model", None)  # an import of it fails
    monkeypatch.setattr(yoloe, "MODEL", str(tiny_yoloe))
    blank = PromptedDetector(None, image_size=SIDE, device="cpu")
    blank.learn(blank.look(one_box(record, BOXES[0])))
    assert len(blank.find(record, confidence=FAINT)) > 0


def test_size_is_the_files_or_that_of_float16_weights(
    detector: PromptedDetector, tiny_yoloe: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert detector.bytes == weights.stat().st_size
    monkeypatch.setattr(yoloe, "MODEL", str(tiny_yoloe))
    blank = PromptedDetector(None, image_size=SIDE, device="cpu")
    assert blank.bytes == 2 * sum(weight.numel() for weight in YOLOE(tiny_yoloe).model.parameters())


def test_a_plain_detector_is_refused(tiny_detector: Path, tmp_path: Path) -> None:
    YOLO(tiny_detector).save(tmp_path / "plain.pt")
    with pytest.raises(ConfigError) as refused:
        PromptedDetector(tmp_path / "plain.pt", image_size=SIDE, device="cpu")
    assert str(refused.value) == (
        f"{tmp_path}/plain.pt: --yoloe must name a YOLOE that takes visual prompts, found a DetectionModel; name "
        "weights such as yoloe-v8s-seg.pt"
    )


def test_a_yoloe_without_prompts_is_refused(weights: Path, tmp_path: Path) -> None:
    fused = YOLOE(weights)
    fused.model.model[-1].lrpc = nn.ModuleList()
    fused.save(tmp_path / "pf.pt")
    with pytest.raises(ConfigError, match="takes visual prompts, found one without prompts; name weights such as"):
        PromptedDetector(tmp_path / "pf.pt", image_size=SIDE, device="cpu")


def test_weights_that_are_not_there_are_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(StudentModelNotFoundError, match="no such file; name an existing"):
        PromptedDetector(tmp_path / "yoloe-v8s-seg.pt", image_size=SIDE, device="cpu")


class ByColour:
    """In place of a `PromptedDetector`: finds squares where they are, and names them by their colour."""

    def __init__(self, moved: float = 0.0) -> None:
        self.moved = moved
        self.learnt: list[Tensor] = []

    def look(self, record: ImageRecord) -> Tensor:
        (box,) = record.xyxy.astype(int)
        return torch.from_numpy(colour(record, box))[None]

    def learn(self, embeddings: Tensor) -> None:
        self.learnt.append(embeddings)

    def find(self, record: ImageRecord, *, confidence: float) -> Results:
        assert confidence == 0.001
        colours = np.stack([colour(record, box) for box in record.xyxy.astype(int)])
        names = torch.cdist(torch.from_numpy(colours), self.learnt[-1]).argmin(dim=1).double()
        boxes = torch.from_numpy(record.xyxy + self.moved)
        rows = torch.cat([boxes, torch.full((len(boxes), 1), 0.3, dtype=torch.double), names[:, None]], dim=1)
        # A less certain box of another name lies over each.
        others = rows.clone()
        others[:, 4:] = torch.stack([rows[:, 4] / 2, 1 - rows[:, 5]], dim=1)
        return Results(np.zeros((SIDE, SIDE, 3), np.uint8), "", {0: "a", 1: "b"}, torch.cat([others, rows]))


def colour(record: ImageRecord, box: np.ndarray) -> np.ndarray:
    left, top, right, bottom = box
    return read_image(record.path)[top:bottom, left:right].reshape(-1, 3).mean(axis=0)


@pytest.fixture(scope="module")
def benchmark_of_colours(tmp_path_factory: pytest.TempPathFactory) -> PersonalBenchmark:
    """Two objects, a reddish and a bluish square, in eight images; a little different in each."""
    folder, records = tmp_path_factory.mktemp("colours"), []
    for index in range(8):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        ids = np.array([0, 1]) if index % 2 else np.array([1, 0])
        for box, personal in zip(BOXES.astype(int), ids, strict=True):
            tint = [200 - 10 * index, 30, 20] if personal == 0 else [20, 30, 200 - 10 * index]
            pixels[box[1] : box[3], box[0] : box[2]] = tint
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        records.append(
            ImageRecord(path=path, name=path.name, width=SIDE, height=SIDE, xyxy=BOXES, class_ids=ids)
        )  # fmt: skip
    source = DetectionSource(root=folder, split="test", class_names=("red", "blue"), records=tuple(records))
    return PersonalBenchmark(name="colours", source=source, coarse_names=("square",), coarse_of=np.zeros(2, np.int64))


@pytest.fixture
def questions(benchmark_of_colours: PersonalBenchmark) -> Callable[[int], list[Question]]:
    regions = source_regions(benchmark_of_colours.source)

    def draw(shots: int) -> list[Question]:
        drawn = draw_episodes(benchmark_of_colours, episodes=3, shots=shots, reserve=shots, seed=0)
        return [ask(benchmark_of_colours, regions, episode) for episode in drawn]

    return draw


def test_the_most_certain_box_on_an_object_names_it(
    benchmark_of_colours: PersonalBenchmark, questions: Callable[[int], list[Question]]
) -> None:
    found = accuracies(ByColour(), benchmark_of_colours.source, questions(1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, [100, 100, 100])


def test_an_object_that_no_box_lies_on_has_no_name(
    benchmark_of_colours: PersonalBenchmark, questions: Callable[[int], list[Question]]
) -> None:
    found = accuracies(ByColour(moved=25), benchmark_of_colours.source, questions(1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, [0, 0, 0])


def test_several_photos_of_an_object_are_one_mean(
    benchmark_of_colours: PersonalBenchmark, questions: Callable[[int], list[Question]]
) -> None:
    detector, asked = ByColour(), questions(3)
    accuracies(detector, benchmark_of_colours.source, asked)  # type: ignore[arg-type]
    regions, records = source_regions(benchmark_of_colours.source), benchmark_of_colours.source.records
    for question, learnt in zip(asked, detector.learnt, strict=True):
        for personal in (0, 1):
            rows = question.support[question.support_personal == personal]
            shown = [colour(records[regions.image[row]], regions.xyxy[row].astype(int)) for row in rows]
            assert len(shown) == 3
            np.testing.assert_allclose(learnt[personal], np.mean(shown, axis=0))
