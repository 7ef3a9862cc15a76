import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mocha_pipe.data.files import file_digest
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.teacher_cache.checking.findings import Finding, VerifyReport
from mocha_pipe.teacher_cache.checking.mending import remove_faults, restore
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.errors import (
    CacheCorruptError,
    CacheFormatError,
    CacheIncompleteError,
    CacheMismatchError,
    CacheWriteError,
)
from mocha_pipe.teacher_cache.store.array_layout import read_layout
from mocha_pipe.teacher_cache.store.attributes import parse_attributes
from mocha_pipe.teacher_cache.store.cache import ARRAYS, RegionCache
from mocha_pipe.teacher_cache.store.consolidated import is_consolidated
from mocha_pipe.teacher_cache.store.layout import (
    ShardPlan,
    attributes_digest,
    create_array_atomically,
    encode_shard,
    shard_path,
    write_table_files,
)
from mocha_pipe.teacher_cache.store.quarantine import quarantine_path, read_quarantine_file, write_set_aside
from mocha_pipe.teacher_cache.store.reader import ShardRows
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings
from tests.shared import as_nobody
from tests.teacher_cache.foreign import lay_out_anew

ROWS, SHARD_ROWS, DIMS = 85, 64, {"hidden": 4, "visual": 3, "targets": 2}
PLAN = ShardPlan(ROWS, SHARD_ROWS)  # two chunks and one
ASIDE = {0: [28, 62, 63], 1: [64, 65]}  # row 28 is not finite, the others are of image 20, which cannot be decoded


@dataclass(frozen=True)
class Small:
    """A complete cache with regions set aside in both shards, and what it was made from."""

    folder: Path
    source: DetectionSource
    teacher: Callable[[], Any]


def damage(embeddings: RegionEmbeddings, first: int) -> RegionEmbeddings:
    """What makes row 28, wherever it is embedded, and no other row not finite."""
    embeddings.hidden[embeddings.hidden[:, 0] < -3, 1] = np.nan
    return embeddings


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, helpers: SimpleNamespace) -> Small:
    root = tmp_path_factory.mktemp("small")
    source = helpers.make_source(root / "images")
    source.records[20].path.write_bytes(b"no picture")
    spec = replace(helpers.spec, hidden_dim=DIMS["hidden"], visual_dim=DIMS["visual"])

    def teacher() -> Any:
        return helpers.Teacher(spec=spec, damage=damage)

    options = {"spec": spec, "dim": DIMS["targets"], "rows_per_shard": SHARD_ROWS}
    helpers.build(source, root / "cache", teacher(), **options)
    for shard, rows in ASIDE.items():
        assert [region.row for region in read_quarantine_file(quarantine_path(root / "cache", shard))] == rows
    return Small(root / "cache", source, teacher)


@pytest.fixture
def copied(small: Small, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(small.folder, tmp_path / "cache"))


