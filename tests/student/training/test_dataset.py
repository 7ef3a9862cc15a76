"""Region rows stay with their boxes: read back from the pixels after every augmentation."""

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.utils.torch_utils import init_seeds

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.training.dataset import NO_TARGET, RegionDataset, pack, unpack

WARPS = ("scale", "translate", "degrees", "shear", "perspective", "fliplr", "flipud")
MIXES = ("mosaic", "mixup", "cutmix", "copy_paste")
NO_AUGMENTATION = dict.fromkeys((*WARPS, *MIXES, "hsv_h", "hsv_s", "hsv_v"), 0.0)
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "letterbox": {},
    "flips": {"fliplr": 1.0, "flipud": 1.0},
    "warp": {"degrees": 30, "shear": 15, "scale": 0.5, "translate": 0.2, "perspective": 0.0005},
    "mosaic": {"mosaic": 1.0},
    "cutmix": {"cutmix": 1.0},
    "together": {
        "mosaic": 0.7,
        "cutmix": 0.5,
        "scale": 0.4,
        "translate": 0.1,
        "degrees": 20,
        "shear": 10,
        "fliplr": 0.5,
    },
}


def make_dataset(source: DetectionSource, rows: Any, targets: Any = None, **arguments: Any) -> RegionDataset:
    augmentations = {name: arguments.pop(name) for name in list(arguments) if name in NO_AUGMENTATION}
    hyp = get_cfg(overrides=NO_AUGMENTATION | augmentations)
    options = {"imgsz": 64, "batch_size": 8, "augment": True, "hyp": hyp, "task": "detect", **arguments}
    names = dict(enumerate(source.class_names))
    data = {"names": names, "nc": len(names), "channels": 3}
    return RegionDataset(source, first_row=rows, targets=targets, data=data, **options)


def colours_in_box(image: torch.Tensor, xywhn: torch.Tensor, decode: Any) -> set[int]:
    """Rows whose colours are inside a box of a (3, H, W) image."""
    pixels = image.numpy().transpose(1, 2, 0)
    height, width = pixels.shape[:2]
    cx, cy, w, h = xywhn.tolist()
    x1, x2 = np.clip([np.floor((cx - w / 2) * width), np.ceil((cx + w / 2) * width)], 0, width).astype(int)
    y1, y2 = np.clip([np.floor((cy - h / 2) * height), np.ceil((cy + h / 2) * height)], 0, height).astype(int)
    return set(np.unique(decode(pixels[y1:y2, x1:x2])).tolist())


def read_back(dataset: RegionDataset, decode: Any) -> list[tuple[int, int, set[int]]]:
    """Row, class id and rows seen in the pixels, for every box of two passes under one seed."""
    init_seeds(11)
    return [
        (int(row), int(class_id), colours_in_box(sample["img"], box, decode))
        for sample in (dataset[index] for _ in range(2) for index in range(len(dataset)))
        for row, class_id, box in zip(sample["rows"], sample["cls"], sample["bboxes"], strict=True)
    ]


