"""Regions without labels: the folder, its marker, a real detector, and every refusal."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from mocha_pipe.data.errors import DatasetError, MochaError
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import ImageRecord
from mocha_pipe.data.unlabelled.mixing import RegionChoice
from mocha_pipe.pipeline.errors import ConfigError, StageMismatchError
from mocha_pipe.pipeline.unlabelled import load_detector, make_regions
from mocha_pipe.student.errors import StudentModelNotFoundError

CROPS = RegionChoice(crops=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures of blocks."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        blocks = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((160, 120 + number), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, tiny_detector: Path) -> Path:
    """A detector with random weights; at confidence 0 it finds things everywhere."""
    import mocha_pipe.student.environment  # noqa: F401

    # isort: split
    import torch
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel({**yaml.safe_load(tiny_detector.read_text()), "nc": 3}, verbose=False)
    model.names = {0: "mug", 1: "cup", 2: "ball"}
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save({"model": model, "ema": None, "train_args": {"imgsz": 64}}, path)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_folder_is_a_data_set_and_tells_what_it_holds(pictures: Path, tmp_path: Path) -> None:
    shutil.copy(pictures / "0.png", pictures / "again.png")
    (pictures / "bad.jpg").write_bytes(b"no picture")
    done = make_regions([pictures], tmp_path / "out", RegionChoice(crops=2, whole=True, val_share=0.3))
    assert not done.skipped
    assert done.folder == tmp_path / "out"
    told = dict(done.outputs)
    assert told.pop("unreadable") == [
        {
            "picture": str(pictures / "bad.jpg"),
            "reason": "cannot be read as an image (no known image format); replace or remove the file",
        }
    ]
    train = told.pop("train")
    assert train + told.pop("val") == 6
    assert told == {
        "data": "data.yaml", "linked": 6, "copied": 0, "duplicates": 1, "regions": 18,
        "boxes": {"whole": 6, "crops": 12},
    }  # fmt: skip
    assert len(open_source(done.path("data"), "train").records) == train
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "complete.json", "data.yaml", "images", "labels", "pictures.csv",
    ]  # fmt: skip
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"pictures", "out", ".out.mocha-pipe.lock"}


def test_equal_calls_write_equal_bytes_and_the_second_is_skipped(pictures: Path, tmp_path: Path) -> None:
    first = make_regions([pictures], tmp_path / "out", CROPS)
    before = everything(tmp_path / "out")
    (pictures / "0.png").rename(pictures / "renamed.png")
    again = make_regions([pictures], tmp_path / "out", CROPS)
    assert again.skipped
    assert again.outputs == first.outputs
    assert everything(tmp_path / "out") == before
    (pictures / "renamed.png").rename(pictures / "0.png")
    make_regions([pictures], tmp_path / "other", CROPS)
    ours = {name: content for name, content in everything(tmp_path / "other").items() if name != "complete.json"}
    assert ours.items() <= before.items()


def test_a_setting_that_decides_nothing_makes_no_other_regions(pictures: Path, tmp_path: Path) -> None:
    make_regions([pictures], tmp_path / "out", RegionChoice(whole=True))
    assert make_regions([pictures], tmp_path / "out", RegionChoice(whole=True, seed=7, confidence=0.9)).skipped


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"crops": 3}, "crops: it has 2, asked for 3"),
        ({"seed": 1}, "seed: it has 0, asked for 1"),
        ({"whole": True}, "whole: it has false, asked for true"),
        ({"val_share": 0.5}, "val_share: it has 0.05, asked for 0.5"),
    ],
)
def test_another_choice_is_refused(pictures: Path, tmp_path: Path, change: dict[str, Any], difference: str) -> None:
    out = tmp_path / "out"
    make_regions([pictures], out, CROPS)
    before = everything(out)
    with pytest.raises(StageMismatchError) as refused:
        make_regions([pictures], out, RegionChoice(**{"crops": 2, **change}))
    assert str(refused.value) == (
        f"{out} was completed with other settings ({difference}): name another folder with --out, or delete this one "
        f"with: rm -r {out}"
    )
    assert everything(out) == before


def test_other_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    make_regions([pictures], tmp_path / "out", CROPS)
    (pictures / "0.png").unlink()
    with pytest.raises(StageMismatchError, match=r"inputs.pictures: it has "):
        make_regions([pictures], tmp_path / "out", CROPS)


def test_a_strangers_folder_stays_as_it_is(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    assert refusal([pictures], out, CROPS) == (
        f"{out}: must be a new or empty folder, found something there; name another with --out"
    )
    assert everything(out) == {"precious.txt": b"mine"}


def test_a_part_that_was_killed_counts_for_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mocha_pipe.pipeline.unlabelled.write_dataset", stop)
        with pytest.raises(KeyboardInterrupt):
            make_regions([pictures], out, CROPS)
    assert not out.exists()
    assert not (tmp_path / ".out.partial").exists()
    assert not make_regions([pictures], out, CROPS).skipped


def refusal(places: list[Path], out: Path, choice: RegionChoice, error: type[MochaError] = DatasetError) -> str:
    with pytest.raises(error) as refused:
        make_regions(places, out, choice)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_source_of_boxes_must_be_named(pictures: Path, tmp_path: Path) -> None:
    assert refusal([pictures], tmp_path / "out", RegionChoice(), ConfigError) == (
        "boxes come from --detector WEIGHTS.pt, --whole, --crops N or --ground-truth, found none of these; add for "
        "example --crops 8"
    )


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_the_share_for_validation_leaves_some_for_both(pictures: Path, tmp_path: Path, share: float) -> None:
    assert refusal([pictures], tmp_path / "out", RegionChoice(crops=1, val_share=share), ConfigError) == (
        f"--val-share must be above 0 and below 1, found {share:g}; pass --val-share 0.05"
    )


@pytest.mark.parametrize("inside", [".", "regions"])
def test_nothing_is_written_among_the_pictures(pictures: Path, inside: str) -> None:
    before = everything(pictures)
    out = pictures / inside
    assert refusal([pictures], out, CROPS) == (
        f"{out}: must lie outside of the pictures' folder {pictures}, where nothing is written; name another folder "
        "with --out"
    )
    assert everything(pictures) == before


def test_ground_truth_needs_a_data_set(pictures: Path, tmp_path: Path) -> None:
    choice = RegionChoice(ground_truth=True, crops=1)
    assert refusal([pictures], tmp_path / "out", choice, ConfigError) == (
        "--ground-truth keeps the boxes of a data set, found only pictures; name its data.yaml too, or leave "
        "--ground-truth out"
    )


def test_one_picture_is_too_few(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    assert refusal([pictures / "0.png", tmp_path / "bad.jpg"], tmp_path / "out", CROPS) == (
        "a data set needs two different pictures that can be read, one to train on and one to validate on, found 1 "
        f"({tmp_path}/bad.jpg: cannot be read as an image (no known image format); replace or remove the file); "
        "name more"
    )
    assert not (tmp_path / "out").exists()


def test_no_box_at_all_is_refused(pictures: Path, tmp_path: Path, weights: Path) -> None:
    choice = RegionChoice(detector=weights, confidence=1.0)
    assert refusal([pictures], tmp_path / "out", choice) == (
        "none of 6 pictures has a box; lower --confidence, or add --whole or --crops 8"
    )


def test_a_detector_that_is_not_there(pictures: Path, tmp_path: Path) -> None:
    choice = RegionChoice(detector=tmp_path / "nowhere.pt")
    assert refusal([pictures], tmp_path / "out", choice, StudentModelNotFoundError) == (
        f"{tmp_path}/nowhere.pt: no such file; name an existing .pt file."
    )


def test_boxes_of_a_detector(pictures: Path, tmp_path: Path, weights: Path) -> None:
    choice = RegionChoice(detector=weights, confidence=0.0, most=5, whole=True)
    done = make_regions([pictures], tmp_path / "out", choice)
    train = open_source(done.path("data"), "train")
    assert train.class_names == ("mug", "cup", "ball", "region")
    assert done.outputs["boxes"]["whole"] == 6
    assert 6 < done.outputs["boxes"]["detector"] <= 30
    for record in train.records:
        np.testing.assert_allclose(record.xyxy, np.rint(record.xyxy), atol=1e-9)
        assert record.class_ids[-1] == 3


def test_other_weights_are_another_choice(pictures: Path, tmp_path: Path, weights: Path) -> None:
    choice = RegionChoice(detector=weights, confidence=0.0)
    make_regions([pictures], tmp_path / "out", choice)
    moved = Path(shutil.copy(weights, tmp_path / "moved.pt"))
    assert make_regions([pictures], tmp_path / "out", RegionChoice(detector=moved, confidence=0.0)).skipped
    with pytest.raises(StageMismatchError, match=r"confidence: it has 0.0, asked for 0.5"):
        make_regions([pictures], tmp_path / "out", RegionChoice(detector=weights, confidence=0.5))


def test_a_picture_gets_the_same_detections_whatever_lies_beside_it(pictures: Path, weights: Path) -> None:
    _, detect = load_detector(weights, 0.0, "cpu")
    files = sorted(pictures.iterdir())
    together = detect([record(file) for file in files])
    assert len(together[0][0]) > 5
    for file, (boxes, names) in zip(files, together, strict=True):
        ((alone, own),) = detect([record(file)])
        np.testing.assert_array_equal(alone, boxes)
        assert own == names
    assert detect([]) == []


def record(file: Path) -> ImageRecord:
    width, height = Image.open(file).size
    none = np.zeros((0, 4))
    return ImageRecord(
        path=file, name=file.name, width=width, height=height, xyxy=none, class_ids=np.zeros(0, np.int64)
    )


def test_keys_stay_when_pictures_are_added(pictures: Path, tmp_path: Path, weights: Path) -> None:
    choice = RegionChoice(detector=weights, confidence=0.0, most=3, crops=2)
    few = tmp_path / "few"
    few.mkdir()
    for name in ("1.png", "4.png"):
        shutil.copy(pictures / name, few / f"other-{name}")
    made: list[dict[str, Any]] = []
    for folder in (few, pictures):
        done = make_regions([folder], tmp_path / f"{folder.name}-out", choice)
        made.append({})
        for split in ("train", "val"):
            table = RegionTable.build(open_source(done.path("data"), split))
            for image, digest in enumerate(table.image_digests):
                made[-1][digest] = table.keys[slice(*table.first_row[image : image + 2])].tolist()
    assert len(made[0]) == 2
    assert made[0].items() <= made[1].items()


def test_places_are_mixed_with_ground_truth(pictures: Path, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (labelled / kind / split).mkdir(parents=True)
        (pictures / f"{'01'[split == 'val']}.png").rename(labelled / "images" / split / "a.png")
        (labelled / "labels" / split / "a.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    data = labelled / "data.yaml"
    data.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["ball", "mug"]}))
    done = make_regions([pictures, data], tmp_path / "out", RegionChoice(ground_truth=True, crops=1))
    assert done.outputs["boxes"] == {"ground_truth": 2, "crops": 6}
    train = open_source(done.path("data"), "train")
    assert train.class_names == ("ball", "mug", "region")
    assert open_source(done.path("data"), "val").num_regions >= 2
