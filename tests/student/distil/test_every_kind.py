"""Students of every kind of detector that can be one, at their smallest: taught, kept, asked and as one file."""

from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
import ultralytics
import yaml
from PIL import Image
from ultralytics.cfg import get_cfg

from mocha_pipe.data.boxes import box_iou
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.student_files import load_student, save_student
from mocha_pipe.student.personal.graph import PersonalDetections, PersonalGraph
from mocha_pipe.student.training.arguments import find_model

SIZE, CLASSES = 64, ("mug", "boot", "ball")
KINDS = {
    "v3-tiny": ("v3/yolov3-tiny", 0.125), "v5": ("v5/yolov5", 0.125), "v6": ("v6/yolov6", 0.125),
    "v8-p2": ("v8/yolov8-p2", 0.125), "v8-p6": ("v8/yolov8-p6", 0.125), "v8-ghost": ("v8/yolov8-ghost", 0.125),
    "v9": ("v9/yolov9t", None), "v10": ("v10/yolov10n", None), "11": ("11/yolo11", 0.125), "12": ("12/yolo12", 0.25),
    "26": ("26/yolo26", 0.125),
}  # fmt: skip
"""Which model ultralytics ships, and how wide it is here; None is as it is shipped."""
MAPS = {"v3-tiny": 2, "v8-p2": 4, "v8-p6": 4}
"""How many maps enter the Detect head, where these are not three."""


@pytest.fixture
def config(kind: str, tmp_path: Path) -> str:
    name, width = KINDS[kind]
    told = yaml.safe_load((Path(ultralytics.__file__).parent / f"cfg/models/{name}.yaml").read_text(encoding="utf-8"))
    if width:
        told.pop("scales", None)
        told |= {"depth_multiple": 0.33, "width_multiple": width}
    path = tmp_path / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return find_model(str(path))


def lessons() -> dict[str, torch.Tensor]:
    """Two images with three boxes and their targets."""
    generator = torch.Generator().manual_seed(1)
    return {
        "img": torch.rand(2, 3, SIZE, SIZE, generator=generator),
        "batch_idx": torch.tensor([0.0, 1, 1]),
        "cls": torch.tensor([[0.0], [1], [2]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.6, 0.4], [0.3, 0.3, 0.4, 0.4], [0.7, 0.6, 0.3, 0.5]]),
        "rows": torch.arange(3),
        "targets": torch.randn(3, 8, generator=generator),
    }


def picture(folder: Path) -> DetectionSource:
    blocks = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = folder / "picture.png"
    Image.fromarray(blocks).resize((SIZE, SIZE), Image.Resampling.NEAREST).save(path)
    record = ImageRecord(
        path=path, name=path.name, width=SIZE, height=SIZE, xyxy=np.zeros((0, 4)), class_ids=np.zeros(0, np.int64)
    )
    return DetectionSource(root=folder, split="test", class_names=CLASSES, records=(record,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_every_kind(kind: str, config: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DistillModel(config, num_classes=3, features="deep", target_dim=8)
    model.args, model.names = get_cfg(), dict(enumerate(CLASSES))
    assert len(model.model[-1].f) == MAPS.get(kind, 3)
    loss, items = model.train().loss(lessons())
    loss.sum().backward()
    assert all(bool(torch.as_tensor(value).isfinite()) for value in items.values())
    assert items["dist_loss"] > 0
    student = load_student(save_student(model.eval(), tmp_path / "student", image_size=SIZE, meta={}))
    source = picture(tmp_path)
    found = RegionEmbedder(student, image_size=SIZE, confidence=1e-6).embed_pool(source)
    assert found.detection_embedding.shape[1] == student.embedding_dim
    graph = PersonalGraph(student, image_size=SIZE, learner="simpleshot").eval()
    pixels = np.asarray(Image.open(source.records[0].path)).transpose(2, 0, 1)[None].astype(np.float32) / 255
    mine = found.detection_embedding[:1] / np.linalg.norm(found.detection_embedding[:1])
    with torch.no_grad():
        answer = PersonalDetections(*graph(
            torch.from_numpy(pixels), torch.tensor([0.0, 0, SIZE, SIZE]), torch.from_numpy(mine), torch.zeros(1).long(),
            torch.zeros(1).long(), torch.tensor([0.99]), torch.tensor([1e-6]), torch.zeros(0, 4),
        ))  # fmt: skip
    row = box_iou(answer.boxes.clamp(0, SIZE).numpy(), found.detection_xyxy[:1])[:, 0].argmax()
    assert answer.personal[row] == 0
    assert answer.closeness[row] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("features", ["paper", "fine"])
@pytest.mark.parametrize("kind", ["v3-tiny", "v8-p2", "v8-p6"])
def test_features_are_made_of_the_maps_that_enter_the_head(kind: str, config: str, features: str) -> None:
    model = DistillModel(config, num_classes=3, features=features, target_dim=8)
    head = model.model[-1]
    assert model.translation.dims[0] == sum(branch[0].conv.in_channels for branch in head.cv2)
    model.args = get_cfg()
    assert model.train().loss(lessons())[1]["dist_loss"] > 0
