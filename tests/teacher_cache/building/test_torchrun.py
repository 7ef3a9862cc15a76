"""The real command under the real launcher: torchrun starts two processes, which share the shards of one cache."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mocha_pipe.data.miniature import WorldSize, make_miniature
from mocha_pipe.data.regions import RegionTable
from mocha_pipe.data.source import open_source
from mocha_pipe.pipeline.run.inputs import teacher_config
from mocha_pipe.teacher_cache.building.build import build_cache, open_or_create
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import describe_teacher, load_teacher


def test_torchrun_makes_the_cache_of_a_single_build(
    tmp_path: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = WorldSize(train_scenes=40, val_scenes=1, objects_per_shape=2, scenes_per_object=1)
    make_miniature(tmp_path / "world", size, progress=False)
    data, folder = tmp_path / "world" / "data.yaml", tmp_path / "cache"
    source = open_source(data, "train", keep_unreadable=True)
    table = RegionTable.build(source)
    teacher = teacher_config(TeacherConfig(model="miniature", device="cpu"))
    spec = describe_teacher(teacher)
    open_or_create(folder, table, spec, 32)  # several shards, which a cache this small would not have by itself

    mocha_pipe = Path(sys.executable).with_name("mocha-pipe")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    command = [*torchrun, mocha_pipe, "cache", "build", "--data", data, "--cache", folder, "--device", "cpu", "--json"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # one of the two speaks
    assert (report["rows"], report["missing_shards"], report["skipped"]) == (len(table), 0, False)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun's processes have it: other sums, other last bits
    try:
        build_cache(
            source, table, tmp_path / "single", spec=spec, load_teacher=lambda: load_teacher(teacher), rows_per_shard=32
        )
    finally:
        torch.set_num_threads(threads)
    cache = RegionCache.open(folder)
    assert cache.is_complete
    assert len(cache.plan) > 2
    tree = helpers.file_tree(folder)
    marker = json.loads(tree.pop("complete.json"))
    assert marker["outputs"]["digest"] == report["digest"]
    assert tree == helpers.file_tree(tmp_path / "single")
