"""What only another process can show: phase 2 does without the teacher, and a stream that was killed goes on."""

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import mocha_pipe.teacher_cache.teachers
from mocha_pipe.pipeline.markers import Completion
from mocha_pipe.pipeline.run.datasets import pack_shards
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import distill_student
from mocha_pipe.student.distil.stream.dataset import ShardStream
from mocha_pipe.student.distil.stream.loader import StreamLoader
from mocha_pipe.student.distil.stream.state import STATE_FILE, StreamKeeper

SCRIPT = """
import os, pickle, signal, sys
from dataclasses import replace
from pathlib import Path

def guard(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] == "transformers":
        raise AssertionError("transformers is imported")
    if event == "open" and sys.argv[2] in str(arguments[0]):
        raise AssertionError(f"{arguments[0]} of the teacher is opened")

sys.addaudithook(guard)

import mocha_pipe.student.distil.stream.state
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_student, evaluate_fewshot
from mocha_pipe.student.distil.stream.loader import StreamLoader

config, streamed = pickle.loads(Path(sys.argv[1]).read_bytes())
assert not distill_student(config).skipped
assert not evaluate_fewshot(config).skipped
try:
    build_teacher_cache(replace(config, cache=replace(config.cache, folder=config.root / "cache")))
except AssertionError as error:
    print(error, flush=True)

mocha_pipe.student.distil.stream.state.SECONDS_BETWEEN = 0.0
iterate = StreamLoader.__iter__

def killed(loader):
    for number, batch in enumerate(iterate(loader)):
        if loader.stream.epoch == 1 and number == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

StreamLoader.__iter__ = killed
distill_student(streamed)
"""


@dataclass(frozen=True)
class Apart:
    """What another process did."""

    done: "subprocess.CompletedProcess[str]"
    config: RunConfig
    """Of a distillation and its evaluation."""
    streamed: RunConfig
    """Of a distillation from a stream, killed in its second epoch."""


@pytest.fixture(scope="module")
def streamed(finished: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Distillation from four shards in batches of two images."""
    root = tmp_path_factory.mktemp("stream")
    train, _ = pack_shards(finished, root / "shards", shard_mb=0.08)
    assert train.shards == 4
    return replace(
        finished,
        root=root,
        data=replace(finished.data, url=f"file://{root}/shards/dataset.json", window=2),
        distill=replace(
            finished.distill, folder=root / "distill", student=finished.pretrain.model, batch=2, seed=3, epochs=2
        ),
    )


@pytest.fixture(scope="module")
def apart(finished: RunConfig, streamed: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Apart:
    root = tmp_path_factory.mktemp("apart")
    config = replace(
        finished,
        root=root,
        distill=replace(finished.distill, folder=root / "run", seed=1),
        fewshot=replace(finished.fewshot, folder=root / "fewshot", shots=(1,), teacher=False),
    )
    (root / "configs").write_bytes(pickle.dumps((config, streamed)))
    weights = Path(mocha_pipe.teacher_cache.teachers.__path__[0]) / "miniature"
    arguments = [sys.executable, "-c", SCRIPT, str(root / "configs"), str(weights)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return Apart(done=done, config=config, streamed=streamed)


def test_phase_2_neither_imports_transformers_nor_opens_teacher_weights(apart: Apart) -> None:
    assert apart.config.fewshot.folder is not None
    report = apart.config.fewshot.folder / "report.json"
    assert report.is_file(), apart.done.stderr[-2000:]
    assert list(json.loads(report.read_text())["results"][0]["methods"]) == ["histogram", "yolo", "mocha"]
    assert "transformers is imported\n" in apart.done.stdout, "the guard sees what phase 1 imports"


def resume(streamed: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Completion:
    """Go on with a distillation from a stream, and compare with the state that was kept."""
    state = streamed.root / "distill/train/weights" / STATE_FILE
    kept = torch.load(state, weights_only=True)
    assert 0 < len(kept["done"]) < 4
    orders: list[tuple[int, list[int]]] = []
    order, restore = ShardStream.__iter__, StreamKeeper._restore
    restored: list[float] = []

    def noted(stream: ShardStream) -> object:
        orders.append((stream.epoch, stream.order()))
        return order(stream)

    def note(keeper: StreamKeeper, trainer: object) -> None:
        restore(keeper, trainer)
        restored.append(float(trainer.optimizer.state_dict()["state"][0]["step"]))  # type: ignore[attr-defined]
        found = trainer.model.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(found[name], value) for name, value in kept["model"].items())
        average = trainer.ema.ema.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(average[name], value) for name, value in kept["average"].items())

    monkeypatch.setattr(ShardStream, "__iter__", noted)
    monkeypatch.setattr(StreamKeeper, "_restore", note)
    done = distill_student(streamed)
    assert orders[0][0] == kept["epoch"]
    assert sorted([*orders[0][1], *kept["done"]]) == [0, 1, 2, 3]
    assert [sorted(shards) for _, shards in orders[1:]] == [[0, 1, 2, 3]] * (
        streamed.distill.epochs - kept["epoch"] - 1
    )
    assert restored == [float(kept["optimizer"]["state"][0]["step"])]
    assert not state.exists()
    return done


def test_a_killed_stream_goes_on_by_shard(apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    assert apart.done.returncode == -signal.SIGKILL, apart.done.stderr[-2000:]
    state = torch.load(apart.streamed.root / "distill/train/weights" / STATE_FILE, weights_only=True)
    assert state["epoch"] == 1
    assert resume(apart.streamed, monkeypatch).outputs["map50_95"] is not None
    (copy,) = (apart.streamed.root / "remote").iterdir()
    names = {path.name for path in copy.iterdir()}
    assert {"dataset.json", "train.index.parquet", "val.index.parquet", "val-000000.tar"} <= names
    assert not any(name.startswith("train-") for name in names), "what is streamed is not copied"
    assert distill_student(apart.streamed).skipped


class Stopped(BaseException):
    """Ends a training at once, as a signal does."""


def test_a_stream_that_was_stopped_in_its_first_epoch_goes_on_by_shard(
    streamed: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replace(streamed, root=tmp_path, distill=replace(streamed.distill, folder=tmp_path / "distill", epochs=1))
    iterate = StreamLoader.__iter__

    def stopped(loader: StreamLoader) -> object:
        for number, batch in enumerate(iterate(loader)):
            if number == 6:
                raise Stopped
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr("mocha_pipe.student.distil.stream.state.SECONDS_BETWEEN", 0.0)
        patch.setattr(StreamLoader, "__iter__", stopped)
        with pytest.raises(Stopped):
            distill_student(first)
    resume(first, monkeypatch)
