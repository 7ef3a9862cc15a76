"""The embedder against ultralytics' own predict and against plain loops over cells."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics
import yaml
from PIL import Image
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.student.network import embedder as embedder_module
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.features import GRID, RegionFeatures, feature_dims, tap
from mocha_pipe.student.network.student_files import Student, load_student
from mocha_pipe.student.network.translation import TranslationModule

SIZES = [(90, 60), (64, 64), (37, 101), (200, 80), (96, 97)]  # width, height: letterboxed at either side, odd paddings
SIZE = 96
FAMILIES = ["v8", "11", "26"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DetectionSource:
    """Five pictures of random blocks as PNG, which every library decodes alike, with up to three boxes each."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    records = []
    for index, (width, height) in enumerate(SIZES):
        blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(path)
        corners = np.sort(rng.uniform(0, 1, (index % 4, 2, 2)), axis=1).reshape(-1, 4)
        records.append(
            ImageRecord(
                path=path,
                name=path.name,
                width=width,
                height=height,
                xyxy=corners * [width, height, width, height],
                class_ids=np.zeros(len(corners), np.int64),
            )
        )
    return DetectionSource(root=folder, split="test", class_names=("thing",), records=tuple(records))


def make_detector(family: str) -> DetectionModel:
    """A tiny detector with random weights whose scores spread over 0..1."""
    folder = Path(ultralytics.__file__).parent / "cfg/models"
    config = yaml.safe_load((folder / family / f"yolo{'v8' if family == 'v8' else family}.yaml").read_text())
    del config["scales"]
    config |= {"depth_multiple": 0.33, "width_multiple": 0.0625, "max_channels": 1024, "nc": 3}
    torch.manual_seed(0)
    detector = DetectionModel(config, verbose=False)
    for layer in detector.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # statistics of all that passes, so that features are of size one
    detector.train()
    with torch.no_grad():
        for _ in range(4):
            blocks = torch.nn.functional.interpolate(torch.rand(8, 3, 8, 8), (SIZE, SIZE))
            detector(blocks)
        for part in ("cv3", "one2one_cv3"):
            for level in getattr(detector.model[-1], part, []):
                torch.nn.init.normal_(level[-1].weight, std=0.5)
                torch.nn.init.constant_(level[-1].bias, -2)
    return detector.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detector(request.param, tmp_path_factory.mktemp(request.param))


@cache
def save_detector(family: str, folder: Path) -> Path:
    torch.save({"model": make_detector(family), "ema": None, "train_args": {"imgsz": SIZE}}, folder / "student.pt")
    return folder / "student.pt"


@pytest.fixture(scope="module")
def any_student(checkpoint: Path) -> Student:
    """Of each family."""
    return load_student(checkpoint)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """Of one family, where they cannot differ."""
    return load_student(save_detector("v8", tmp_path_factory.mktemp("v8")))


def embed(student: Student, source: DetectionSource, **settings: Any):
    return RegionEmbedder(student, **({"image_size": SIZE} | settings)).embed_pool(source)


def with_translation(student: Student) -> Student:
    torch.manual_seed(1)
    translation = TranslationModule(feature_dims(student.detector, "paper"), 7)
    return replace(student, translation=translation.eval().requires_grad_(False))


def plain_mean(level: np.ndarray, xyxyn: np.ndarray) -> np.ndarray:
    """Mean of (C, H, W) inside a box, one cell at a time, each counted by its covered area."""
    height, width = level.shape[1:]
    x1, y1, x2, y2 = xyxyn * [width, height, width, height]
    total, area = np.zeros(level.shape[0]), 0.0
    for row in range(height):
        for column in range(width):
            covered = max(min(x2, column + 1) - max(x1, column), 0) * max(min(y2, row + 1) - max(y1, row), 0)
            total, area = total + covered * level[:, row, column], area + covered
    return total / area