@pytest.fixture(scope="module")
def scratch(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for tests that put every file back."""
    return Path(shutil.copytree(small.folder, tmp_path_factory.mktemp("scratch") / "cache"))


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def findings_of(folder: Path) -> list[tuple[str, str, str]]:
    return [(found.kind, found.file, found.message) for found in verify_cache(folder).findings]


def rewrite(folder: Path, name: str, shard: int, change: Callable[[NDArray[np.float16]], None]) -> None:
    """Sound bytes with other values."""
    values = ShardRows(folder / name, PLAN).block(*PLAN.span(shard)).copy()
    change(values)
    shard_path(folder / name, shard).write_bytes(encode_shard(values, SHARD_ROWS))


def set_rows(rows: int | list[int], value: float) -> Callable[[NDArray[np.float16]], None]:
    def change(values: NDArray[np.float16]) -> None:
        values[rows] = value

    return change


def test_a_sound_cache_has_no_findings(small: Small) -> None:
    report = verify_cache(small.folder)
    assert report.findings == ()
    assert report.arrays == {"hidden": 2, "visual": 2, "targets": 2}
    assert (report.rows, report.set_aside) == (ROWS, 5)
    assert report.bytes == sum(path.stat().st_size for path in small.folder.rglob("*") if path.is_file())


def test_nothing_is_written(copied: Path, helpers: SimpleNamespace) -> None:
    before = helpers.file_tree(copied)
    shard_path(copied / "hidden", 0).write_bytes(b"")
    verify_cache(copied)
    assert helpers.file_tree(copied) == {**before, "hidden/c.0.0": b""}


# --- every byte -------------------------------------------------------------------------------------------------------


def test_every_bit_of_a_shard_counts(scratch: Path) -> None:
    """The step of `verify_cache` that reads a shard, for every bit of the narrowest; that it is used is shown below."""
    for shard in range(2):
        path = shard_path(scratch / "targets", shard)
        content, seen = path.read_bytes(), set()
        for place in range(len(content)):
            for bit in range(8):
                path.write_bytes(flipped(content, place, bit))
                with pytest.raises(CacheCorruptError) as caught:
                    ShardRows(path.parent, PLAN).block(*PLAN.span(shard))
                assert str(caught.value).startswith(f"{path} is damaged: ")
                seen.add(str(caught.value).split(": ")[1].split(";")[0])
        path.write_bytes(content)
        chunks = {f"chunk {number} fails its checksum" for number in range(2 - shard)}
        assert seen == chunks | {"its index fails the checksum"}


def test_every_truncation_of_a_shard_counts(scratch: Path) -> None:
    for shard in range(2):
        path = shard_path(scratch / "targets", shard)
        content = path.read_bytes()
        for size in range(len(content)):
            path.write_bytes(content[:size])
            with pytest.raises(CacheCorruptError, match=f"^{re.escape(str(path))} is damaged: "):
                ShardRows(path.parent, PLAN).block(*PLAN.span(shard))
        path.write_bytes(content)


def test_every_bit_of_the_cache_s_description_counts(scratch: Path) -> None:
    """Its attributes by their digest; the list of arrays that follows them by the arrays' own descriptions."""
    path = scratch / "zarr.json"
    content = path.read_bytes()
    the_list = content.index(b'"consolidated_metadata"')
    for place in range(the_list):
        for bit in range(8):
            with pytest.raises((CacheFormatError, CacheCorruptError)):
                parse_attributes(flipped(content, place, bit), "cache")
    for place in range(the_list, len(content)):
        path.write_bytes(flipped(content, place, place % 8))
        assert "zarr.json" in found_description(scratch), content[place - 20 : place + 20]
    path.write_bytes(content)


def found_description(folder: Path) -> list[str]:
    try:
        return ["zarr.json"] if not is_consolidated(folder, ARRAYS) else []
    except ValueError:  # which opening the cache tells first
        with pytest.raises((CacheFormatError, CacheCorruptError)):
            RegionCache.open(folder)
        return ["zarr.json"]


def test_every_byte_of_an_array_s_description_counts(scratch: Path) -> None:
    """That of `targets`, which holds all that others do. Its attributes name a projection and are compared with it, and
    names of dimensions are for people."""
    path = scratch / "targets" / "zarr.json"
    content = path.read_bytes()
    digest = re.search(rb'"projection_digest": "\w+"', content)
    names = re.search(rb'"row",\s+"\w+"', content)
    assert digest
    assert names
    assert read_layout(path.parent, PLAN, DIMS["targets"]).is_ours
    for place in sorted(set(range(len(content))) - set(range(*digest.span())) - set(range(*names.span()))):
        path.write_bytes(flipped(content, place, place % 7))
        assert not read_layout(path.parent, PLAN, DIMS["targets"]).is_ours, content[place - 20 : place + 20]
    path.write_bytes(content)


def test_every_bit_of_a_list_counts(scratch: Path) -> None:
    path = scratch / "quarantine" / "shard-1.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            path.write_bytes(flipped(content, place, bit))
            with pytest.raises(CacheCorruptError):
                read_quarantine_file(path)
    path.write_bytes(content)


FILES = [
    *(f"{name}/c.{shard}.0" for name in ARRAYS for shard in range(2)),
    *(f"{name}/zarr.json" for name in ARRAYS),
    *("zarr.json", "projection.safetensors", "images.parquet", "regions.parquet"),
    *("quarantine/shard-0.json", "quarantine/shard-1.json"),
]


def found_in(folder: Path) -> list[str]:
    """Files that verify names, or the one that it refuses to go on without."""
    try:
        return [finding.file for finding in verify_cache(folder).findings]
    except (CacheFormatError, CacheCorruptError):
        return ["zarr.json"]


def assert_found(folder: Path, file: str) -> None:
    # The description of the targets names the projection: when they disagree, either may be at fault.
    same = {"targets/zarr.json": "projection.safetensors"}
    found = found_in(folder)
    assert file in found or same.get(file) in found


def test_all_files_are_named(small: Small, helpers: SimpleNamespace) -> None:
    assert sorted(FILES) == sorted(set(helpers.file_tree(small.folder)) - {"build.lock"})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_in_its_file(scratch: Path, small: Small, file: str, share: float, bit: int) -> None:
    content = (small.folder / file).read_bytes()
    names = re.search(rb'"row",\s+"\w+"', content)
    assume(not names or int(share * len(content)) not in range(*names.span()))  # for people
    (scratch / file).write_bytes(flipped(content, int(share * len(content)), bit))
    try:
        assert_found(scratch, file)
    finally:
        (scratch / file).write_bytes(content)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_found(scratch: Path, small: Small, file: str, share: float) -> None:
    content = (small.folder / file).read_bytes()
    kept = int(share * len(content.rstrip()))  # the end of its last line is nothing that a json file could miss
    (scratch / file).write_bytes(content[:kept])
    try:
        assert file in found_in(scratch)
    finally:
        (scratch / file).write_bytes(content)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_damaged_shard_is_named_with_what_was_found(copied: Path, name: str) -> None:
    path = shard_path(copied / name, 0)
    content = path.read_bytes()
    chunk = 64 * DIMS[name] + 4
    path.write_bytes(flipped(content, chunk + 3, 5))
    (finding,) = verify_cache(copied).findings
    assert finding == Finding(
        kind="damaged", file=f"{name}/c.0.0", message="chunk 1 fails its checksum", array=name, shard=0
    )
    path.write_bytes(content[:20])
    assert findings_of(copied) == [("damaged", f"{name}/c.0.0", "20 bytes are too few to hold its index")]


def test_findings_in_several_files_are_all_listed(copied: Path) -> None:
    for name in ARRAYS:
        shard_path(copied / name, 1).write_bytes(b"")
    (copied / "quarantine" / "shard-0.json").write_bytes(b"{")
    report = verify_cache(copied)
    assert {(found.kind, found.file) for found in report.findings} >= {
        ("damaged", "quarantine/shard-0.json"),
        *(("damaged", f"{name}/c.1.0") for name in ARRAYS),
    }
    assert report.arrays == {"hidden": 2, "visual": 2, "targets": 2}


# --- rows, keys, lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_shard_is_named(copied: Path, name: str) -> None:
    shard_path(copied / name, 1).unlink()
    report = verify_cache(copied)
    assert report.findings == (
        Finding(kind="missing", file=f"{name}/c.1.0", message="not computed yet", array=name, shard=1),
    )
    assert report.arrays[name] == 1


def test_arrays_that_are_not_there_yet_are_no_findings(copied: Path) -> None:
    shutil.rmtree(copied / "targets")
    (copied / "projection.safetensors").unlink()
    report = verify_cache(copied)
    assert (report.findings, report.arrays) == ((), {"hidden": 2, "visual": 2})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_row_that_is_not_finite_must_be_set_aside(copied: Path, name: str, value: float) -> None:
    rewrite(copied, name, 1, set_rows(20, value))
    assert findings_of(copied) == [("suspect", f"{name}/c.1.0", "row 84 is not finite and not set aside")]


def test_one_number_that_is_not_finite_counts_like_a_row(copied: Path) -> None:
    def change(values: NDArray[np.float16]) -> None:
        values[7, 2] = np.nan
        values[9, 1] = np.nan

    rewrite(copied, "hidden", 0, change)
    message = "2 rows (the first is 7) are not finite and not set aside"
    assert findings_of(copied) == [("suspect", "hidden/c.0.0", message)]


@pytest.mark.parametrize("name", ARRAYS)
def test_a_row_that_was_set_aside_must_be_empty(copied: Path, name: str) -> None:
    rewrite(copied, name, 0, lambda values: values.__setitem__((28, 0), 1.5))
    assert findings_of(copied) == [("suspect", f"{name}/c.0.0", "row 28 is set aside but not empty")]


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_a_constant_row_is_suspect(copied: Path, value: float) -> None:
    rewrite(copied, "visual", 0, set_rows([3, 60], value))
    message = "2 rows (the first is 3) are the same number throughout"
    assert findings_of(copied) == [("suspect", "visual/c.0.0", message)]


def test_a_size_far_out_is_suspect(copied: Path) -> None:
    sizes = np.abs(ShardRows(copied / "hidden", PLAN).block(0, ROWS).astype(np.float32)).max(axis=1)
    median = float(np.nanmedian(sizes))
    rewrite(copied, "hidden", 1, lambda values: values.__setitem__(2, np.array([3e4, 1, 2, 3], np.float16)))
    message = f"row 66 is of size 3e+04, outside {median / 100:.3g} to {median * 100:.3g}"
    ((kind, file, found),) = findings_of(copied)
    assert (kind, file) == ("suspect", "hidden/c.1.0")
    assert re.sub(r"outside .*", "", found) == re.sub(r"outside .*", "", message)
    low, high = map(float, re.findall(r"[\d.e+-]+", found.partition("outside ")[2]))
    assert (low, high) == (pytest.approx(median / 100, rel=0.1), pytest.approx(median * 100, rel=0.1))
    rewrite(copied, "hidden", 1, lambda values: values.__setitem__(2, np.array([1e-4, 0, 0, 0], np.float16)))
    assert [finding[:2] for finding in findings_of(copied)] == [("suspect", "hidden/c.1.0")]


def test_sizes_within_the_spread_are_fine(copied: Path) -> None:
    def change(values: NDArray[np.float16]) -> None:
        values[8] *= 20
        values[9] /= 20

    rewrite(copied, "hidden", 0, change)
    assert findings_of(copied) == []


def reseal(folder: Path) -> None:
    """Let a cache describe the table that lies in it, as a build with a fault in its keys would."""
    document = json.loads((folder / "zarr.json").read_text())
    attributes = document["attributes"]
    del attributes["digest"]
    attributes["table_files"] = {name: file_digest(folder / name) for name in ("images.parquet", "regions.parquet")}
    attributes["table_digest"] = RegionTable.read(folder).digest
    attributes["digest"] = attributes_digest(attributes)
    (folder / "zarr.json").write_text(json.dumps(document))


def test_keys_must_follow_from_the_table(copied: Path) -> None:
    table = RegionTable.read(copied)
    xyxy = table.xyxy.copy()
    xyxy[4, 2] += 1
    replace(table, xyxy=xyxy).write(copied)
    reseal(copied)
    message = "keys of row 4 is not those of image, box and class"
    assert findings_of(copied) == [("damaged", "regions.parquet", message)]
    class_ids = (table.class_ids + (np.arange(ROWS) < 10)) % 3
    replace(table, class_ids=class_ids.astype(np.int32)).write(copied)
    reseal(copied)
    message = "keys of 10 rows (the first is 0) are not those of image, box and class"
    assert findings_of(copied) == [("damaged", "regions.parquet", message)]


def test_the_table_of_another_cache_is_found(copied: Path, helpers: SimpleNamespace, tmp_path: Path) -> None:
    RegionTable.build(helpers.make_source(tmp_path / "others", seed=1)).write(copied)
    message = "is not the file that was written"
    assert findings_of(copied) == [("damaged", "images.parquet", message), ("damaged", "regions.parquet", message)]


@pytest.mark.parametrize("file", ["images.parquet", "regions.parquet"])
def test_a_missing_part_of_the_table_is_named(copied: Path, file: str) -> None:
    (copied / file).unlink()
    assert findings_of(copied) == [("damaged", file, "is missing")]


def test_the_targets_of_another_projection_are_found(copied: Path) -> None:
    projection = RegionCache.open(copied).projection()
    replace(projection, components=-projection.components).save(copied / "projection.safetensors")
    message = "is not the projection that the targets were made with"
    assert findings_of(copied) == [("damaged", "projection.safetensors", message)]


def test_a_list_that_was_edited_is_found(copied: Path) -> None:
    path = copied / "quarantine" / "shard-1.json"
    content = json.loads(path.read_text())
    content["regions"][0]["reason"] = "did not like it"
    path.write_text(json.dumps(content))
    kind, file, message = findings_of(copied)[0]
    assert (kind, file, message) == ("damaged", "quarantine/shard-1.json", "it is not the list that was written")


def test_the_list_of_another_shard_is_found(copied: Path) -> None:
    write_set_aside(copied, 0, [*read_quarantine_file(copied / "quarantine" / "shard-1.json")])
    assert findings_of(copied)[0] == ("damaged", "quarantine/shard-0.json", "it is the list of another shard")


def test_a_lost_list_is_found_in_the_rows(copied: Path) -> None:
    (copied / "quarantine" / "shard-0.json").unlink()
    message = "3 rows (the first is 28) are not finite and not set aside"
    assert findings_of(copied) == [("suspect", f"{name}/c.0.0", message) for name in ARRAYS]


def test_what_a_killed_build_leaves_is_not_read(copied: Path) -> None:
    (copied / "quarantine" / ".shard-0.12-ab.partial.json").write_bytes(b'{"regi')
    (copied / "hidden" / ".c.0.12-ab.partial.0").write_bytes(b"half")
    assert findings_of(copied) == []


# --- descriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRAYS)
def test_a_damaged_description_does_not_blame_the_shards(copied: Path, name: str) -> None:
    path = copied / name / "zarr.json"
    path.write_text(path.read_text().replace('"crc32c"', '"crc32d"', 1))
    report = verify_cache(copied)
    message = "it is not the description of an array (Unknown codec: 'crc32d')"
    assert report.findings == (Finding(kind="damaged", file=f"{name}/zarr.json", message=message, array=name),)
    assert report.arrays == {other: 2 for other in ARRAYS if other != name}


def test_a_description_that_was_edited_is_refused(copied: Path) -> None:
    path = copied / "zarr.json"
    path.write_text(path.read_text().replace('"fake/teacher"', '"other/teacher"'))
    with pytest.raises(CacheCorruptError) as caught:
        verify_cache(copied)
    assert str(caught.value) == (
        f"{path} is damaged: it is not the description that was written; fetch it from a sound copy with "
        f"`mocha-pipe cache pull SOURCE {copied}`"
    )


# --- what hides files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["build.lock", "complete.json", "images.parquet", "regions.parquet", "hidden/c.0.0"])
def test_a_link_to_nothing_is_elsewhere(copied: Path, file: str) -> None:
    (copied / file).unlink(missing_ok=True)
    (copied / file).symlink_to("../gone")
    assert findings_of(copied) == [("elsewhere", file, "it is a link to ../gone, which is not there")]


@pytest.mark.parametrize("name", [*ARRAYS, "quarantine"])
def test_a_folder_that_is_a_link_to_nothing_is_elsewhere(copied: Path, name: str) -> None:
    shutil.rmtree(copied / name)
    (copied / name).symlink_to("../gone")
    report = verify_cache(copied)
    assert findings_of(copied) == [("elsewhere", name, "it is a link to ../gone, which is not there")]
    assert report.in_the_way == (name,)


@pytest.mark.parametrize("name", [*ARRAYS, "quarantine"])
def test_a_file_in_place_of_a_folder_is_named_and_moved_by_hand(copied: Path, name: str) -> None:
    shutil.rmtree(copied / name)
    (copied / name).write_text("mine")
    report = verify_cache(copied)
    assert findings_of(copied) == [("blocked", name, "it is a file, and must be a folder")]
    with pytest.raises(CacheWriteError) as refused:
        remove_faults(copied, report)
    assert str(refused.value) == (
        f"{copied}/{name} is not the folder of a cache: it is a file, and must be a folder; move it away with "
        f"`mv {copied}/{name} {copied}/{name}.aside` and run the same command again"
    )
    assert (copied / name).read_text() == "mine"


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_in_version_2_of_zarr_is_named(copied: Path, name: str) -> None:
    shutil.rmtree(copied / name)
    (copied / name).mkdir()
    (copied / name / ".zarray").write_text("{}")
    message = "it is Zarr v2, which mocha-pipe does not read"
    assert findings_of(copied) == [("blocked", name, message)]


@pytest.mark.parametrize("name", ["quarantine", "quarantine/shard-0.json"])
def test_rows_are_not_blamed_for_lists_that_cannot_be_read(copied: Path, name: str) -> None:
    (copied / name).chmod(0)
    with as_nobody(copied):
        assert findings_of(copied) == [("unreadable", name, "cannot be read (Permission denied)")]
    (copied / name).chmod(0o755)


def test_the_description_may_be_elsewhere(copied: Path) -> None:
    (copied / "zarr.json").unlink()
    (copied / "zarr.json").symlink_to("../gone")
    with pytest.raises(CacheIncompleteError) as caught:
        verify_cache(copied)
    assert str(caught.value) == (
        f"{copied}/zarr.json is a link to ../gone, which is not there; fetch the content with the program that keeps "
        f"it, such as `git annex get {copied}` or `dvc pull`, or from a sound copy with `mocha-pipe cache pull SOURCE "
        f"{copied}`"
    )


# --- other layouts ----------------------------------------------------------------------------------------------------


def test_of_an_array_in_another_layout_the_folder_and_the_rows_are_named(copied: Path) -> None:
    lay_out_anew(copied, "zarr's own", "targets")
    (copied / "targets/c/4/0").unlink()
    report = verify_cache(copied)
    assert [(found.kind, found.file, found.message) for found in report.findings] == [
        ("missing", "targets", "rows 64 to 84: not computed yet")
    ]
    assert report.can_be_laid_out_anew
    assert f"`mocha-pipe cache pull {copied} {copied}-2`" in report.notes[0]
    content = (copied / "targets/c/0/0").read_bytes()
    (copied / "targets/c/0/0").write_bytes(content[: len(content) // 2])
    report = verify_cache(copied)
    assert [(found.kind, found.file) for found in report.findings] == [("damaged", "targets"), ("missing", "targets")]
    assert not report.can_be_laid_out_anew
    assert "cache pull" not in report.notes[0], "a pull refuses what is damaged"


@pytest.mark.parametrize(
    ("layout", "is_guarded"), [("zarr's own", False), ("narrow chunks", False), ("big-endian", True)]
)
def test_a_layout_without_checksums_is_told(copied: Path, layout: str, is_guarded: bool) -> None:
    lay_out_anew(copied, layout, "visual")
    (note,) = verify_cache(copied).notes
    assert ("nothing is written to it; no checksum guards its values; copy it into" in note) is not is_guarded


def test_a_layout_that_lost_its_attributes_is_not_repaired(copied: Path) -> None:
    lay_out_anew(copied, "zarr's own", "targets")
    path = copied / "targets/zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attributes": {}}))
    with pytest.raises(CacheFormatError, match="nothing is written to an array in another layout"):
        remove_faults(copied, report_of(copied))


