"""The measurement of a build's memory at toy size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cache import memory


def test_peaks_are_taken_beside_the_weights(
    tmp_path: Path, in_this_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, rows = [], []

    def run(name: str, work: Callable[..., Any], *arguments: object) -> Any:
        found = in_this_process(name, work, *arguments)
        if name == "checkpoint":
            weights.append(found)
            return 100 << 20
        before, peak, regions = found
        assert peak >= before > 2**20
        rows.append(regions)
        return 50 << 20, (450 if len(rows) == 1 else 690) << 20, regions

    monkeypatch.setattr(memory, "in_a_process", run)
    figures = memory.measure(tmp_path / "work", geometry="tiny")
    assert {name: (figure.value, figure.target, figure.better) for name, figure in figures.items()} == {
        "build_peak_memory_vs_weights": (1.125, 1.5, "lower"),
        "build_peak_memory_vs_weights_bfloat16_files": (1.725, None, "lower"),
    }
    assert weights[0] == weights[1] > 10_000
    assert rows[0] == rows[1] > 4
    assert "450 / 400 MiB: whole process of a build of" in figures["build_peak_memory_vs_weights"].note
    assert list((tmp_path / "work").iterdir()) == []
