"""Finding checkpoints: folders, hub ids, and what is said when there is none."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors as hub_errors

from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.checkpoint import find_checkpoint, folder_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def find(model: str | Path, **options: Any) -> Any:
    return find_checkpoint(str(model), **{"revision": None, "weights": True, "flag": "--teacher", **options})


@pytest.fixture
def copy(small_llava: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may spoil."""
    return Path(shutil.copytree(small_llava, tmp_path / "my-llava"))


def test_a_folder_is_named_by_its_name_and_content(copy: Path, tmp_path: Path) -> None:
    found = find(copy)
    assert (found.name, found.revision, found.folder) == ("my-llava", folder_digest(copy), copy)
    elsewhere = Path(shutil.copytree(copy, tmp_path / "deeper" / "my-llava"))
    assert (find(elsewhere).name, find(elsewhere).revision) == (found.name, found.revision)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json", "generation_config.json"]
)
def test_every_file_that_counts_changes_the_digest(file: str, copy: Path) -> None:
    before = folder_digest(copy)
    content = bytearray((copy / file).read_bytes())
    content[-1] ^= 1
    (copy / file).write_bytes(content)
    assert folder_digest(copy) != before


def test_a_new_file_changes_the_digest_and_a_note_does_not(copy: Path) -> None:
    before = folder_digest(copy)
    (copy / "README.md").write_text("about")
    assert folder_digest(copy) == before
    (copy / "special_tokens_map.json").write_text("{}")
    assert folder_digest(copy) != before


def test_a_hub_id_is_named_by_its_commit(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = copy.rename(tmp_path / COMMIT)
    asked: dict[str, Any] = {}

    def download(model: str, **options: Any) -> str:
        asked.update(options, model=model)
        return str(snapshot)

    monkeypatch.setattr("mocha_pipe.teacher_cache.teachers.checkpoint.snapshot_download", download)
    found = find("llava-hf/llava-1.5-7b-hf", revision="main")
    assert (found.name, found.revision, found.folder) == ("llava-hf/llava-1.5-7b-hf", COMMIT, snapshot)
    assert (asked["model"], asked["revision"]) == ("llava-hf/llava-1.5-7b-hf", "main")
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in asked["allow_patterns"])
    find("llava-hf/llava-1.5-7b-hf", weights=False)
    assert not any("*" in pattern for pattern in asked["allow_patterns"])


def hub_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "many\nlines")
    return error


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (
            hub_errors.GatedRepoError,
            "needs a licence accepted on huggingface.co; accept it there and run: hf auth login",
        ),
        (hub_errors.RevisionNotFoundError, "has no such revision; correct --teacher-revision"),
        (
            hub_errors.RepositoryNotFoundError,
            "is neither a folder nor a model on huggingface.co; correct --teacher",
        ),
        (hub_errors.HFValidationError, "is neither a folder nor a model on huggingface.co; correct --teacher"),
        (
            hub_errors.LocalEntryNotFoundError,
            "is not in the local Hugging Face cache and cannot be downloaded now; "
            "run once with a network: hf download a/b, or give a folder with --teacher",
        ),
        (
            hub_errors.HfHubHTTPError,
            "is not in the local Hugging Face cache and cannot be downloaded now; "
            "run once with a network: hf download a/b, or give a folder with --teacher",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(
    kind: type[Exception], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise hub_error(kind)

    monkeypatch.setattr("mocha_pipe.teacher_cache.teachers.checkpoint.snapshot_download", refuse)
    with pytest.raises(TeacherError) as caught:
        find("a/b", revision="v2")
    assert str(caught.value) == f"the teacher's files must be at hand; 'a/b' at revision 'v2' {problem}"


def test_without_network_and_cache_the_real_client_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        TeacherError, match=r"^the teacher's files must be at hand; 'llava-hf/none' is not in the local"
    ):
        find("llava-hf/none")


@pytest.mark.parametrize("model", ["/no/such/folder", "./none", "~/none", "a/b/c"])
def test_a_path_is_never_looked_up_on_the_hub(model: str) -> None:
    with pytest.raises(TeacherError) as caught:
        find(model, flag="--visual")
    assert str(caught.value) == f"a model is a hub id or a folder; there is no folder '{model}'; correct --visual"


def test_a_folder_has_no_revision(copy: Path) -> None:
    with pytest.raises(TeacherError) as caught:
        find(copy, revision="v2")
    assert str(caught.value) == (
        f"a revision belongs to a hub id; '{copy}' is a folder with revision 'v2'; leave out --teacher-revision"
    )


def test_a_folder_needs_a_config(tmp_path: Path) -> None:
    with pytest.raises(TeacherError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"a model folder holds a config.json in Hugging Face layout; '{tmp_path}' has none; correct --teacher"
    )


def test_a_config_must_be_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(
        TeacherError,
        match=r"^config\.json of a model is a JSON object; '.*' has one that cannot be read \(Expecting .*\)",
    ):
        find(copy)
    (copy / "config.json").write_text("[]")
    with pytest.raises(TeacherError) as caught:
        find(copy)
    assert str(caught.value) == (
        f"config.json of a model is a JSON object; '{copy}' has a list; fetch it again or correct --teacher"
    )


def test_pickled_weights_are_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(TeacherError) as caught:
        find(copy)
    assert str(caught.value) == (
        f"weights are read from safetensors files only; '{copy}' has none; "
        "save it with save_pretrained(..., safe_serialization=True) or correct --teacher"
    )