# --- repair -----------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Callable[[Path], object], set[str], int]] = {
    "a flipped bit in hidden": (
        lambda cache: flip_file(cache / "hidden" / "c.0.0", 40),
        {"hidden/c.0.0", "visual/c.0.0", "targets/c.0.0", "quarantine/shard-0.json"},
        62,
    ),
    "a truncated visual": (
        lambda cache: (cache / "visual" / "c.1.0").write_bytes(b"short"),
        {"hidden/c.1.0", "visual/c.1.0", "targets/c.1.0", "quarantine/shard-1.json"},
        19,
    ),
    "a flipped bit in targets": (lambda cache: flip_file(cache / "targets" / "c.1.0", 40), {"targets/c.1.0"}, 0),
    "the description of targets": (
        lambda cache: (cache / "targets" / "zarr.json").write_bytes(b"{"),
        {"targets/zarr.json", "targets/c.0.0", "targets/c.1.0"},
        0,
    ),
    "a flipped bit in the projection": (
        lambda cache: flip_file(cache / "projection.safetensors", -9),
        {"projection.safetensors"},
        0,
    ),
    "a damaged list": (
        lambda cache: flip_file(cache / "quarantine" / "shard-1.json", 30),
        {"hidden/c.1.0", "visual/c.1.0", "targets/c.1.0", "quarantine/shard-1.json"},
        19,
    ),
    "constant rows": (
        lambda cache: rewrite(cache, "hidden", 1, set_rows(3, 0.0)),
        {"hidden/c.1.0", "visual/c.1.0", "targets/c.1.0", "quarantine/shard-1.json"},
        19,
    ),
    "a missing shard": (lambda cache: (cache / "visual" / "c.1.0").unlink(), set(), 19),
}


