"""Copies that another program laid out anew: all commands say the same of them, read them, and leave them alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs.checksum32 import CRC32C

from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.checking.mending import remove_faults
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.errors import CacheFormatError
from mocha_pipe.teacher_cache.sharing import list_caches, merge, pull, push
from mocha_pipe.teacher_cache.store.array_layout import judge_array, read_layout
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import ShardPlan, describe_array, shard_path
from tests.teacher_cache.foreign import LAYOUTS, lay_out_anew

PLAN = ShardPlan(85, 32)


@pytest.fixture(scope="module")
def aside(helpers: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectionSource, Path]:
    """A complete cache in which the regions of one image were set aside: seven rows, which fill small chunks."""
    root = tmp_path_factory.mktemp("aside")
    source = helpers.make_source(root / "images")
    source.records[15].path.write_bytes(b"no picture")
    helpers.build(source, root / "cache", helpers.Teacher())
    assert len(RegionCache.open(root / "cache").quarantine()) == 7
    return source, root / "cache"


@pytest.fixture(params=LAYOUTS)
def foreign(aside: tuple[DetectionSource, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = Path(shutil.copytree(aside[1], tmp_path / "foreign"))
    lay_out_anew(folder, request.param)
    return folder


def rows_of(folder: Path) -> dict[str, bytes]:
    cache = RegionCache.open(folder)
    return {name: cache.rows(name).block(0, 85).tobytes() for name in ("hidden", "visual", "targets")}


def states(folder: Path) -> list[Any]:
    """Shards that are there, of each array, as each command tells."""
    [listed] = list_caches(str(folder))
    info = RegionCache.open(folder).info()["arrays"]
    return [
        listed.done,
        {name: array["shards_done"] for name, array in info.items()},
        verify_cache(folder).arrays,
        {name: 3 - len(RegionCache.open(folder).rows(name).missing()) for name in info},
    ]


def test_all_commands_say_that_it_is_complete(
    aside: tuple[DetectionSource, Path], foreign: Path, helpers: SimpleNamespace
) -> None:
    assert rows_of(foreign) == rows_of(aside[1])
    assert states(foreign) == 4 * [{"hidden": 3, "visual": 3, "targets": 3}]
    report = verify_cache(foreign)
    assert report.findings == ()
    assert len(report.notes) == 3
    assert report.notes[0].startswith("hidden is laid out anew by another program: ")
    assert report.notes[0].endswith(f"with `mocha-pipe cache pull {foreign} {foreign}-2`")
    assert RegionCache.open(foreign).info()["arrays"]["hidden"]["layout"].startswith("laid out anew by another program")
    [listed] = list_caches(str(foreign))
    assert listed.complete
    assert "hidden: laid out anew by another program" in listed.note
    assert helpers.build(aside[0], foreign, None).computed_shards == 0, "a build has nothing to do"
    assert push(foreign, str(foreign.parent / "other")).shards_missing == 0


def test_all_commands_say_that_a_shard_is_missing(aside: tuple[DetectionSource, Path], foreign: Path) -> None:
    layout = read_layout(foreign / "visual", PLAN)
    for name, _, _ in layout.files(64, 85):
        (foreign / "visual" / name).unlink(missing_ok=True)
    counts = {array: {"visual": 2}.get(array, 3) for array in ("hidden", "visual", "targets")}
    # A file of 64 rows holds two shards of ours.
    lacking = sorted({row // 32 for _, first, stop in layout.files(64, 85) for row in range(first, stop)})
    counts["visual"] = 3 - len(lacking)
    assert states(foreign) == 4 * [counts]
    assert {finding.kind for finding in verify_cache(foreign).findings} == {"missing"}


def refusal(write: Callable[[], Any], finding: str) -> str:
    """The text in which a command refuses to write to an array, which begins with the rule and the finding."""
    with pytest.raises(CacheFormatError) as refused:
        write()
    text = str(refused.value)
    assert text.startswith(f"nothing is written to an array in another layout than that of mocha-pipe, and {finding}")
    return text


def test_a_copy_of_it_is_in_our_layout(
    aside: tuple[DetectionSource, Path], foreign: Path, place: str, tmp_path: Path, tools: Any
) -> None:
    content = tools.content(aside[1])
    pull(str(foreign), tmp_path / "pulled")
    assert tools.content(tmp_path / "pulled") == content
    push(foreign, f"{place}/pushed")
    assert tools.remote(f"{place}/pushed") == content
    for name, bytes_ in tools.content(foreign).items():
        tools.put(f"{place}/foreign/{name}", bytes_)
    pull(f"{place}/foreign", tmp_path / "fetched")
    assert tools.content(tmp_path / "fetched") == content
    [listed] = list_caches(f"{place}/foreign")
    assert (listed.complete, listed.done) == (True, {"hidden": 3, "visual": 3, "targets": 3})
    merge(tmp_path / "merged", [str(foreign)])
    assert RegionCache.open(tmp_path / "merged").missing_teacher_shards() == ()


def test_nothing_is_written_beside_it(
    aside: tuple[DetectionSource, Path], foreign: Path, helpers: SimpleNamespace, place: str, tools: Any
) -> None:
    for name, _, _ in read_layout(foreign / "hidden", PLAN).files(0, 32):
        (foreign / "hidden" / name).unlink(missing_ok=True)
    content = tools.content(foreign)
    for name, bytes_ in content.items():
        tools.put(f"{place}/foreign/{name}", bytes_)
    source, sound = aside
    writes: list[tuple[str, Callable[[], Any]]] = [
        (str(foreign), lambda: push(sound, str(foreign))),
        (f"{place}/foreign", lambda: push(sound, f"{place}/foreign")),
        (str(foreign), lambda: pull(str(sound), foreign)),
        (str(foreign), lambda: pull(str(sound), foreign, repair=True)),
        (str(foreign), lambda: merge(foreign, [str(sound)])),
        (str(foreign), lambda: helpers.build(source, foreign, None)),
        (str(foreign), lambda: helpers.build(source, foreign, None, dim=3)),
        (str(foreign), lambda: remove_faults(foreign, verify_cache(foreign))),
    ]
    for where, write in writes:
        text = refusal(write, f"{where}/hidden is laid out anew by another program: ")
        assert text.endswith(", then use that")
        assert f"`mocha-pipe cache pull {where} " in text
        assert "\n" not in text
    assert tools.content(foreign) == content
    assert tools.remote(f"{place}/foreign") == content


def make_v2(folder: Path) -> None:
    """Write the targets once more as Zarr v2."""
    values = np.asarray(zarr.open_array(folder / "targets", mode="r")[:])
    shutil.rmtree(folder / "targets")
    zarr.create_array(folder / "targets", data=values, chunks=(16, 8), zarr_format=2)


def lose_attributes(folder: Path) -> None:
    """Lay the targets out anew without what they say of their projection."""
    lay_out_anew(folder, "zarr's own", "targets")
    path = folder / "targets/zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attributes": {}}))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (make_v2, ": Zarr v2 (.zarray), which mocha-pipe does not read"),
        (lose_attributes, "; it does not name the projection of the targets"),
    ],
)
def test_nothing_is_written_beside_an_array_that_cannot_be_read(
    finished: Path, place: str, tmp_path: Path, tools: Any, change: Callable[[Path], None], finding: str
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "foreign"))
    change(folder)
    content = everything(folder)
    for name, bytes_ in content.items():
        tools.put(f"{place}/foreign/{name}", bytes_)
    local = f"move it away with `mv {folder}/targets {folder}-targets`"
    writes: list[tuple[str, str, Callable[[], Any]]] = [
        (str(folder), local, lambda: pull(str(finished), folder)),
        (str(folder), local, lambda: pull(str(finished), folder, repair=True)),
        (str(folder), local, lambda: push(finished, str(folder))),
        (str(folder), local, lambda: merge(folder, [str(finished)])),
        (f"{place}/foreign", "remove it there", lambda: push(finished, f"{place}/foreign")),
    ]
    for where, remedy, write in writes:
        text = refusal(write, f"{where}/targets is laid out anew by another program")
        assert text.endswith(f"{finding}; {remedy} and run the same command again")
        assert "\n" not in text
    assert everything(folder) == content
    assert tools.remote(f"{place}/foreign") == content
    (folder / "targets").rename(tmp_path / "foreign-targets")
    pull(str(finished), folder)
    assert tools.content(folder) == tools.content(finished)


def everything(folder: Path) -> dict[str, bytes]:
    """Every file, with those of Zarr v2, whose names start with a dot."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_shard_whose_chunks_lie_in_another_order_travels_in_ours(
    aside: tuple[DetectionSource, Path], helpers: SimpleNamespace, place: str, tmp_path: Path, tools: Any
) -> None:
    """Some writers of Zarr put the chunks of a shard as their threads end; the index says so."""
    helpers.build(aside[0], tmp_path / "ours", helpers.Teacher(), rows_per_shard=64)
    copy = Path(shutil.copytree(tmp_path / "ours", tmp_path / "copy"))
    path, size = shard_path(copy / "hidden", 0), 32 * 24 * 2 + 4
    content = path.read_bytes()
    index = np.array([[size, size], [0, size]], "<u8").tobytes()
    path.write_bytes(content[size : 2 * size] + content[:size] + CRC32C(location="end").encode(index).tobytes())
    assert verify_cache(copy).findings == ()
    push(copy, f"{place}/pushed")
    pull(str(copy), tmp_path / "pulled")
    assert tools.remote(f"{place}/pushed") == tools.content(tmp_path / "ours") == tools.content(tmp_path / "pulled")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"separator": "."', '"separator": "/"'),
        ('"NaN"', '"nan"'),
        ('"configuration": {"endian', '"bonfiguration": {"endian'),
    ],
)
def test_a_damaged_description_is_no_other_layout(finished: Path, old: str, new: str) -> None:
    """Of files that are ours by name and size; another byte order leaves both, but no damage leads to it."""
    content = json.dumps(json.loads(describe_array("hidden", PLAN, 24, {}))).replace(old, new, 1).encode()
    assert new.encode() in content
    sizes = {path.name: path.stat().st_size for path in (finished / "hidden").iterdir()}
    found = judge_array(content, lambda: sizes, PLAN, 24)
    assert found.kind == "unreadable"
    assert found.finding.startswith("it does not describe the files beside it (")
    foreign = describe_array("hidden", PLAN, 24, {}).replace(b'"little"', b'"big"', 1)
    assert judge_array(foreign, lambda: sizes, PLAN, 24).kind == "foreign"
