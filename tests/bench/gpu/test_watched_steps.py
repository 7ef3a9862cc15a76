"""What is read off the steps of a training; a trainer that only calls back, and a clock that is set by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.gpu import watched_steps
from bench.gpu.watched_steps import StepWatch, TrainingRun, Window

WINDOW = Window(warm_up=2, timed=2, profiled=1)


class Trainer:
    """Calls back as ultralytics does."""

    device = torch.device("cpu")
    amp = torch.tensor(True)

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[object], None]] = {}

    def add_callback(self, event: str, callback: Callable[[object], None]) -> None:
        self.callbacks[event] = callback

    def step(self, clock: list[float], *, waiting: float, working: float) -> None:
        clock[0] += waiting
        self.callbacks["on_train_batch_start"](self)
        clock[0] += working
        self.callbacks["on_train_batch_end"](self)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [100.0]
    monkeypatch.setattr(watched_steps, "perf_counter", lambda: time[0])
    return time


def profiled(monkeypatch: pytest.MonkeyPatch, events: list[dict[str, object]]) -> list[str]:
    """A profiler that saw some events; the list tells what it was asked."""
    asked: list[str] = []
    stand_in = SimpleNamespace(
        start=lambda: asked.append("start"),
        stop=lambda: asked.append("stop"),
        export_chrome_trace=lambda path: Path(path).write_text(json.dumps({"traceEvents": events})),
    )
    monkeypatch.setattr(watched_steps, "profiler", lambda _device: stand_in)
    return asked


def test_only_the_timed_steps_count(clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiled(monkeypatch, [])
    trainer = Trainer()
    watch = StepWatch(trainer, WINDOW)
    for waiting, working in ((9.0, 9.0), (9.0, 9.0), (0.25, 0.5), (1.0, 0.5), (9.0, 9.0)):
        trainer.step(clock, waiting=waiting, working=working)
    run = watch.result(tmp_path / "trace.json")
    assert (run.step_seconds, run.waiting_seconds) == ([0.75, 1.5], 1.25)
    assert (run.step, run.mean, run.waiting) == (1.125, 1.125, 1.25 / 2.25)
    assert (run.mixed, run.busy, run.idle, run.peak_bytes) == (True, None, None, None)


def test_the_profiler_runs_in_the_last_steps_alone(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = profiled(monkeypatch, [{"cat": "kernel", "ts": 0.0, "dur": 3e5}])
    trainer = Trainer()
    watch = StepWatch(trainer, Window(warm_up=1, timed=2, profiled=2))
    seen = []
    for _ in range(5):
        trainer.step(clock, waiting=0.0, working=0.5)
        seen.append(list(asked))
    assert seen == [[], [], ["start"], ["start"], ["start", "stop"]]
    run = watch.result(tmp_path / "trace.json")
    assert run.busy == pytest.approx(0.15)  # of 0.3 s in two steps
    assert run.idle == pytest.approx(0.7)


def test_a_device_that_works_all_the_time_is_never_idle_by_less_than_nothing() -> None:
    run = TrainingRun(step_seconds=[1.0], waiting_seconds=0.0, busy=1.01, peak_bytes=None, mixed=False)
    assert run.idle == 0.0


def test_a_training_that_began_again_with_a_smaller_batch_is_refused(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiled(monkeypatch, [])
    trainer = Trainer()
    watch = StepWatch(trainer, WINDOW)
    for _ in range(10):
        trainer.step(clock, waiting=0.0, working=0.5)
    with pytest.raises(RuntimeError) as raised:
        watch.result(tmp_path / "trace.json")
    assert str(raised.value) == (
        "5 steps were to be trained, and 10 were: where a batch does not fit into the device's memory, ultralytics "
        "begins again with half of it; choose a smaller --batch"
    )
