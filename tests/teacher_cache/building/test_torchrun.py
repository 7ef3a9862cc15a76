"""The command under the real launcher: torchrun starts two processes, which share the shards of one cache."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source
from mocha_pipe.teacher_cache.building.build import open_or_create
from mocha_pipe.teacher_cache.store.cache import RegionCache
from tests.shared import ROOT

COMMAND = """
from mocha_pipe.pipeline.cli.main import main
from mocha_pipe.teacher_cache.teachers import loading
from tests.teacher_cache.fakes import SPEC, FakeTeacher

loading.describe_teacher = lambda config: SPEC
loading.load_teacher = lambda config: FakeTeacher()
main()
"""
"""The command with a teacher that is loaded at once: transformers takes most of the time of a real one."""


def test_torchrun_makes_the_cache_of_a_single_build(
    tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = WorldSize(train_scenes=30, val_scenes=1, objects_per_shape=2, scenes_per_object=1)
    make_miniature(tmp_path / "world", size, progress=False)
    data, folder = tmp_path / "world" / "data.yaml", tmp_path / "cache"
    source = open_source(data, "train", keep_unreadable=True)
    table = RegionTable.build(source)
    open_or_create(folder, table, helpers.spec, 32)  # several shards, which a cache this small would not have by itself

    (tmp_path / "mocha_pipe_command.py").write_text(COMMAND)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        tmp_path / "mocha_pipe_command.py",
    ]
    command = [
        *torchrun,
        "cache",
        "build",
        "--data",
        data,
        "--cache",
        folder,
        "--device",
        "cpu",
        "--batch",
        1,
        "--json",
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # one of the two speaks
    assert (report["rows"], report["missing_shards"], report["skipped"]) == (len(table), 0, False)

    helpers.build(source, tmp_path / "single", helpers.Teacher(), table=table)
    cache = RegionCache.open(folder)
    assert cache.is_complete
    assert len(cache.plan) > 2
    tree = helpers.file_tree(folder)
    marker = json.loads(tree.pop("complete.json"))
    assert marker["outputs"]["digest"] == report["digest"]
    assert tree == helpers.file_tree(tmp_path / "single")
