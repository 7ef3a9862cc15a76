import itertools
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building import plan
from mocha_pipe.teacher_cache.building.build import build_cache, open_or_create
from mocha_pipe.teacher_cache.building.forecast import Forecast, Tally, duration
from mocha_pipe.teacher_cache.building.plan import cost_of_region, time_projection, time_teacher
from mocha_pipe.teacher_cache.building.reuse import Donor
from mocha_pipe.teacher_cache.building.shard_order import rows_to_embed
from mocha_pipe.teacher_cache.store.cache import RegionCache

Sample = list[tuple[int, float]]
windows = st.lists(st.tuples(st.integers(1, 500), st.floats(0.001, 1000)), min_size=1, max_size=12)


def test_the_best_guess_is_the_rate_of_the_whole_sample() -> None:
    found = Forecast.of(1000, [(40, 2.0), (40, 4.0), (20, 4.0)])
    assert found.seconds == pytest.approx(1000 * 10.0 / 100)
    assert found.regions == 1000


@settings(max_examples=15)
@given(sample=windows, regions=st.integers(0, 10**7))
def test_the_range_is_that_of_a_plain_bootstrap_and_never_below_5_percent(sample: Sample, regions: int) -> None:
    found = Forecast.of(regions, sample)
    generator, rates = np.random.default_rng(0), []
    for picks in generator.integers(0, len(sample), (1000, len(sample))).tolist():
        drawn = [sample[pick] for pick in picks]
        rates.append(sum(seconds for _, seconds in drawn) / sum(count for count, _ in drawn))
    best = sum(seconds for _, seconds in sample) / sum(count for count, _ in sample)
    assert found.seconds == pytest.approx(regions * best)
    assert found.low == pytest.approx(regions * min(np.quantile(rates, 0.025), best * 0.95))
    assert found.high == pytest.approx(regions * max(np.quantile(rates, 0.975), best * 1.05))
    assert found.low <= found.seconds <= found.high


@settings(max_examples=15)
@given(sample=windows, regions=st.integers(1, 10**6), factor=st.integers(2, 50))
def test_it_scales_with_the_regions(sample: Sample, regions: int, factor: int) -> None:
    one, many = Forecast.of(regions, sample), Forecast.of(factor * regions, sample)
    for name in ("seconds", "low", "high"):
        assert getattr(many, name) == pytest.approx(factor * getattr(one, name))


def test_scatter_widens_the_range() -> None:
    spans = []
    for spread in (0.0, 0.2, 0.5, 0.9):
        found = Forecast.of(100, [(10, 1 - spread), (10, 1 + spread)] * 4)
        assert found.seconds == pytest.approx(10)
        spans.append(found.high - found.low)
    assert spans[0] == pytest.approx(1.0)
    assert (np.diff(spans) > 0).all()