def plain_letterbox(width: int, height: int) -> tuple[float, float, int, int, int, int]:
    """Gain per axis, padding left and top, size of the picture."""
    gain = min(SIZE / width, SIZE / height)
    new_width, new_height = round(width * gain), round(height * gain)
    left, top = round((SIZE - new_width) / 2 - 0.1), round((SIZE - new_height) / 2 - 0.1)
    return new_width / width, new_height / height, left, top, new_width, new_height


def test_boxes_and_scores_equal_ultralytics_predict(
    checkpoint: Path, any_student: Student, source: DetectionSource
) -> None:
    confidence = 0.4
    pool_pass = embed(any_student, source, confidence=confidence)
    results = YOLO(checkpoint).predict(
        [str(record.path) for record in source.records],
        imgsz=SIZE, conf=confidence, rect=False, batch=1, device="cpu", verbose=False,
    )  # fmt: skip
    assert len(pool_pass.detection_image) > 20
    for image, result in enumerate(results):
        here = pool_pass.detection_image == image
        np.testing.assert_allclose(pool_pass.detection_xyxy[here], result.boxes.xyxy.numpy(), atol=1e-3)
        np.testing.assert_allclose(pool_pass.detection_score[here], result.boxes.conf.numpy(), atol=1e-3)
        np.testing.assert_array_equal(pool_pass.detection_coarse[here], result.boxes.cls.numpy())


def test_embeddings_equal_loops_over_cells(any_student: Student, source: DetectionSource) -> None:
    student = any_student
    assert student.features == "paper"
    pool_pass = embed(student, source, confidence=0.4)
    row = compared = 0
    for image, record in enumerate(source.records):
        gain_x, gain_y, left, top, new_width, new_height = plain_letterbox(record.width, record.height)
        canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
        picture = student_resize(read_image(record.path), new_width, new_height)
        canvas[top : top + new_height, left : left + new_width] = picture
        with torch.no_grad(), tap(student.detector, student.features) as maps:
            student.detector(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255)
        found = np.flatnonzero(pool_pass.detection_image == image)
        boxes = [*pool_pass.detection_xyxy[found], *record.xyxy]
        rows = range(row, row + len(record.xyxy))
        row += len(record.xyxy)
        embeddings = [*pool_pass.detection_embedding[found], *pool_pass.region_embedding[rows]]
        for box, embedding in zip(boxes, embeddings, strict=True):
            if (box[2:] - box[:2]).min() < 1:
                continue  # an untrained detector also finds things in the padding; clipped, they have no area
            shares = (box * [gain_x, gain_y, gain_x, gain_y] + [left, top, left, top]) / SIZE
            expected = np.concatenate([plain_mean(level[0].numpy(), shares) for level in maps.pyramid])
            np.testing.assert_allclose(embedding, expected, atol=2e-4)
            compared += 1
    assert row == len(pool_pass.region_embedding) == source.num_regions
    assert compared > 20


def student_resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def test_translation_follows_the_pooling(student: Student, source: DetectionSource) -> None:
    translating = with_translation(student)
    raw, translated = embed(student, source), embed(translating, source)
    np.testing.assert_array_equal(raw.detection_xyxy, translated.detection_xyxy)
    for before, after in (
        (raw.detection_embedding, translated.detection_embedding),
        (raw.region_embedding, translated.region_embedding),
    ):
        features = RegionFeatures(torch.from_numpy(before), torch.zeros(len(before), 0, GRID, GRID))
        expected = translating.translation(features).numpy()
        np.testing.assert_allclose(after, expected, atol=1e-4)
        assert after.shape == (len(before), 7)


