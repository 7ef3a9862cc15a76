"""A stage's folder: skipped when complete, gone on with when begun, refused when made from something else."""

import json
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.pipeline.errors import StageMismatchError, StageMissingError
from mocha_pipe.pipeline.rundir import (
    BEGUN,
    COMPLETE,
    Identity,
    is_complete,
    read_completion,
    run_stage,
    told_path,
    versions,
)


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
    assert not (tmp_path / BEGUN).exists()


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
    assert "\n" not in str(damaged.value)
    assert str(damaged.value).endswith(f"delete its folder with: rm -r {tmp_path}")


def test_versions_name_the_packages_without_importing_them() -> None:
    found = versions()
    assert {"python", "mocha-pipe", "torch", "ultralytics", "transformers", "zarr"} <= set(found)
    assert found["mocha-pipe"] != "absent"
