"""A stage's folder: skipped when complete, gone on with when begun, refused when made from something else."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.files import exclusive
from mocha_pipe.pipeline.errors import StageBusyError, StageMismatchError, StageMissingError
from mocha_pipe.pipeline.markers import BEGUN, COMPLETE, Identity, is_complete, read_completion, told_path, versions
from mocha_pipe.pipeline.rundir import claim_folder, run_stage, run_whole_stage


def identity(**config: Any) -> Identity:
    return Identity(stage="bake", config={"epochs": 3, "train": {"lr0": 0.1}, **config}, inputs={"flour": "aa"})


class Work:
    """Counts its calls; the first `crashes` of them fail after they have written something."""

    def __init__(self, folder: Path, crashes: int = 0) -> None:
        self.folder, self.crashes, self.calls = folder, crashes, 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        (self.folder / "part").write_text(str(self.calls))
        if self.calls <= self.crashes:
            raise RuntimeError("killed")
        return {"bread": "part", "size": (1, 2)}


def test_a_first_run_does_the_work_and_writes_its_marker(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    done = run_stage(folder, identity(), Work(folder), flag="--run")
    marker = json.loads((folder / COMPLETE).read_text())
    assert not done.skipped
    assert marker["stage"] == "bake"
    assert marker["config"] == {"epochs": 3, "train": {"lr0": 0.1}}
    assert marker["inputs"] == {"flour": "aa"}
    assert marker["outputs"] == {"bread": "part", "size": [1, 2]} == done.outputs
    assert marker["versions"] == versions()
    assert marker["seconds"] >= 0


def test_a_second_run_skips_what_is_complete(tmp_path: Path) -> None:
    work = Work(tmp_path)
    first = run_stage(tmp_path, identity(), work, flag="--run")
    marker = (tmp_path / COMPLETE).read_bytes()
    second = run_stage(tmp_path, identity(), work, flag="--run")
    assert work.calls == 1
    assert second.skipped
    assert (second.outputs, second.seconds) == (first.outputs, first.seconds)
    assert (tmp_path / COMPLETE).read_bytes() == marker


def test_a_crash_leaves_no_completion_and_the_next_run_goes_on(tmp_path: Path) -> None:
    work = Work(tmp_path, crashes=1)
    with pytest.raises(RuntimeError, match="killed"):
        run_stage(tmp_path, identity(), work, flag="--run")
    assert (tmp_path / BEGUN).is_file()
    assert not is_complete(tmp_path, stage="bake")
    done = run_stage(tmp_path, identity(), work, flag="--run")
    assert work.calls == 2
    assert not done.skipped
    assert is_complete(tmp_path, stage="bake")


def test_other_settings_are_refused_by_the_names_of_the_fields_that_differ(tmp_path: Path) -> None:
    work = Work(tmp_path / "run")
    run_stage(tmp_path / "run", identity(), work, flag="--run")
    with pytest.raises(StageMismatchError) as refused:
        run_stage(tmp_path / "run", identity(epochs=5, train={"lr0": 0.2}), work, flag="--run")
    assert str(refused.value) == (
        f"{tmp_path}/run was completed with other settings (epochs: it has 3, asked for 5; train.lr0: it has 0.1, "
        f"asked for 0.2): name another folder with --run, or delete this one with: rm -r {tmp_path}/run"
    )
    assert work.calls == 1


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    run_stage(tmp_path, identity(), Work(tmp_path), flag="--run")
    other = Identity(stage="bake", config=identity().config, inputs={"flour": "bb"})
    with pytest.raises(StageMismatchError, match=r'\(inputs\.flour: it has "aa", asked for "bb"\)'):
        run_stage(tmp_path, other, Work(tmp_path), flag="--run")


def test_a_begun_stage_is_not_gone_on_with_under_other_settings(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run_stage(tmp_path, identity(), Work(tmp_path, crashes=1), flag="--run")
    with pytest.raises(StageMismatchError, match=r"was begun with other settings \(epochs: it has 3, asked for 4\)"):
        run_stage(tmp_path, identity(epochs=4), Work(tmp_path), flag="--run")


def test_a_stage_that_replaces_does_its_work_again_for_other_settings_only(tmp_path: Path) -> None:
    work = Work(tmp_path)
    for epochs in (3, 3, 4):
        run_stage(tmp_path, identity(epochs=epochs), work, flag="--out", replace=True)
    assert work.calls == 2
    assert read_completion(tmp_path, stage="bake", command="").config["epochs"] == 4


def test_a_complete_stage_whose_result_is_gone_is_done_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    for _ in range(2):
        run_stage(tmp_path, identity(), work, flag="--run", is_whole=lambda: (tmp_path / "part").exists())
    assert work.calls == 1
    (tmp_path / "part").unlink()
    run_stage(tmp_path, identity(), work, flag="--run", is_whole=lambda: (tmp_path / "part").exists())
    assert work.calls == 2


def test_a_missing_stage_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StageMissingError) as missing:
        read_completion(tmp_path / "run", stage="bake", command="mocha-pipe bake")
    assert str(missing.value) == f"{tmp_path}/run: the bake stage is not there; run: mocha-pipe bake"
    with pytest.raises(RuntimeError):
        run_stage(tmp_path, identity(), Work(tmp_path, crashes=1), flag="--run")
    with pytest.raises(StageMissingError, match="the bake stage was begun but is not complete; run: mocha-pipe bake"):
        read_completion(tmp_path, stage="bake", command="mocha-pipe bake")


def test_paths_in_a_marker_move_with_the_root(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "work", tmp_path / "models/yolo.pt"
    places = {"cache": root / "cache", "base": root / "base/best.pt", "model": elsewhere}

    def work() -> dict[str, str]:
        return {name: told_path(path, folder=root / "run", root=root) for name, path in places.items()}

    done = run_stage(root / "run", identity(), work, flag="--run")
    assert done.outputs == {"cache": "../cache", "base": "../base/best.pt", "model": str(elsewhere)}
    moved = root.rename(tmp_path / "moved")
    again = read_completion(moved / "run", stage="bake", command="")
    assert [again.path(name) for name in places] == [moved / "cache", moved / "base/best.pt", elsewhere]


def test_a_run_outside_the_root_names_whole_paths(tmp_path: Path) -> None:
    cache, folder = tmp_path / "work/cache", tmp_path / "scratch/run"
    assert told_path(cache, folder=folder, root=tmp_path / "work") == str(cache)


def test_whole_paths_of_earlier_versions_are_read(tmp_path: Path) -> None:
    run_stage(tmp_path / "run", identity(), lambda: {"cache": str(tmp_path / "cache")}, flag="--run")
    assert read_completion(tmp_path / "run", stage="bake", command="").path("cache") == tmp_path / "cache"


def test_a_damaged_marker_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / COMPLETE).write_text("{")
    with pytest.raises(StageMismatchError) as damaged:
        run_stage(tmp_path, identity(), Work(tmp_path), flag="--run")
    assert str(damaged.value) == (
        f"{tmp_path}/complete.json cannot be read as json (Expecting property name enclosed in double quotes: line 1 "
        "column 2 (char 1)): name another folder, or where mocha-pipe made this one, move that file away and run the "
        "same command again"
    )


@pytest.mark.parametrize("content", ["[]", "7", "[" * 5000, "1" * 5000])
def test_a_marker_of_something_else_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / COMPLETE).write_text(content)
    with pytest.raises(StageMismatchError, match=r"complete.json (must hold|cannot be read).*: name another folder"):
        run_stage(tmp_path, identity(), Work(tmp_path), flag="--run")
    assert (tmp_path / COMPLETE).read_text() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_a_stage_that_shares_its_folder_minds_only_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "distill").mkdir()
    (tmp_path / "part").write_text("years of work")
    with pytest.raises(StageMismatchError, match=r"something that mocha-pipe did not make \(part\)"):
        run_stage(tmp_path, identity(), Work(tmp_path), flag="--run", only=["part", "report"])
    assert (tmp_path / "part").read_text() == "years of work"
    (tmp_path / "part").unlink()
    for skipped in (False, True):
        assert run_stage(tmp_path, identity(), Work(tmp_path), flag="--run", only=["part"]).skipped is skipped


def test_the_parts_of_a_claimed_folder_are_stages_of_their_own(tmp_path: Path) -> None:
    for _ in range(2):
        claim_folder(tmp_path, "bakery", flag="--out")
        run_stage(tmp_path / "first", identity(), Work(tmp_path / "first"), flag="--out")
    with pytest.raises(StageMismatchError, match="holds the stage 'bakery', not 'bake': name another folder"):
        run_stage(tmp_path, identity(), Work(tmp_path), flag="--run")
    (tmp_path / "begun.json").unlink()
    with pytest.raises(StageMismatchError, match=r"did not make \(first\): name a new or empty folder with --out"):
        claim_folder(tmp_path, "bakery", flag="--out")


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "part").write_text("years of work")
    with pytest.raises(StageMismatchError) as refused:
        run_stage(tmp_path, identity(), Work(tmp_path), flag="--run", replace=replace)
    assert str(refused.value) == (
        f"{tmp_path} holds something that mocha-pipe did not make (part): name a new or empty folder with --run"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["years of work"]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("marker", [BEGUN, COMPLETE])
def test_the_folder_of_another_stage_is_left_alone(tmp_path: Path, replace: bool, marker: str) -> None:
    (tmp_path / marker).write_text(json.dumps({"stage": "cook", "config": {}}))
    with pytest.raises(StageMismatchError) as refused:
        run_stage(tmp_path, identity(), Work(tmp_path), flag="--run", replace=replace)
    assert str(refused.value) == f"{tmp_path} holds the stage 'cook', not 'bake': name another folder with --run"
    assert [path.name for path in tmp_path.iterdir()] == [marker]


def test_what_a_killed_start_left_behind_is_no_strangers(tmp_path: Path) -> None:
    for name in (".mocha-pipe.lock", ".begun.123-00ff00ff.partial.json"):
        (tmp_path / name).touch()
    assert not run_stage(tmp_path, identity(), Work(tmp_path), flag="--run").skipped


def test_a_second_process_in_one_folder_is_refused(tmp_path: Path) -> None:
    def work() -> dict[str, Any]:
        with pytest.raises(StageBusyError) as refused:
            run_stage(tmp_path, identity(), Work(tmp_path), flag="--run")
        assert str(refused.value) == (
            f"{tmp_path}: another process is at work on this bake stage: wait until it has ended, or name another "
            "folder with --run"
        )
        return {}

    assert not run_stage(tmp_path, identity(), work, flag="--run").skipped
    assert run_stage(tmp_path, identity(), work, flag="--run").skipped, "the lock is free again"


def test_what_is_complete_is_found_while_another_process_asks_for_it_too(tmp_path: Path) -> None:
    work = Work(tmp_path)
    run_stage(tmp_path, identity(), work, flag="--run")
    with exclusive(tmp_path / ".mocha-pipe.lock"):
        assert run_stage(tmp_path, identity(), work, flag="--run").skipped


def test_a_whole_folder_appears_at_the_end_and_is_then_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "bread"

    def work(building: Path) -> dict[str, Any]:
        assert not folder.exists()
        (building / "part").touch()
        return {"bread": "part"}

    done = run_whole_stage(folder, identity(), work, flag="--out")
    assert (done.folder, done.skipped) == (folder, False)
    assert sorted(path.name for path in folder.iterdir()) == [COMPLETE, "part"]
    assert run_whole_stage(folder, identity(), work, flag="--out").skipped
    with pytest.raises(StageMismatchError, match=r"epochs: it has 3, asked for 5.*--out"):
        run_whole_stage(folder, identity(epochs=5), work, flag="--out")


def test_two_that_make_one_whole_folder_make_it_once(tmp_path: Path) -> None:
    folder, calls = tmp_path / "bread", []

    def work(building: Path) -> dict[str, Any]:
        calls.append(building)
        return {}

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run_whole_stage(folder, identity(), work, flag="--out"), range(4)))
    assert sorted(each.skipped for each in done) == [False, True, True, True]
    assert len(calls) == 1


@pytest.mark.parametrize("names", [["data.yaml", "images", "labels"], [".hidden"], [BEGUN]])
def test_a_whole_folder_takes_nobodys_place(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(DatasetError) as refused:
        run_whole_stage(tmp_path, identity(), Work(tmp_path), flag="--out")  # type: ignore[arg-type]
    assert str(refused.value) == (
        f"{tmp_path}: must be a new or empty folder, found something there; name another with --out"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("marker", "lacking", "version"),
    [
        ({"stage": "bake", "versions": {"mocha-pipe": "0.0.1"}}, "config, inputs, outputs, seconds", "0.0.1"),
        ({"stage": "bake", "outputs": [], "seconds": 1, "config": {}, "inputs": {}}, "outputs, versions", None),
        ({"stage": "bake", "outputs": {}, "seconds": 1, "config": {}, "inputs": {}, "versions": {}}, "bread", None),
    ],
)
def test_the_marker_of_another_version_is_one_line(
    tmp_path: Path, marker: dict[str, Any], lacking: str, version: str | None
) -> None:
    (tmp_path / COMPLETE).write_text(json.dumps(marker))
    with pytest.raises(StageMismatchError) as refused:
        read_completion(tmp_path, stage="bake", command="", outputs=["bread"])
    assert str(refused.value) == (
        f"{tmp_path}/complete.json lacks {lacking}: mocha-pipe {version or 'of another version'} wrote it, this is "
        f"{versions()['mocha-pipe']}; use that version, or make the stage again in another folder"
    )


def test_versions_name_the_packages_without_importing_them() -> None:
    found = versions()
    assert {"python", "mocha-pipe", "torch", "ultralytics", "transformers", "zarr"} <= set(found)
    assert found["mocha-pipe"] != "absent"
