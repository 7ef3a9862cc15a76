"""Distillation from shards at toy size: local tars train like the folder. Streams are in test_other_process.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from mocha_pipe.pipeline.run.datasets import pack_shards, training_regions
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_student
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.teacher_cache.store.cache import RegionCache

Command = Callable[..., Result]
PATTERN = "train-{000000..000003}.tar"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, finished: RunConfig) -> RunConfig:
    """The finished pipeline with shards of its world under a root of their own; its base detector is named."""
    root = tmp_path_factory.mktemp("packed")
    train, _ = pack_shards(finished, root / "shards", shard_mb=0.08)
    assert train.shards == 4
    base = finished.root / "base/train/weights/best.pt"
    return replace(finished, root=root, distill=replace(finished.distill, student=str(base)))


def from_shards(config: RunConfig, name: str, **data: object) -> RunConfig:
    root = config.root
    return replace(
        config,
        root=root / name,
        data=replace(config.data, **data),  # type: ignore[arg-type]
        distill=replace(config.distill, folder=root / name / "distill"),
    )


def test_local_shards_train_exactly_like_the_folder(config: RunConfig, finished: RunConfig) -> None:
    done = distill_student(from_shards(config, "local", path=config.root / "shards" / PATTERN))
    runs = (done.folder, finished.root / "distill")
    found, expected = (load_student(run / "student").detector.state_dict() for run in runs)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_pattern_and_the_manifest_name_the_same_images_and_boxes(config: RunConfig) -> None:
    names = (PATTERN, "dataset.json")
    opened = [training_regions(from_shards(config, "any", path=config.root / "shards" / name)) for name in names]
    assert opened[0][1].digest == opened[1][1].digest
    assert [[record.name for record in source.records] for source, _ in opened] == [
        [record.name for record in opened[0][0].records]
    ] * 2


def test_a_cache_built_from_shards_serves_the_folder(config: RunConfig, finished: RunConfig, tmp_path: Path) -> None:
    packed = replace(
        config,
        data=replace(config.data, path=config.root / "shards/dataset.json"),
        cache=replace(config.cache, folder=tmp_path / "cache"),
    )
    build_teacher_cache(packed)
    first, second = RegionCache.open(finished.root / "cache"), RegionCache.open(tmp_path / "cache")
    assert first.table_digest == second.table_digest
    for array in ("hidden", "visual", "targets"):
        for shard in (first.path / array).glob("c.*"):
            assert (second.path / array / shard.name).read_bytes() == shard.read_bytes()


def test_a_stream_takes_one_device(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    two = from_shards(config, "two", url=f"file://{config.root}/shards/{PATTERN}")
    with pytest.raises(TrainArgumentError) as error:
        distill_student(replace(two, distill=replace(two.distill, device="0,1")))
    assert str(error.value) == (
        "A stream is trained from on one device, found device='0,1'; name one of them, or train from local shards."
    )


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ("train-{000000..000004}.tar", "train-000004.tar: there is no such shard, dataset.json lists"),
        ("val-000000.tar", "names shards of 'val', and training reads 'train'; name those, or set"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_mistakes_end_in_one_line(
    command: Command, config: RunConfig, tiny_detector: Path, tmp_path: Path, named: str, text: str, scheme: str
) -> None:
    where = ("--cache", config.cache.folder, "--root", tmp_path)
    result = command("distill", "--data", f"{scheme}{config.root}/shards/{named}", "--student", tiny_detector, *where)
    assert result.exit_code == 2
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_stream_is_not_pretrained_on(command: Command, config: RunConfig, tmp_path: Path) -> None:
    where = ("--cache", config.cache.folder, "--root", tmp_path)
    data = f"file://{config.root}/shards/train-000000.tar"
    result = command("distill", "--data", data, *where)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {data}: pretraining reads a data set on a disk, not a stream of shards: name one with --data, or a "
        "detector with --student\n"
    )
