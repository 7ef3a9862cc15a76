"""The Hub is faked: a memory file system behind the driver's interface, and commits that write to it."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from tenacity import wait_none

from mocha_pipe.teacher_cache.errors import TransferError
from mocha_pipe.teacher_cache.sharing import pull, push
from mocha_pipe.teacher_cache.sharing.exchange import open_place
from mocha_pipe.teacher_cache.sharing.places import hub
from mocha_pipe.teacher_cache.sharing.places import place as place_module
from mocha_pipe.teacher_cache.sharing.places.hub import HubPlace
from mocha_pipe.teacher_cache.store.layout import shard_path

URL = "hf://datasets/team/caches/coco"


class FakeHub(MemoryFileSystem):
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    endpoint, token = "https://hub.example", "secret"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("hf://").strip("/")

    def resolve_path(self, path: str) -> SimpleNamespace:
        kind, owner, name, *folders = path.strip("/").split("/")
        if (kind, owner) != ("datasets", "team"):
            raise FileNotFoundError(f"{owner}/{name} (repository not found)")
        return SimpleNamespace(
            repo_id=f"{owner}/{name}", repo_type="dataset", revision="main", path_in_repo="/".join(folders)
        )


class FakeApi:
    commits: ClassVar[list[list[str]]] = []
    """Names that each commit added or, with a minus, removed."""
    failures: ClassVar[list[Exception]] = []

    def __init__(self, **options: str) -> None:
        assert options == {"endpoint": "https://hub.example", "token": "secret"}

    def create_commit(self, *arguments: Any, **options: Any) -> None:
        bound = inspect.signature(HfApi.create_commit).bind(self, *arguments, **options).arguments
        if self.failures:
            raise self.failures.pop()
        assert (bound["repo_id"], bound["repo_type"], bound["revision"]) == ("team/caches", "dataset", "main")
        operations: Sequence[CommitOperationAdd | CommitOperationDelete] = bound["operations"]
        files = FakeHub()
        for operation in operations:
            path = f"/datasets/team/caches/{operation.path_in_repo}"
            if isinstance(operation, CommitOperationAdd):
                assert isinstance(operation.path_or_fileobj, str)
                files.pipe_file(path, Path(operation.path_or_fileobj).read_bytes())
            else:
                files.rm_file(path)
        names = [operation.path_in_repo.removeprefix("coco/") for operation in operations]
        self.commits.append(
            [
                name if isinstance(operation, CommitOperationAdd) else f"-{name}"
                for name, operation in zip(names, operations, strict=True)
            ]
        )


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    for kind, name in ((FakeHub, "store"), (FakeHub, "pseudo_dirs"), (FakeApi, "commits"), (FakeApi, "failures")):
        getattr(kind, name).clear()
    monkeypatch.setattr(place_module, "find_driver", lambda protocol: {"hf": FakeHub}.get(protocol, original(protocol)))
    monkeypatch.setattr(place_module, "wait_random_exponential", lambda **_: wait_none())
    monkeypatch.setattr(hub, "HfApi", FakeApi)
    return FakeApi.commits


original = place_module.find_driver


def test_a_cache_goes_to_the_hub_in_few_commits_and_comes_back(
    finished: Path, commits: list[list[str]], tmp_path: Path, tools: Any
) -> None:
    assert push(finished, URL).files == 16
    assert commits[0] == ["zarr.json"]
    assert sorted(commits[1]) == ["hidden/zarr.json", "images.parquet", "regions.parquet", "visual/zarr.json"]
    assert commits[2:4] == [["projection.safetensors"], ["targets/zarr.json"]]
    assert commits[4] == [f"{array}/c.{shard}.0" for shard in range(3) for array in ("hidden", "visual")]
    assert commits[5] == [f"targets/c.{shard}.0" for shard in range(3)]
    assert len(commits) == 6
    pull(URL, tmp_path / "copy")
    assert tools.content(tmp_path / "copy") == tools.content(finished)
    assert push(finished, URL).files == 0
    assert len(commits) == 6


def test_a_commit_holds_so_many_shards_and_no_more(
    finished: Path, commits: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HubPlace, "batch", 2)
    push(finished, URL)
    assert [len(names) for names in commits if names[0].startswith("hidden/c")] == [4, 2]


def test_what_must_go_goes_with_the_commit_that_replaces_it(
    finished: Path, rival: Path, commits: list[list[str]], tmp_path: Path
) -> None:
    push(finished, URL)
    files = FakeHub()
    for name in (
        "visual/c.1.0",
        "targets/zarr.json",
        "projection.safetensors",
        *(f"targets/c.{k}.0" for k in range(3)),
    ):
        files.rm_file(f"/datasets/team/caches/coco/{name}")
    files.pipe_file("/datasets/team/caches/coco/quarantine/shard-1.json", b"{}")
    commits.clear()
    pull(str(rival), tmp_path / "part")
    for path in ("targets", "projection.safetensors"):
        (tmp_path / "part" / path).rename(tmp_path / f"aside-{path}")
    push(tmp_path / "part", URL)
    # The targets went away above, so that the description lists them no longer.
    assert commits == [["hidden/c.1.0", "visual/c.1.0", "-quarantine/shard-1.json"], ["zarr.json"]]
    assert files.cat_file("/datasets/team/caches/coco/hidden/c.1.0") == shard_path(rival / "hidden", 1).read_bytes()


def test_a_failing_commit_is_tried_again(finished: Path, commits: list[list[str]]) -> None:
    FakeApi.failures.append(ConnectionError("gone"))
    assert push(finished, URL).files == 16
    FakeApi.failures.extend([ConnectionError("gone")] * 4)
    FakeHub().rm_file("/datasets/team/caches/coco/targets/c.1.0")
    with pytest.raises(
        TransferError, match=r"^hf://datasets/team/caches/coco failed 4 times \(gone\); check connection"
    ):
        push(finished, URL)


def test_a_repository_that_is_not_there(finished: Path, commits: list[list[str]]) -> None:
    with pytest.raises(
        TransferError, match=r"^hf://datasets/nobody/caches cannot be written to \(nobody/caches .*make"
    ):
        push(finished, "hf://datasets/nobody/caches")


def test_the_driver_has_what_a_commit_asks_it_for() -> None:
    driver = HfFileSystem(endpoint="http://127.0.0.1:9", token="secret", skip_instance_cache=True)
    assert (driver.endpoint, driver.token) == ("http://127.0.0.1:9", "secret")


def test_repositories_take_commits_and_buckets_take_files() -> None:
    assert isinstance(open_place(URL), HubPlace)
    assert not isinstance(open_place("hf://buckets/team/caches"), HubPlace)
