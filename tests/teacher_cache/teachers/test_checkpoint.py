"""Finding checkpoints: folders, hub ids, and what is said when there is none."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

import mocha_pipe.teacher_cache.teachers
from mocha_pipe.teacher_cache.errors import TeacherError
from mocha_pipe.teacher_cache.teachers.checkpoint import find_checkpoint, folder_digest, read_settings
from mocha_pipe.teacher_cache.teachers.weights import load_weights

MINIATURE = Path(mocha_pipe.teacher_cache.teachers.__path__[0]) / "miniature"
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


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shard(folder: Path) -> list[str]:
    """Divide the weights of a checkpoint between two files and an index; their names."""
    weights = load_file(folder / "model.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    place_of = {tensor: names[index % 2] for index, tensor in enumerate(sorted(weights))}
    for name in names:
        part = {tensor: weights[tensor] for tensor, place in place_of.items() if place == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place_of}))
    return names


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_shipped_teacher_keeps_its_digest() -> None:
    """Caches that were made with it hold this number."""
    assert folder_digest(MINIATURE) == "434107aa51b93f577843acbc9a970e2e"


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json", "generation_config.json"]
)
def test_every_file_that_counts_changes_the_digest(file: str, copy: Path) -> None:
    before = folder_digest(copy)
    if file == "config.json":
        edit(copy / file, note="changed")
    else:
        flip(copy / file)
    assert folder_digest(copy) != before


@pytest.mark.parametrize(
    "file",
    [
        "special_tokens_map.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "chat_template.json",
        "additional_chat_templates/default.jinja",
        "tekken.json",
        "spiece.model",
    ],
)
def test_a_new_file_that_transformers_reads_changes_the_digest(file: str, copy: Path) -> None:
    before = folder_digest(copy)
    (copy / file).parent.mkdir(exist_ok=True)
    (copy / file).write_text("{}")
    assert folder_digest(copy) != before


@pytest.mark.parametrize(
    "file",
    ["README.md", "consolidated.safetensors", "original/model.safetensors", "fp8/config.json", "onnx/a.onnx"],
)
def test_what_is_not_loaded_does_not_count(file: str, copy: Path) -> None:
    before = folder_digest(copy)
    (copy / file).parent.mkdir(exist_ok=True)
    (copy / file).write_text("about")
    assert folder_digest(copy) == before


def test_of_shards_those_count_that_the_index_names(copy: Path) -> None:
    first, _ = shard(copy)
    before = folder_digest(copy)
    shutil.copy(copy / first, copy / "model-00003-of-00003.safetensors")
    assert folder_digest(copy) == before
    flip(copy / first)
    assert folder_digest(copy) != before


def test_the_weights_that_count_are_those_that_transformers_reads(copy: Path) -> None:
    """One file is preferred to an index, and what config.json names to both."""
    shards = shard(copy)
    whole = {name: tensor for file in shards for name, tensor in load_file(copy / file).items()}
    for file in ("model.safetensors", "other.safetensors"):
        save_file({name: 0 * tensor for name, tensor in whole.items()}, copy / file, metadata={"format": "pt"})

    def read() -> float:
        checkpoint = find(copy)
        model = load_weights(
            LlavaForConditionalGeneration, checkpoint, dtype=torch.float32, device=torch.device("cpu"), flag="--teacher"
        )
        return float(sum(weight.double().abs().sum() for weight in model.parameters()))

    def counts(file: str) -> bool:
        before = folder_digest(copy)
        flip(copy / file)
        found = folder_digest(copy) != before
        flip(copy / file)
        return found

    assert (read(), counts("model.safetensors"), counts(shards[0])) == (0, True, False)
    (copy / "model.safetensors").unlink()
    assert read() > 0
    assert (counts(shards[0]), counts("other.safetensors")) == (True, False)
    edit(copy / "config.json", transformers_weights="other.safetensors")
    assert (read(), counts(shards[0]), counts("other.safetensors")) == (0, False, True)


class Hub:
    """A repository whose files `snapshot_download` takes one by one, by the hub's own rule for patterns."""

    def __init__(self, repository: Path, snapshot: Path) -> None:
        self.revisions: list[str | None] = []
        self.taken: list[str] = []
        self._repository, self._snapshot = repository, snapshot

    def download(self, _model: str, *, revision: str | None, allow_patterns: Iterable[str]) -> str:
        self.revisions.append(revision)
        files = [
            path.relative_to(self._repository).as_posix() for path in self._repository.rglob("*") if path.is_file()
        ]
        for file in filter_repo_objects(files, allow_patterns=list(allow_patterns)):
            (self._snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._repository / file, self._snapshot / file)
            self.taken.append(file)
        return str(self._snapshot)