def flip_file(path: Path, place: int) -> None:
    content = path.read_bytes()
    path.write_bytes(flipped(content, place % len(content), 4))


@pytest.mark.parametrize(("fault", "removed", "embedded"), FAULTS.values(), ids=FAULTS)
def test_repair_removes_and_computes_just_what_is_at_fault(
    small: Small,
    copied: Path,
    helpers: SimpleNamespace,
    fault: Callable[[Path], object],
    removed: set[str],
    embedded: int,
) -> None:
    fault(copied)
    report = verify_cache(copied)
    assert report.findings
    before = helpers.file_tree(copied)
    assert {path.relative_to(copied).as_posix() for path in remove_faults(copied, report)} == removed
    assert helpers.file_tree(copied) == {name: content for name, content in before.items() if name not in removed}
    teacher = small.teacher()
    helpers.build(small.source, copied, teacher if embedded else None, spec=teacher.spec)
    assert sum(teacher.calls) == embedded
    assert helpers.file_tree(copied) == helpers.file_tree(small.folder)
    assert verify_cache(copied).findings == ()


def test_a_file_of_others_in_a_damaged_array_stays(copied: Path) -> None:
    notes = copied / "targets/notes.txt"
    notes.write_text("mine")
    (copied / "targets/zarr.json").write_bytes(b"{")
    removed = {path.name for path in remove_faults(copied, report_of(copied))}
    assert removed == {"zarr.json", "c.0.0", "c.1.0"}
    with pytest.raises(CacheFormatError) as refused:
        create_array_atomically(copied, "targets", PLAN, DIMS["targets"], {})
    assert str(refused.value) == (
        f"{copied}/targets holds something else than an array; move that away and run the same command again"
    )
    assert notes.read_text() == "mine"