def one_image_at_a_time(embedder: RegionEmbedder) -> RegionEmbedder:
    """Layers see single images only, since a kernel for another batch size rounds differently."""

    def split(forward: Any) -> Any:
        def run(given: Any) -> torch.Tensor:
            levels = [given] if isinstance(given, torch.Tensor) else given
            singles = [[level[i : i + 1] for level in levels] for i in range(len(levels[0]))]
            answers = [forward(one[0] if isinstance(given, torch.Tensor) else one) for one in singles]
            return torch.cat([answer[0] if isinstance(answer, tuple) else answer for answer in answers])

        return run

    for layer in embedder.detector.model:
        layer.forward = split(layer.forward)
    return embedder


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_equals_single_images(any_student: Student, source: DetectionSource, batch: int) -> None:
    expected, found = (
        one_image_at_a_time(RegionEmbedder(any_student, image_size=SIZE, batch=size)).embed_pool(source)
        for size in (16, batch)
    )
    for name in ("detection_image", "detection_xyxy", "detection_score", "detection_coarse"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("detection_embedding", "region_embedding"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4)


def test_repeats_bitwise_and_leaves_the_student_as_it_was(source: DetectionSource, tmp_path: Path) -> None:
    student = load_student(save_detector("11", tmp_path))  # one that no other test has seen
    before = {name: value.clone() for name, value in student.detector.state_dict().items()}
    first, second = embed(student, source), embed(student, source)
    for name in first.__dataclass_fields__:
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    after = student.detector.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in student.detector.modules())


def test_the_head_with_nms_answers_whatever_the_checkpoint_selects(source: DetectionSource, tmp_path: Path) -> None:
    student = load_student(save_detector("26", tmp_path))
    detector = deepcopy(student.detector)
    detector.end2end = True
    expected, found = embed(student, source), embed(replace(student, detector=detector), source)
    assert expected.detection_score.tobytes() == found.detection_score.tobytes()


def test_workers_and_small_portions_change_nothing(
    student: Student, source: DetectionSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embed(student, source, batch=2)
    monkeypatch.setattr(embedder_module, "_BOXES_AT_ONCE", 3)
    monkeypatch.setattr(embedder_module, "_num_workers", lambda device: 2)
    found = embed(student, source, batch=2)
    for name in expected.__dataclass_fields__:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4)


def test_a_box_over_the_padding_is_clipped_to_the_picture(student: Student, source: DetectionSource) -> None:
    wide = source.records[3]  # 200 x 80: padded above and below
    inside = np.array([[0.0, 0.0, wide.width, wide.height]])
    beyond = inside + np.array([-500, -500, 500, 500])
    passes = [
        embed(student, replace(source, records=(replace(wide, xyxy=xyxy, class_ids=np.zeros(1, np.int64)),)))
        for xyxy in (inside, beyond)
    ]
    assert passes[0].region_embedding.tobytes() == passes[1].region_embedding.tobytes()


def test_nothing_found_leaves_empty_arrays(student: Student, source: DetectionSource) -> None:
    pool_pass = embed(student, source, confidence=1.0)
    assert pool_pass.detection_embedding.shape == (0, student.embedding_dim)
    assert pool_pass.detection_xyxy.shape == (0, 4)
    bare = replace(source, records=source.records[:1])  # an image without boxes
    assert embed(student, bare, confidence=1.0).region_embedding.shape == (0, student.embedding_dim)


def test_types_and_order(student: Student, source: DetectionSource) -> None:
    pool_pass = embed(student, source)
    assert (np.diff(pool_pass.detection_image) >= 0).all()
    assert {name: getattr(pool_pass, name).dtype for name in pool_pass.__dataclass_fields__} == {
        "detection_image": np.int64,
        "detection_xyxy": np.float32,
        "detection_score": np.float32,
        "detection_coarse": np.int64,
        "detection_embedding": np.float32,
        "region_embedding": np.float32,
    }


def test_the_image_size_is_rounded_up_to_the_stride(student: Student) -> None:
    assert RegionEmbedder(student, image_size=70).image_size == 96
    assert RegionEmbedder(student, image_size=96).image_size == 96


def test_the_bar_shows_only_on_request(
    student: Student, source: DetectionSource, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = RegionEmbedder(student, image_size=SIZE)
    runner.embed_pool(source)
    assert capsys.readouterr().err == ""
    runner.embed_pool(source, progress=True)
    assert "embedding scenes: 100%" in capsys.readouterr().err