@pytest.fixture
def hub(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Has the checkpoint's files, and others that are no part of it."""
    others = ["original/model.safetensors", "fp8/config.json", "fp8/model.safetensors", "onnx/tokenizer.json"]
    for file in [
        *others,
        "consolidated.safetensors",
        "pytorch_model.bin",
        "modeling.py",
        "custom_generate/generate.py",
    ]:
        (copy / file).parent.mkdir(exist_ok=True)
        (copy / file).write_text("{}")
    found = Hub(copy, tmp_path / COMMIT)
    monkeypatch.setattr("mocha_pipe.teacher_cache.teachers.checkpoint.snapshot_download", found.download)
    return found


def test_a_hub_id_is_named_by_its_commit_and_only_its_own_files_are_fetched(
    copy: Path, hub: Hub, tmp_path: Path
) -> None:
    found = find("llava-hf/llava-1.5-7b-hf", revision="main", weights=False)
    assert (found.name, found.revision, found.folder) == ("llava-hf/llava-1.5-7b-hf", COMMIT, tmp_path / COMMIT)
    assert not any(file.endswith((".safetensors", ".bin", ".py")) or "/" in file for file in hub.taken)
    assert set(hub.taken) >= {"config.json", "tokenizer.json", "processor_config.json"}
    hub.taken.clear()
    assert find("llava-hf/llava-1.5-7b-hf", revision="main").revision == COMMIT
    assert [file for file in hub.taken if file.endswith(".safetensors")] == ["model.safetensors"]
    assert not any("/" in file or file.endswith((".bin", ".py")) for file in hub.taken)
    assert hub.revisions == ["main", "main", COMMIT]  # what is pushed between two calls is no part of the second


def test_of_a_sharded_repository_the_files_of_its_index_are_fetched(copy: Path, hub: Hub) -> None:
    names = shard(copy)
    find("a/b")
    assert sorted(file for file in hub.taken if file.endswith(".safetensors")) == names


def test_weights_that_were_never_fetched_are_named_with_the_command(copy: Path, hub: Hub) -> None:
    """Without a network the hub's client hands over what is there and says nothing."""
    _, second = shard(copy)
    (copy / second).unlink()
    with pytest.raises(TeacherError) as caught:
        find("a/b")
    assert str(caught.value) == (
        f"the weights of a teacher must be complete; 'a/b' lacks 1 of 2 files, the first is {second}; "
        "run once with a network: hf download a/b, or correct --teacher"
    )


def test_an_adapter_of_a_repository_is_seen(copy: Path, hub: Hub) -> None:
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(TeacherError, match=r"^the weights of a teacher must be whole; 'a/b' has an adapter"):
        find("a/b", weights=False)


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
        "weights are read from model.safetensors, or from the files that model.safetensors.index.json names; "
        f"'{copy}' has neither; fetch them again or name a checkpoint with them "
        "(save_pretrained(..., safe_serialization=True)) with --teacher"
    )


def test_a_missing_shard_is_named(copy: Path) -> None:
    _, second = shard(copy)
    (copy / second).unlink()
    with pytest.raises(TeacherError) as caught:
        find(copy)
    assert str(caught.value) == (
        f"the weights of a teacher must be complete; '{copy}' lacks 1 of 2 files, the first is {second}; "
        "fetch them again or correct --teacher"
    )


@pytest.mark.parametrize("place", ["../model.safetensors", "deep/model.safetensors", "model.bin"])
def test_weights_lie_beside_the_config(place: str, copy: Path) -> None:
    shard(copy)
    edit(copy / "model.safetensors.index.json", weight_map={"a": place})
    with pytest.raises(TeacherError) as caught:
        find(copy)
    rule, remedy = "weights are read from safetensors files beside config.json", "or correct --teacher"
    assert str(caught.value) == (
        f"{rule}; model.safetensors.index.json of '{copy}' names {place}; "
        f"save it with save_pretrained(..., safe_serialization=True) {remedy}"
    )


def test_an_index_without_a_map_names_none(copy: Path) -> None:
    shard(copy)
    (copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(TeacherError, match=r"model\.safetensors\.index\.json of '.*' names none; save it with"):
        find(copy)


@pytest.mark.parametrize("is_alone", [False, True], ids=["beside the weights", "without a model"])
def test_an_adapter_is_refused(is_alone: bool, copy: Path) -> None:
    """Where peft is installed, transformers applies it, and elsewhere not: one digest, two embeddings."""
    (copy / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if is_alone:
        (copy / "config.json").unlink()
    for look in (find, lambda folder: read_settings(str(folder), revision=None, flag="--teacher")):
        with pytest.raises(TeacherError) as caught:
            look(copy)
        assert str(caught.value) == (
            f"the weights of a teacher must be whole; '{copy}' has an adapter (adapter_config.json), which "
            "transformers applies on some machines and on others not; merge it (peft: merge_and_unload, then "
            "save_pretrained) and name the result with --teacher"
        )


@pytest.mark.parametrize(
    ("quantised", "method", "package"),
    [
        ({"load_in_4bit": True}, "bitsandbytes", "the package bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes", "the package bitsandbytes"),
        ({"quant_method": "awq", "bits": 4}, "awq", "the package gptqmodel"),
        ({"quant_method": "gptq", "bits": 4}, "gptq", "the package gptqmodel"),
        ({"quant_method": "fp8"}, "fp8", "the package kernels"),
        ({"quant_method": "quark"}, "quark", "packages of its own"),
        ({}, "a method that it does not name", "packages of its own"),
    ],
)
@pytest.mark.parametrize("is_nested", [False, True], ids=["whole", "language model"])
def test_quantised_weights_are_refused(
    quantised: dict[str, Any], method: str, package: str, is_nested: bool, copy: Path
) -> None:
    settings = json.loads((copy / "config.json").read_text())
    part = {"quantization_config": quantised}
    edit(copy / "config.json", **({"text_config": {**settings["text_config"], **part}} if is_nested else part))
    with pytest.raises(TeacherError) as caught:
        find(copy, flag="--visual")
    assert str(caught.value) == (
        "the weights of a teacher must be plain numbers, the same on every machine; those of "
        f"'{copy}' are quantised by {method}, whose kernels come with {package}; name the model that was quantised "
        "with --visual"
    )