def test_without_findings_nothing_is_removed(copied: Path) -> None:
    assert remove_faults(copied, verify_cache(copied)) == []


def report_of(folder: Path) -> VerifyReport:
    report = verify_cache(folder)
    assert report.findings
    return report


@pytest.mark.parametrize("file", ["images.parquet", "regions.parquet", "hidden/zarr.json", "visual/zarr.json"])
def test_what_follows_from_the_data_set_is_written_anew(
    small: Small, copied: Path, helpers: SimpleNamespace, file: str
) -> None:
    path = copied / file
    path.write_bytes(path.read_bytes()[:-30])
    report = report_of(copied)
    assert remove_faults(copied, report) == []
    others = RegionTable.build(replace(small.source, records=small.source.records[1:-1]))
    if file.endswith("parquet"):
        with pytest.raises(CacheMismatchError) as refused:
            restore(copied, report, others)
        assert str(refused.value) == (
            f"the region table of {copied} is damaged, and the data set has other regions; name the data set that it "
            "was made from with --data"
        )
    assert path in restore(copied, report, RegionTable.build(small.source))
    assert verify_cache(copied).findings == ()
    assert helpers.file_tree(copied) == helpers.file_tree(small.folder)


def test_a_table_that_another_parquet_writer_wrote_is_a_table_too(small: Small, copied: Path) -> None:
    table = RegionTable.build(small.source)
    report = VerifyReport(
        findings=(Finding(kind="damaged", file="regions.parquet", message=""),),
        arrays={}, rows=0, set_aside=0, bytes=0, seconds=0, notes=(), is_foreign=False, is_rounded=False,
    )  # fmt: skip
    write_table_files(copied, {"images.parquet": "0" * 32, "regions.parquet": "0" * 32})
    assert [finding.message for finding in verify_cache(copied).findings] == 2 * ["is not the file that was written"]
    restore(copied, report, table)
    assert verify_cache(copied).findings == ()


def test_progress_counts_shards(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    def make_bar(**options: Any) -> MagicMock:
        bars.append((MagicMock(), options))
        bars[-1][0].__enter__.return_value = bars[-1][0]
        return bars[-1][0]

    monkeypatch.setattr("mocha_pipe.teacher_cache.checking.verify.tqdm", make_bar)
    verify_cache(small.folder, progress=True)
    ((bar, options),) = bars
    assert (options["total"], options["disable"], bar.update.call_count) == (6, False, 6)
