"""Synthetic regions, caches and the cheap teacher."""

import os
import time
from pathlib import Path

import numpy as np

from bench.synthetic import (
    CLASS_NAMES,
    CheapTeacher,
    read_log,
    region_name,
    synthetic_cache,
    synthetic_source,
    synthetic_spec,
    synthetic_table,
)
from mocha_pipe.data.regions import recompute_keys
from mocha_pipe.teacher_cache.building.build import build_cache
from mocha_pipe.teacher_cache.checking.verify import verify_cache

SPEC = synthetic_spec(hidden_dim=24, visual_dim=8)


def crops(number: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (number, 16, 16, 3), dtype=np.uint8))


def test_a_table_is_sound_and_repeats_itself() -> None:
    table = synthetic_table(50, most=7)
    assert table.digest == synthetic_table(50, most=7).digest != synthetic_table(50, most=7, seed=1).digest
    np.testing.assert_array_equal(table.keys, recompute_keys(table))
    counts = np.diff(table.first_row)
    assert (counts.min(), counts.max(), table.num_distinct) == (1, 7, len(table))
    assert (table.xyxy[:, 2:] > table.xyxy[:, :2]).all()


def test_a_source_fits_its_table_and_can_be_built(tmp_path: Path) -> None:
    table = synthetic_table(12, most=5)
    source = synthetic_source(table, tmp_path)
    assert source.num_regions == len(table)
    report = build_cache(source, table, tmp_path / "cache", spec=SPEC, load_teacher=lambda: CheapTeacher(SPEC))
    assert (report.embedded, report.set_aside) == (len(table), ())


def test_a_cache_is_complete_and_sound(tmp_path: Path) -> None:
    table = synthetic_table(100, most=5)
    cache = synthetic_cache(tmp_path / "cache", table, hidden_dim=24, visual_dim=8, dim=6)
    assert cache.is_complete
    assert (cache.targets().dim, len(cache.targets())) == (6, len(table))
    kinds = {finding.kind for finding in verify_cache(tmp_path / "cache").findings}
    assert not kinds & {"damaged", "missing"}, kinds


def test_an_embedding_is_the_same_in_any_batch_and_follows_crop_and_name() -> None:
    teacher, seen = CheapTeacher(SPEC), crops(9)
    names = [CLASS_NAMES[index % 2] for index in range(9)]
    together = teacher.embed(seen, names)
    for index, (crop, name) in enumerate(zip(seen, names, strict=True)):
        alone = teacher.embed([crop], [name])
        assert alone.hidden.tobytes() == together.hidden[index].tobytes()
        assert alone.visual.tobytes() == together.visual[index].tobytes()
    assert len(np.unique(together.hidden, axis=0)) == 9
    other = teacher.embed(seen[:1], [CLASS_NAMES[1]])
    assert (other.hidden[0] != together.hidden[0]).any()


def test_the_log_tells_when_who_looked_at_what(tmp_path: Path) -> None:
    log = tmp_path / "log"
    teacher, seen = CheapTeacher(SPEC, log), crops(3)
    before = time.monotonic_ns()
    teacher.embed(seen[:2], ["mug", "bag"])
    teacher.embed(seen[2:], ["mug"])
    looks = read_log(log)
    assert [look.region for look in looks] == [
        region_name(crop, name) for crop, name in zip(seen, ("mug", "bag", "mug"), strict=True)
    ]
    assert {look.process for look in looks} == {os.getpid()}
    assert before <= looks[0].time_ns == looks[1].time_ns < looks[2].time_ns <= time.monotonic_ns()
    assert read_log(tmp_path / "none") == []
