"""Teacher, base detector and cache are known by their content: folders are moved and renamed, and nothing is lost."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import mocha_pipe.teacher_cache.teachers
from mocha_pipe.data.files import json_digest
from mocha_pipe.pipeline.run.inputs import TEACHER_NOTE, cache_digest, teacher_of_cache
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, run_demo
from mocha_pipe.teacher_cache.checking.verify import verify_cache
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import attributes_digest


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def shards_of(cache: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in sorted(cache.glob("*/c.*"))}


def test_a_moved_root_gives_the_same_report(
    finished: RunConfig,
    copied_toy: RunConfig,
    tmp_path: Path,
    command: Callable[..., Result],
    request: pytest.FixtureRequest,
) -> None:
    root = copied_toy.root.rename(tmp_path / "renamed")
    flags = ["--root", root, "--out", tmp_path / "out", "--device", "cpu", "--confidence", 0.0001, "--episodes", 2]
    result = command("fewshot", *flags, "--shots", 1, "--shots", 2, "--json")
    assert result.exit_code == 0, result.stderr
    again, before = json.loads(result.stdout), read(finished.root / "report.json")
    for report in (again, before):
        del report["seconds"]["fewshot"]
    assert again == before
    assert {"base", "cache"} <= again["seconds"].keys(), "their markers were found"
    assert "target:" in (tmp_path / "out/report.html").read_text(), "so was the projection"
    # Another question replaces the answer.
    request.getfixturevalue("no_page")
    result = command("fewshot", *flags, "--learner", "simpleshot", "--no-teacher", "--json")
    assert [list(shown["methods"]) for shown in json.loads(result.stdout)["results"]] == [
        ["histogram", "yolo", "mocha"]
    ]


def test_a_moved_root_is_as_complete_as_it_was(copied_toy: RunConfig) -> None:
    assert [done.skipped for done in run_demo(copied_toy)] == [True] * 5


def test_markers_hold_no_path_of_this_machine(finished: RunConfig) -> None:
    markers = [path.read_text() for path in (*finished.root.rglob("complete.json"), *finished.root.glob("last-*.json"))]
    assert len(markers) == 7
    assert not any('"/' in text for text in markers)
    assert read(finished.root / "distill/complete.json")["outputs"]["cache"] == "../cache"


@pytest.fixture
def cache(finished: RunConfig, tmp_path: Path) -> Path:
    """A copy of the finished cache."""
    return Path(shutil.copytree(finished.root / "cache", tmp_path / "caches/toy"))


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The miniature teacher in a folder of another name."""
    shipped = Path(mocha_pipe.teacher_cache.teachers.__path__[0]) / "miniature"
    return Path(shutil.copytree(shipped, tmp_path / "models/my teacher"))


def built(config: RunConfig, cache: Path, **teacher: Any) -> dict[str, Any]:
    """What a build of the cache did."""
    (cache / "complete.json").unlink()
    changes = {"cache": replace(config.cache, folder=cache), "teacher": replace(config.teacher, **teacher)}
    return build_teacher_cache(replace(config, **changes)).outputs


def test_equal_weights_in_a_folder_of_another_name_are_the_same_teacher(
    finished: RunConfig, cache: Path, teacher: Path
) -> None:
    before, digest = shards_of(cache), cache_digest(RegionCache.open(cache))
    outputs = built(finished, cache, model=str(teacher))
    assert (outputs["computed_shards"], outputs["teacher"], outputs["digest"]) == (0, "my teacher", digest)
    assert shards_of(cache) == before
    assert teacher_of_cache(RegionCache.open(cache), None).model == str(teacher), "what needs it finds it"


def test_where_the_teacher_lies_is_not_shared(
    finished: RunConfig, cache: Path, teacher: Path, tmp_path: Path, command: Callable[..., Result]
) -> None:
    built(finished, cache, model=str(teacher))
    assert read(cache / TEACHER_NOTE) == {"model": str(teacher)}
    for place in (f"file://{tmp_path}/bucket/toy", tmp_path / "share/toy"):
        result = command("cache", "push", cache, place)
        assert result.exit_code == 0, result.stderr
        there = Path(str(place).removeprefix("file://"))
        assert read(there / "complete.json")["outputs"]["teacher"] == "my teacher"
        assert not (there / TEACHER_NOTE).exists()
        assert not any(str(tmp_path) in path.read_text() for path in there.rglob("*.json"))


def test_the_marker_of_an_older_version_says_where_the_teacher_lies(cache: Path, teacher: Path) -> None:
    marker = read(cache / "complete.json")
    marker["outputs"]["teacher"] = str(teacher)
    (cache / "complete.json").write_text(json.dumps(marker))
    assert teacher_of_cache(RegionCache.open(cache), None).model == str(teacher)


def test_a_folder_that_is_called_miniature_is_not_the_teacher(
    finished: RunConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.root)
    assert Path("miniature").is_dir(), "the world"
    assert built(finished, cache)["teacher"] == "miniature"
    assert not (cache / TEACHER_NOTE).exists()
    assert teacher_of_cache(RegionCache.open(cache), None).model == "miniature"


def test_a_cache_whose_digest_of_the_teacher_counts_the_folder_s_name_is_sound(
    finished: RunConfig, cache: Path, teacher: Path
) -> None:
    """As earlier versions wrote it."""
    document = read(cache / "zarr.json")
    attributes = document["attributes"]
    attributes["teacher_digest"] = json_digest(attributes["teacher"])
    assert attributes["teacher_digest"] != RegionCache.open(cache).teacher_digest
    attributes["digest"] = attributes_digest(attributes)
    (cache / "zarr.json").write_text(json.dumps(document))
    old = RegionCache.open(cache)
    assert verify_cache(cache).findings == ()
    assert cache_digest(old) != cache_digest(RegionCache.open(finished.root / "cache")), "its runs stay complete"
    assert built(finished, cache, model=str(teacher))["computed_shards"] == 0
