"""Distillation from shards at toy size: local tars train like the folder, a stream trains and goes on by shard."""

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import mocha_pipe.student.distil.stream.state
from mocha_pipe.pipeline.run.packing import pack_shards
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_student
from mocha_pipe.student.distil.stream.dataset import ShardStream
from mocha_pipe.student.distil.stream.state import STATE_FILE
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.teacher_cache.store.cache import RegionCache

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, toy_config: RunConfig, tiny_detector: Path) -> RunConfig:
    """A world with its cache, and shards of it; three epochs."""
    root = tmp_path_factory.mktemp("packed")
    toy = replace(
        toy_config,
        root=root,
        miniature=replace(toy_config.miniature, folder=root / "miniature"),
        data=replace(toy_config.data, path=root / "miniature/data.yaml"),
        cache=replace(toy_config.cache, folder=root / "cache"),
        distill=replace(toy_config.distill, folder=root / "folder", student=str(tiny_detector), epochs=2),
    )
    build_teacher_cache(toy)
    train, _ = pack_shards(toy, root / "shards", shard_mb=0.12)
    assert train.shards == 4
    return toy


@pytest.fixture(scope="module")
def of_folder(config: RunConfig) -> dict[str, torch.Tensor]:
    return weights(distill_student(config).folder)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_student(run / "student").detector.state_dict()


def from_shards(config: RunConfig, name: str, **data: object) -> RunConfig:
    root = config.root
    return replace(
        config,
        root=root / name,
        data=replace(config.data, **data),  # type: ignore[arg-type]
        distill=replace(config.distill, folder=root / name / "distill"),
    )


@pytest.mark.parametrize("named", ["train-{000000..000003}.tar", "dataset.json"])
def test_local_shards_train_exactly_like_the_folder(
    config: RunConfig, of_folder: dict[str, torch.Tensor], named: str
) -> None:
    done = distill_student(from_shards(config, f"local-{named[:5]}", path=config.root / "shards" / named))
    found = weights(done.folder)
    assert all(torch.equal(found[name], value) for name, value in of_folder.items())


def test_a_cache_built_from_shards_serves_the_folder(config: RunConfig, tmp_path: Path) -> None:
    packed = replace(
        config,
        data=replace(config.data, path=config.root / "shards/dataset.json"),
        cache=replace(config.cache, folder=tmp_path / "cache"),
    )
    build_teacher_cache(packed)
    first, second = RegionCache.open(config.root / "cache"), RegionCache.open(tmp_path / "cache")
    assert first.table_digest == second.table_digest
    for array in ("hidden", "visual", "targets"):
        for shard in (config.root / "cache" / array).glob("c.*"):
            assert (tmp_path / "cache" / array / shard.name).read_bytes() == shard.read_bytes()


def test_a_stream_trains_and_says_so_when_it_is_complete(config: RunConfig) -> None:
    url = f"file://{config.root}/shards/train-{{000000..000003}}.tar"
    streamed = from_shards(config, "stream", url=url)
    done = distill_student(streamed)
    assert done.outputs["map50_95"] is not None
    assert not (done.folder / "train/weights" / STATE_FILE).exists()
    (copy,) = (streamed.root / "remote").iterdir()
    names = {path.name for path in copy.iterdir()}
    assert {"dataset.json", "train.index.parquet", "val.index.parquet", "val-000000.tar"} <= names
    assert not any(name.startswith("train-") for name in names), "what is streamed is not copied"
    assert distill_student(streamed).skipped
    again = distill_student(replace(streamed, distill=replace(streamed.distill, folder=streamed.root / "again")))
    first, second = weights(done.folder), weights(again.folder)
    assert all(torch.equal(second[name], value) for name, value in first.items()), "a stream repeats under its seed"


