"""Lists of what was set aside: compared by what they say; one that got lost is an error until it comes back."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.building.reuse import Donor
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheMismatchError
from mocha_pipe.teacher_cache.sharing import list_caches, pull, push
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import shard_path, write_shard
from mocha_pipe.teacher_cache.store.quarantine import quarantine_path, read_quarantine_file, write_set_aside

SHARD = 1
"""The regions of image 15, rows 49 to 55, were set aside; all lie in this shard."""


@pytest.fixture(scope="module")
def source(helpers: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> DetectionSource:
    source = helpers.make_source(tmp_path_factory.mktemp("aside") / "images")
    source.records[15].path.write_bytes(b"no picture")
    return source


@pytest.fixture(scope="module")
def aside(source: DetectionSource, helpers: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "cache"
    helpers.build(source, folder, helpers.Teacher())
    assert [region.row // 32 for region in RegionCache.open(folder).quarantine()] == 7 * [SHARD]
    return folder


@pytest.fixture
def copied(aside: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(aside, tmp_path / "copied"))


def lost(cache: Path, name: str, rows: str = "7 rows (the first is 49) are") -> str:
    remedy = f"run `mocha-pipe cache verify {cache} --repair --data DATA`"
    return f"{cache}/{name} is damaged: {rows} not finite and not set aside; {remedy}"


def test_a_lost_list_is_an_error_wherever_targets_are_opened(
    copied: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    quarantine_path(copied, SHARD).unlink()
    cache = RegionCache.open(copied)
    for open_it in (cache.targets, cache.info):
        with pytest.raises(CacheCorruptError) as refused:
            open_it()
        assert str(refused.value) == lost(copied, "targets/c.1.0")
    with pytest.raises(CacheCorruptError) as refused:
        helpers.build(source, copied, None, dim=3)
    assert str(refused.value) == lost(copied, "hidden/c.1.0")
    with pytest.raises(
        CacheCorruptError, match=r"array .*/hidden is damaged: 7 rows .* are not finite and not set asi"
    ):
        Donor(copied, helpers.spec).read(np.arange(45, 60))


def test_one_number_is_enough(copied: Path) -> None:
    cache = RegionCache.open(copied)
    values = np.array(cache.rows("targets").block(0, 32))
    values[3, 2] = np.inf
    write_shard(copied / "targets", cache.plan, 0, values)
    with pytest.raises(CacheCorruptError) as refused:
        cache.targets()
    assert str(refused.value) == lost(copied, "targets/c.0.0", "row 3 is")


def test_a_cache_whose_rows_were_tried_again_needs_no_projection_of_all_rows(
    copied: Path, source: DetectionSource, helpers: SimpleNamespace
) -> None:
    """`info` looks at the rows where the projection was fitted on fewer; they have numbers by now."""
    cache = RegionCache.open(copied)
    for name in ("hidden", "visual", "targets"):
        values = np.array(cache.rows(name).block(*cache.plan.span(SHARD)))
        values[np.isnan(values)] = 1
        write_shard(copied / name, cache.plan, SHARD, values)
    write_set_aside(copied, SHARD, [])
    assert cache.info()["set_aside"] == 0


def test_ls_names_a_lost_list(copied: Path) -> None:
    quarantine_path(copied, SHARD).unlink()
    [found] = list_caches(str(copied))
    assert (found.usable, found.complete, found.note) == (False, False, lost(copied, "targets/c.1.0"))


def test_a_lost_list_does_not_travel(copied: Path, place: str, tmp_path: Path) -> None:
    quarantine_path(copied, SHARD).unlink()
    for travel in (lambda: push(copied, f"{place}/coco"), lambda: pull(str(copied), tmp_path / "there")):
        with pytest.raises(
            CacheCorruptError, match=r"c\.1\.0 is damaged: 7 rows \(the first is 49\) are not finite and"
        ):
            travel()


def test_a_list_that_got_lost_at_one_end_is_named_or_comes_back(aside: Path, copied: Path, place: str) -> None:
    push(aside, f"{place}/coco")
    path = quarantine_path(copied, SHARD)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(CacheCorruptError) as refused:
        push(copied, f"{place}/coco")
    assert str(refused.value) == (
        f"{copied}/quarantine/shard-1.json is damaged: it is missing, and 7 rows (the first is 49) are not finite and "
        f"not set aside; run `mocha-pipe cache verify {copied} --repair --data DATA`"
    )
    assert pull(f"{place}/coco", copied).files == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize("form", ["CRLF", "one line", "another reason"])
def test_lists_are_compared_by_what_they_say(aside: Path, copied: Path, place: str, form: str) -> None:
    path = quarantine_path(copied, SHARD)
    text = path.read_text()
    if form == "CRLF":
        path.write_bytes(text.replace("\n", "\r\n").encode())
    elif form == "one line":
        path.write_text(json.dumps(json.loads(text)))
    else:
        regions = [region.__class__(**{**as_dict(region), "reason": "a word"}) for region in read_quarantine_file(path)]
        write_set_aside(copied, SHARD, regions)
    push(aside, f"{place}/coco")
    assert push(copied, f"{place}/coco").files == 0
    assert pull(f"{place}/coco", copied).files == 0
    assert len(RegionCache.open(copied).targets().set_aside) == 7


def as_dict(region: object) -> dict[str, object]:
    return {name: getattr(region, name) for name in ("row", "key", "image", "class_name", "reason")}


def test_a_shard_that_was_tried_again_is_told_from_a_lost_list(aside: Path, copied: Path, place: str) -> None:
    push(aside, f"{place}/coco")
    cache = RegionCache.open(copied)
    for name in ("hidden", "visual", "targets"):
        values = np.array(cache.rows(name).block(*cache.plan.span(SHARD)))
        values[np.isnan(values)] = 1
        write_shard(copied / name, cache.plan, SHARD, values)
    write_set_aside(copied, SHARD, [])
    with pytest.raises(CacheMismatchError, match=r"sets aside other regions in shard 1 than .*: one of them tried"):
        push(copied, f"{place}/coco")
    assert shard_path(copied / "hidden", SHARD).exists()


def test_no_path_of_the_machine_is_written(aside: Path, source: DetectionSource) -> None:
    assert str(source.root) not in quarantine_path(aside, SHARD).read_text()