def test_a_forecast_in_words() -> None:
    found = Forecast(regions=9, seconds=70000.4, low=4.23, high=100.0)
    assert str(found) == "19 h 26 min (4.2 s to 1 min 40 s)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (4.25, "4.2 s"),
        (59.9, "59.9 s"),
        (60.0, "1 min 00 s"),
        (200.4, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (14 * 3600 + 5 * 60 + 59, "14 h 05 min"),
        (250 * 3600, "250 h 00 min"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@settings(max_examples=25)
@given(seconds=st.floats(0, 59.94))
def test_no_duration_reads_60_seconds(seconds: float) -> None:
    assert duration(seconds) != "60.0 s"


def test_just_under_a_minute_is_a_minute() -> None:
    assert duration(59.97) == "1 min 00 s"


def test_a_tally_leaves_the_first_window_out_and_waits_for_four_more() -> None:
    counted = Tally(windows=[(40, 99.0), *[(40, 1.0 + index / 10) for index in range(3)]])
    assert counted.forecast(100) is None
    counted.windows.append((40, 1.3))
    assert counted.forecast(100) == Forecast.of(100, counted.windows[1:5])
    counted.windows += [(40, 1.0)] * 20
    assert counted.forecast(100) == Forecast.of(100, counted.windows[1:9])


def test_tallies_add_up() -> None:
    total = Tally(shards=4, embedded=1, reused=2, duplicates=3, windows=[(1, 0.1)])
    total.add(Tally(shards=40, embedded=10, reused=20, duplicates=30, windows=[(10, 1.0)]))
    assert total == Tally(shards=44, embedded=11, reused=22, duplicates=33, windows=[(1, 0.1), (10, 1.0)])


def ticking(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """A clock that moves by one second whenever it is read."""
    clock = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))


def test_windows_are_timed_one_by_one_after_one_that_warms_up(
    source: DetectionSource, table: RegionTable, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking(monkeypatch, plan)
    teacher = helpers.Teacher()
    found = time_teacher(source, table, teacher, sample=10**6, batch=1)
    assert found == [(8, 1.0)] * 10 + [(5, 1.0)], "all 85 regions, in windows of 8 batches"
    assert teacher.calls == [8, *[regions for regions, _ in found]]


def test_the_timed_seconds_hold_the_teachers(
    source: DetectionSource, table: RegionTable, helpers: SimpleNamespace
) -> None:
    found = time_teacher(source, table, helpers.Teacher(delay=0.03), sample=40, batch=4)
    assert all(0.03 <= seconds < 0.5 for _, seconds in found)


@pytest.mark.parametrize("sample", [1, 12, 40])
def test_a_sample_is_as_large_as_asked_for_and_made_of_whole_images(
    source: DetectionSource, table: RegionTable, helpers: SimpleNamespace, tmp_path: Path, sample: int
) -> None:
    teacher = helpers.Teacher(log=tmp_path / "log")
    found = time_teacher(source, table, teacher, sample=sample, batch=4)
    regions = sum(count for count, _ in found)
    assert sample <= regions < sample + 7
    assert len(found) <= 8
    seen = (tmp_path / "log").read_text().splitlines()[teacher.calls[0] :]
    assert len(set(seen)) == regions
    again = helpers.Teacher(log=tmp_path / "again")
    time_teacher(source, table, again, sample=sample, batch=4)
    assert (tmp_path / "again").read_text() == (tmp_path / "log").read_text(), "equal samples take equal images"


def test_an_unreadable_image_does_not_stop_the_timing(tmp_path: Path, helpers: SimpleNamespace) -> None:
    source = helpers.make_source(tmp_path / "images", images=8)
    table = RegionTable.build(source)
    source.records[7].path.write_bytes(b"no picture")
    teacher = helpers.Teacher()
    found = time_teacher(source, table, teacher, sample=100, batch=1)
    assert sum(regions for regions, _ in found) == 28
    assert sum(teacher.calls) == teacher.calls[0] + 21


def test_the_projection_costs_by_rows_and_by_the_cube_of_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, plan)
    assert time_projection(10 * 1024, 64, "cpu") == pytest.approx(10 + 1)
    assert time_projection(1024, 1024, "cpu") == pytest.approx(1 + (1024 / 512) ** 3)


def test_a_build_says_its_forecast_and_what_came_of_it(
    source: DetectionSource,
    tmp_path: Path,
    helpers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    report = helpers.build(source, tmp_path / "cache", helpers.Teacher(delay=0.02), batch=1)
    said = re.search(r"teacher: forecast (.+) for 85 regions\n", capfd.readouterr().err)
    assert said
    assert float(said[1].split()[0]) >= 0.2, "85 regions, 8 a window"
    assert report.forecast is not None
    assert report.forecast.regions == report.embedded == 85
    assert report.forecast.low <= report.forecast.seconds <= report.forecast.high
    assert 12 * 0.02 <= report.embedding_seconds <= report.seconds


def test_too_few_windows_give_no_forecast(
    source: DetectionSource, tmp_path: Path, helpers: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    report = helpers.build(source, tmp_path / "cache", helpers.Teacher(), batch=16)
    assert report.forecast is None
    assert "forecast" not in capfd.readouterr().err


def test_loading_the_teacher_is_not_the_speed_of_the_job(
    source: DetectionSource, table: RegionTable, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    def load_teacher() -> object:
        time.sleep(0.5)
        return helpers.Teacher()

    report = build_cache(source, table, tmp_path / "cache", spec=helpers.spec, load_teacher=load_teacher)
    assert report.embedding_seconds < 0.4 < 0.5 < report.seconds


def test_what_the_teacher_will_see_is_counted_without_copies_and_by_part(
    source: DetectionSource, finished: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    twice = helpers.repeated(source)
    table = RegionTable.build(twice)
    cache = open_or_create(tmp_path / "cache", table, helpers.spec, 32)
    assert rows_to_embed(cache, table, None, []) == 85
    assert [rows_to_embed(cache, table, (index, 3), []) for index in range(3)] == [32, 32, 21]
    assert rows_to_embed(cache, table, None, [Donor(finished, helpers.spec)]) == 0
    assert rows_to_embed(RegionCache.open(finished), table, None, []) == 0


def test_the_cost_of_a_region_counts_tokens_operations_and_bytes(table: RegionTable, helpers: SimpleNamespace) -> None:
    class Multiplying(helpers.Teacher):  # type: ignore[misc, name-defined]
        def embed(self, *regions: object) -> object:
            _ = torch.ones(4, 8) @ torch.ones(8, 16)
            queries = torch.ones(1, 2, 5, 8)
            torch.nn.functional.scaled_dot_product_attention(queries, queries, queries)
            return super().embed(*regions)

    teacher = Multiplying(spec=replace(helpers.spec, image_tokens=3))
    cost = cost_of_region(table, teacher)
    assert cost.operations == 2 * 4 * 8 * 16 + 2 * 2 * (2 * 5 * 5 * 8), "the product, and the two of the attention"
    names = [table.class_name(row) for row in range(len(table))]
    assert cost.tokens == pytest.approx(sum(map(teacher.tokens, names)) / len(names))
    assert (cost.image_tokens, cost.bytes) == (3, 2 * (24 + 8))