def share_of_own_and_other(found: list[tuple[int, int, set[int]]], num_rows: int) -> tuple[float, float]:
    """How many boxes show the colour of their row, and how many that of an unrelated one."""
    own = sum(row in seen for row, _, seen in found)
    other = sum((row + num_rows // 2) % num_rows in seen for row, _, seen in found)
    return own / len(found), other / len(found)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_rows_are_read_back_from_the_pixels(name: str, train_source: DetectionSource, helpers: Any) -> None:
    dataset = make_dataset(train_source, helpers.first_rows(train_source), **AUGMENTATIONS[name])
    found = read_back(dataset, helpers.row_of_colour)
    own, other = share_of_own_and_other(found, train_source.num_regions)
    classes = np.concatenate([record.class_ids for record in train_source.records])
    assert len(found) > 40
    assert own >= 0.98
    assert other < 0.15
    assert all(class_id == classes[row] for row, class_id, _ in found)


def test_mixup_keeps_the_rows_of_both_images(
    train_source: DetectionSource, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At ratio 1 the pixels are the first image's, at ratio 0 the second's; the boxes are those of both."""
    passes = []
    for ratio in (0.0, 1.0):
        dataset = make_dataset(train_source, helpers.first_rows(train_source), mixup=1.0, mosaic=0.5)
        monkeypatch.setattr("numpy.random.beta", lambda *_, value=ratio: value)
        passes.append(read_back(dataset, helpers.row_of_colour))
    assert [box[:2] for box in passes[0]] == [box[:2] for box in passes[1]]
    both = [(row, class_id, seen | other[2]) for (row, class_id, seen), other in zip(*passes, strict=True)]
    assert share_of_own_and_other(both, train_source.num_regions)[0] >= 0.98
    assert all(0.2 < share_of_own_and_other(found, train_source.num_regions)[0] < 0.8 for found in passes)


def test_rows_of_other_boxes_would_be_noticed(train_source: DetectionSource, helpers: Any) -> None:
    dataset = make_dataset(train_source, helpers.first_rows(train_source), mosaic=1.0)
    for label in dataset.labels:
        label["rows"] = (label["rows"] + 1) % train_source.num_regions
    own, _ = share_of_own_and_other(read_back(dataset, helpers.row_of_colour), train_source.num_regions)
    assert own < 0.5


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(-1, 2**32), max_size=5), class_id=st.integers(0, 2**20 - 1))
def test_packing_is_exact_also_as_float64(rows: list[int], class_id: int) -> None:
    codes = pack(np.array(rows, dtype=np.int64), np.full(len(rows), class_id, dtype=np.float32))
    for form in (codes, codes.astype(np.float64)):
        unpacked, classes = unpack(form)
        assert unpacked.tolist() == rows
        assert classes.tolist() == [class_id] * len(rows)


def test_a_batch_carries_the_targets_of_its_boxes(
    train_source: DetectionSource, make_targets: Any, helpers: Any
) -> None:
    targets = make_targets(train_source)
    dataset = make_dataset(train_source, helpers.first_rows(train_source), targets, mosaic=1.0)
    batch = dataset.collate_fn([dataset[index] for index in range(8)])
    assert batch["rows"].dtype == torch.int64
    assert batch["targets"].dtype == torch.float32
    assert len(batch["rows"]) == len(batch["bboxes"]) > 8
    assert torch.equal(batch["targets"], torch.from_numpy(targets.values)[batch["rows"]])
    assert targets.asked == batch["rows"].tolist()
    assert batch["batch_idx"].diff().min() >= 0


def test_a_batch_of_empty_images_has_no_targets(train_source: DetectionSource, make_targets: Any, helpers: Any) -> None:
    targets = make_targets(train_source)
    dataset = make_dataset(train_source, helpers.first_rows(train_source), targets)
    batch = dataset.collate_fn([dataset[7], dataset[15]])
    assert batch["rows"].shape == (0,)
    assert batch["targets"].shape == (0, 8)
    assert targets.asked == []


def test_without_rows_no_box_has_a_target(train_source: DetectionSource, make_targets: Any) -> None:
    targets = make_targets(train_source)
    batch = (dataset := make_dataset(train_source, None, targets)).collate_fn([dataset[0], dataset[1]])
    assert set(batch["rows"].tolist()) == {NO_TARGET}
    assert not batch["targets"].any()
    plain = (dataset := make_dataset(train_source, None)).collate_fn([dataset[0], dataset[1]])
    assert dataset.left_out() == [], "none of it was to have a target"
    assert "rows" not in plain
    assert "targets" not in plain


def test_filtering_classes_keeps_rows_with_their_boxes(train_source: DetectionSource, helpers: Any) -> None:
    dataset = make_dataset(train_source, helpers.first_rows(train_source), classes=[2])
    classes = np.concatenate([record.class_ids for record in train_source.records])
    rows = np.concatenate([label["rows"] for label in dataset.labels])
    assert rows.ravel().tolist() == np.flatnonzero(classes == 2).tolist()


@pytest.mark.parametrize(("fraction", "images"), [(1.0, 16), (0.5, 8), (3, 3)])
def test_fraction_takes_the_first_images(train_source: DetectionSource, fraction: float, images: int) -> None:
    dataset = make_dataset(train_source, None, fraction=fraction)
    assert dataset.im_files == [str(record.path) for record in train_source.records[:images]]


def test_rectangular_batches_keep_rows_with_their_images(train_source: DetectionSource, helpers: Any) -> None:
    first_row = helpers.first_rows(train_source)
    dataset = make_dataset(train_source, first_row, augment=False, rect=True)
    for label, path in zip(dataset.labels, dataset.im_files, strict=True):
        index = int(Path(path).stem)
        assert label["rows"].ravel().tolist() == list(range(first_row[index], first_row[index + 1]))


def test_nothing_is_written_beside_the_images(train_source: DetectionSource, helpers: Any) -> None:
    dataset = make_dataset(train_source, helpers.first_rows(train_source), mosaic=1.0)
    assert dataset[0]["img"].shape == (3, 64, 64)
    assert {path.suffix for path in train_source.root.rglob("*") if path.is_file()} == {".png"}


def test_boxes_become_shares_of_the_image(train_source: DetectionSource) -> None:
    sample = make_dataset(train_source, None, augment=False)[0]
    xyxy = train_source.records[0].xyxy / 64
    expected = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    np.testing.assert_allclose(sample["bboxes"].numpy(), expected, atol=1e-6)


def test_travels_to_loader_workers(train_source: DetectionSource, make_targets: Any, helpers: Any) -> None:
    dataset = make_dataset(train_source, helpers.first_rows(train_source), make_targets(train_source), mosaic=1.0)
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=1, collate_fn=dataset.collate_fn)
    batch = next(iter(loader))
    assert torch.equal(batch["targets"], torch.from_numpy(dataset.targets.values)[batch["rows"]])
    assert pickle.dumps(dataset.source)


# --- without a target, without pixels ---------------------------------------------------------------------------------


def without_targets(targets: Any, rows: Any) -> Any:
    """The same targets, some of them set aside as a cache does it."""
    values = targets.values.copy()
    values[rows] = np.nan
    return type(targets)(values)


def without_target(count: int, boxes: int) -> str:
    return f"{count} of {boxes} regions have no target, set aside by the teacher cache; they count for detection only"


def copy_images(source: DetectionSource, folder: Path) -> DetectionSource:
    """The same scenes in files of the test's own."""
    folder.mkdir()
    records = [
        replace(record, path=Path(shutil.copy(record.path, folder / record.path.name))) for record in source.records
    ]
    return replace(source, root=folder, records=tuple(records))


def with_records(source: DetectionSource, indices: list[int], **changes: Any) -> DetectionSource:
    records = [
        replace(record, **changes) if index in indices else record for index, record in enumerate(source.records)
    ]
    return replace(source, records=tuple(records))


def test_regions_that_were_set_aside_carry_no_target(
    train_source: DetectionSource, make_targets: Any, helpers: Any
) -> None:
    first_row, aside = helpers.first_rows(train_source), [0, 1, 9]
    targets = without_targets(make_targets(train_source), aside)
    dataset = make_dataset(train_source, first_row, targets, mosaic=1.0)
    rows = np.concatenate([label["rows"].ravel() for label in dataset.labels])
    expected = np.arange(train_source.num_regions)
    assert rows.tolist() == [NO_TARGET if row in aside else row for row in expected.tolist()]
    for _ in range(3):
        batch = dataset.collate_fn([dataset[index] for index in range(16)])
        has_target = batch["rows"] >= 0
        assert NO_TARGET in batch["rows"].tolist()
        assert batch["targets"].isfinite().all()
        assert not batch["targets"][~has_target].any()
        assert torch.equal(batch["targets"][has_target], torch.from_numpy(targets.values)[batch["rows"][has_target]])
    assert not set(targets.asked) & set(aside)


def test_a_box_without_a_target_is_still_detected(
    train_source: DetectionSource, make_targets: Any, helpers: Any
) -> None:
    targets = make_targets(train_source)
    plain = make_dataset(train_source, helpers.first_rows(train_source), targets)
    some = make_dataset(train_source, helpers.first_rows(train_source), without_targets(targets, [0, 2, 3]))
    for index in range(16):
        for name in ("bboxes", "cls", "img"):
            assert torch.equal(plain[index][name], some[index][name])


def test_the_loss_is_that_of_a_batch_without_the_regions_set_aside(
    train_source: DetectionSource, make_targets: Any, helpers: Any, tiny_models: dict[str, str]
) -> None:
    """The distillation terms equal those of a batch from which these boxes were removed, detection's those of all."""
    torch.manual_seed(0)
    model = DistillModel(tiny_models["v8"], num_classes=3, features="fine", target_dim=8).eval()
    model.args = get_cfg()
    first_row, aside = helpers.first_rows(train_source), [0, 3, 4, 10]
    targets = make_targets(train_source)

    def batch_of(some: Any) -> dict[str, Any]:
        dataset = make_dataset(train_source, first_row, some)
        batch: dict[str, Any] = dataset.collate_fn([dataset[index] for index in range(8)])
        return {**batch, "img": batch["img"].float() / 255}

    batch, whole = batch_of(without_targets(targets, aside)), batch_of(targets)
    kept = ~torch.isin(whole["rows"], torch.tensor(aside))
    assert 2 < kept.sum() < len(kept)
    per_box = ("batch_idx", "cls", "bboxes", "rows", "targets")
    removed = {name: value[kept] if name in per_box else value for name, value in whole.items()}
    loss, items = model.loss(batch)
    _, without = model.loss(removed)
    all_loss, with_all = model.loss(whole)
    for name in ("dist_loss", "emb_loss"):
        assert items[name] == without[name] != with_all[name]
    for name in ("box_loss", "cls_loss", "dfl_loss"):
        assert items[name] == with_all[name]
    assert loss.isfinite().all()
    assert torch.equal(loss[:3], all_loss[:3])


def test_a_batch_without_any_target_trains_detection(
    train_source: DetectionSource, make_targets: Any, helpers: Any
) -> None:
    rows = np.arange(train_source.num_regions)
    targets = without_targets(make_targets(train_source), rows)
    dataset = make_dataset(train_source, helpers.first_rows(train_source), targets)
    batch = dataset.collate_fn([dataset[index] for index in range(16)])
    assert set(batch["rows"].tolist()) == {NO_TARGET}
    assert not batch["targets"].any()
    assert targets.asked == []
    assert len(dataset) == 16
    assert dataset.left_out() == [without_target(train_source.num_regions, train_source.num_regions)]


def test_images_that_cannot_be_decoded_are_left_out(
    train_source: DetectionSource, make_targets: Any, helpers: Any, tmp_path: Path
) -> None:
    first_row = helpers.first_rows(train_source)
    source = copy_images(train_source, tmp_path / "scenes")
    for index in (0, 5):
        source.records[index].path.write_bytes(b"no picture")
    source = with_records(source, [0, 5], readable=False, width=1, height=1)
    dataset = make_dataset(source, first_row, make_targets(source), mosaic=1.0)
    kept = [index for index in range(16) if index not in (0, 5)]
    assert dataset.im_files == [str(source.records[index].path) for index in kept]
    assert len(dataset) == 14
    assert dataset.left_out() == ["2 of 16 images cannot be decoded and are left out"]
    for label, index in zip(dataset.labels, kept, strict=True):
        assert label["rows"].ravel().tolist() == list(range(first_row[index], first_row[index + 1]))
    found = read_back(dataset, helpers.row_of_colour)
    assert share_of_own_and_other(found, source.num_regions)[0] >= 0.98
    lost = {*range(first_row[0], first_row[1]), *range(first_row[5], first_row[6])}
    assert not {row for row, *_ in found} & lost


def test_an_image_whose_header_alone_is_sound_is_left_out_with_its_regions(
    train_source: DetectionSource, make_targets: Any, helpers: Any, tmp_path: Path
) -> None:
    """The cache found out when it decoded it, and set all its regions aside."""
    first_row = helpers.first_rows(train_source)
    source = copy_images(train_source, tmp_path / "scenes")
    path = source.records[3].path
    path.write_bytes(path.read_bytes()[:60])
    lost, sound = np.arange(first_row[3], first_row[4]), np.arange(first_row[4], first_row[5])
    targets = without_targets(make_targets(source), [*lost, *sound, first_row[6]])
    dataset = make_dataset(source, first_row, targets)
    assert str(path) not in dataset.im_files
    assert str(source.records[4].path) in dataset.im_files  # set aside for another reason: its pixels are fine
    assert len(dataset) == 15
    assert dataset.left_out() == [
        without_target(len(sound) + 1, source.num_regions - len(lost)),
        "1 of 16 images cannot be decoded and are left out",
    ]
    batch = dataset.collate_fn([dataset[index] for index in range(15)])
    assert batch["img"].shape[0] == 15


def test_only_images_without_any_target_are_tried(
    train_source: DetectionSource, make_targets: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_row, tried = helpers.first_rows(train_source), []
    monkeypatch.setattr("mocha_pipe.student.training.dataset.is_decodable", lambda path: not tried.append(path))
    targets = make_targets(train_source)
    make_dataset(train_source, first_row, targets)
    assert tried == []
    rows = [*range(first_row[2], first_row[3]), first_row[4]]
    assert first_row[5] - first_row[4] > 1
    make_dataset(train_source, first_row, without_targets(targets, rows))
    assert tried == [train_source.records[2].path]


def test_a_fraction_is_one_of_the_images_that_can_be_read(train_source: DetectionSource) -> None:
    source = with_records(train_source, [0, 1, 2, 3], readable=False)
    dataset = make_dataset(source, None, fraction=0.5)
    assert dataset.im_files == [str(record.path) for record in source.records[4:10]]
    assert dataset.left_out() == ["4 of 16 images cannot be decoded and are left out"]


def test_validation_leaves_out_what_it_cannot_decode(train_source: DetectionSource) -> None:
    dataset = make_dataset(with_records(train_source, [15], readable=False), None, augment=False, rect=True)
    assert len(dataset) == 15
    assert dataset.left_out() == ["1 of 16 images cannot be decoded and are left out"]
    assert len(dataset[14]["img"]) == 3


# --- what lies beside the images --------------------------------------------------------------------------------------


def one_white_picture(folder: Path, source: DetectionSource) -> DetectionSource:
    """The first image of a source, white, in a folder of its own."""
    path = folder / "white.png"
    Image.new("RGB", (64, 64), "white").save(path)
    return replace(source, root=folder, records=(replace(source.records[0], path=path),))


def brightness(dataset: RegionDataset) -> int:
    return int(dataset.load_image(0)[0].max())


@pytest.mark.parametrize("cache", [None, "disk"])
def test_pixels_of_another_time_beside_an_image_are_not_taken(
    train_source: DetectionSource, tmp_path: Path, cache: str | None
) -> None:
    source = one_white_picture(tmp_path, train_source)
    stale = tmp_path / "white.npy"
    np.save(stale, np.zeros((64, 64, 3), np.uint8))
    os.utime(source.records[0].path, (0, 0))  # as a copy that keeps dates leaves it
    before = stale.read_bytes()
    dataset = make_dataset(source, None, cache=cache, decoded=tmp_path / "own", augment=False)
    assert brightness(dataset) == 255
    assert stale.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["white.npy", "white.png"]


def test_images_decoded_on_the_disk_are_those_of_the_files_content(
    train_source: DetectionSource, tmp_path: Path
) -> None:
    source = one_white_picture(tmp_path, train_source)
    first = make_dataset(source, None, cache="disk", decoded=tmp_path / "own", augment=False)
    (kept,) = (tmp_path / "own").iterdir()
    np.save(kept, np.full((64, 64, 3), 7, np.uint8))
    assert brightness(first) == 7, "what was kept is read"
    Image.new("RGB", (64, 64), (90, 90, 90)).save(source.records[0].path)
    os.utime(source.records[0].path, (0, 0))
    assert brightness(make_dataset(source, None, cache="disk", decoded=tmp_path / "own", augment=False)) == 90


def test_a_disk_that_is_too_small_keeps_nothing(
    train_source: DetectionSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1, used=1, free=0))
    source = one_white_picture(tmp_path, train_source)
    dataset = make_dataset(source, None, cache="disk", decoded=tmp_path / "own", augment=False)
    assert (dataset.cache, brightness(dataset)) == (None, 255)
    assert not list((tmp_path / "own").iterdir())


def test_boxes_with_targets_keep_their_colours_where_albumentations_is_installed(
    train_source: DetectionSource, helpers: Any, make_targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "ultralytics.data.augment.Albumentations", lambda **given: asked.append(given["transforms"]) or (lambda x: x)
    )
    make_dataset(train_source, helpers.first_rows(train_source), make_targets(train_source))
    make_dataset(train_source, helpers.first_rows(train_source))
    assert asked == [[], None]