KILLED = """
import os, signal, sys, pickle
from pathlib import Path

import mocha_pipe.student.distil.stream.state
from mocha_pipe.pipeline.stages import distill_student
from mocha_pipe.student.distil.stream.loader import StreamLoader

mocha_pipe.student.distil.stream.state.SECONDS_BETWEEN = 0.0
config, epoch, batches = pickle.loads(Path(sys.argv[1]).read_bytes()), int(sys.argv[2]), int(sys.argv[3])
iterate = StreamLoader.__iter__

def killed(loader):
    for number, batch in enumerate(iterate(loader)):
        if loader.stream.epoch == epoch and number == batches:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

StreamLoader.__iter__ = killed
distill_student(config)
"""


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_killed_stream_goes_on_by_shard(
    config: RunConfig, tmp_path: Path, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{config.root}/shards/dataset.json"
    streamed = from_shards(config, f"killed-{epoch}", url=url)
    streamed = replace(
        streamed, data=replace(streamed.data, window=2), distill=replace(streamed.distill, batch=4, seed=3)
    )
    (tmp_path / "config").write_bytes(pickle.dumps(streamed))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "config", str(epoch), "5"], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = torch.load(streamed.root / "distill/train/weights" / STATE_FILE, weights_only=True)
    assert kept["epoch"] == epoch
    assert 0 < len(kept["done"]) < 4
    orders: list[tuple[int, list[int]]] = []
    order = ShardStream.__iter__

    def noted(stream: ShardStream) -> object:
        orders.append((stream.epoch, stream.order()))
        return order(stream)

    monkeypatch.setattr(ShardStream, "__iter__", noted)
    restored: list[float] = []
    restore = mocha_pipe.student.distil.stream.state.StreamKeeper._restore

    def note(keeper: mocha_pipe.student.distil.stream.state.StreamKeeper, trainer: object) -> None:
        restore(keeper, trainer)
        restored.append(float(trainer.optimizer.state_dict()["state"][0]["step"]))  # type: ignore[attr-defined]
        found = trainer.model.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(found[name], value) for name, value in kept["model"].items())
        average = trainer.ema.ema.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(average[name], value) for name, value in kept["average"].items())

    monkeypatch.setattr(mocha_pipe.student.distil.stream.state.StreamKeeper, "_restore", note)
    result = distill_student(streamed)
    assert orders[0][0] == epoch
    assert sorted([*orders[0][1], *kept["done"]]) == [0, 1, 2, 3]
    assert [sorted(shards) for _, shards in orders[1:]] == [[0, 1, 2, 3]] * (1 - epoch)
    assert restored == [float(kept["optimizer"]["state"][0]["step"])]
    assert not (result.folder / "train/weights" / STATE_FILE).exists()


def test_a_stream_takes_one_device(config: RunConfig) -> None:
    url = f"file://{config.root}/shards/train-{{000000..000003}}.tar"
    two = from_shards(config, "two", url=url)
    with pytest.raises(TrainArgumentError) as error:
        distill_student(replace(two, distill=replace(two.distill, device="0,1")))
    assert str(error.value) == (
        "A stream is trained from on one device, found device='0,1'; name one of them, or train from local shards."
    )


def test_the_command_takes_patterns_and_urls(
    command: Command, config: RunConfig, tiny_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def distill(settings: RunConfig) -> None:
        seen.append(settings.data)
        raise KeyboardInterrupt

    monkeypatch.setattr("mocha_pipe.pipeline.stages.distill_student", distill)
    for data in ("s3://team/shards/train-{000..031}.tar", "shards/train-{000..031}.tar"):
        command("distill", "--data", data)
    assert (seen[0].url, seen[1].url) == ("s3://team/shards/train-{000..031}.tar", "")
    assert seen[1].path == Path("shards/train-{000..031}.tar")


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
    where = ("--cache", config.root / "cache", "--root", tmp_path)
    result = command("distill", "--data", f"{scheme}{config.root}/shards/{named}", "--student", tiny_detector, *where)
    assert result.exit_code == 2
    assert text in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_shards_are_not_pretrained_on(command: Command, config: RunConfig, tmp_path: Path) -> None:
    where = ("--cache", config.root / "cache", "--root", tmp_path)
    for data in (f"{config.root}/shards/dataset.json", f"file://{config.root}/shards/train-000000.tar"):
        result = command("distill", "--data", data, *where)
        assert result.exit_code == 2
        assert result.stderr == (
            f"error: {data}: pretraining is a plain ultralytics run and reads a data.yaml, not shards: write a "
            "data.yaml, or name a detector with --student\n"
        )
