"""Where a checkpoint lies on this machine, and what identifies its content on every machine."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mocha_pipe.data.files import file_digest
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.teacher_cache.errors import TeacherError

WEIGHT_FILES = "*.safetensors"
SETTING_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "model.safetensors.index.json",
)
"""What transformers reads beside the weights. Nothing else is downloaded, and nothing else counts for the digest."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in Hugging Face layout on the local disk."""

    name: str
    """Hub id, or the folder's own name without the path to it."""
    revision: str
    """Commit of the hub repository, or `folder_digest` of the folder."""
    folder: Path
    settings: dict[str, Any]
    """Content of its `config.json`."""


def find_checkpoint(model: str, *, revision: str | None, weights: bool, flag: str) -> Checkpoint:
    """Locate a checkpoint: a folder, or a hub id that is downloaded into the Hugging Face cache unless it is there.

    Args:
        model: hub id or folder.
        revision: branch, tag or commit of a hub id.
        weights: download the weights of a hub id too, beside its settings.
        flag: the option that named the model, for messages.

    Raises:
        TeacherError: no such folder or repository, no network, or no config.json or safetensors weights in it.
    """
    folder, is_local = _locate(model, revision, weights, flag)
    settings = _read_settings(folder, model, flag)
    if weights or is_local:
        _check_weights(folder, model, flag)
    if is_local:
        return Checkpoint(folder.resolve().name, folder_digest(folder), folder, settings)
    return Checkpoint(model, folder.name, folder, settings)  # the hub's cache names a snapshot after its commit


def read_settings(model: str, *, revision: str | None, flag: str) -> dict[str, Any]:
    """Content of a checkpoint's config.json, which tells what kind of model it is; no weights are looked at.

    Raises:
        TeacherError: as `find_checkpoint`.
    """
    return _read_settings(_locate(model, revision, False, flag)[0], model, flag)


def folder_digest(folder: Path) -> str:
    """Hex digest (blake2b-16) over name and content of the weights and settings in a folder."""
    paths = [*folder.glob(WEIGHT_FILES), *(folder / name for name in SETTING_FILES if (folder / name).is_file())]
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(paths, key=lambda path: path.name):
        total.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def _locate(model: str, revision: str | None, weights: bool, flag: str) -> tuple[Path, bool]:
    """The folder with a checkpoint's files, and whether it is a folder of the user's."""
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise TeacherError(
                f"a revision belongs to a hub id; '{model}' is a folder with revision '{revision}'; "
                "leave out --teacher-revision"
            )
        return path, True
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise TeacherError(f"a model is a hub id or a folder; there is no folder '{model}'; correct {flag}")
    return _download(model, revision, weights, flag), False


def _download(model: str, revision: str | None, weights: bool, flag: str) -> Path:
    """Folder of a hub repository's snapshot."""
    at = f" at revision '{revision}'" if revision else ""
    patterns = [*SETTING_FILES, WEIGHT_FILES] if weights else list(SETTING_FILES)
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except GatedRepoError:
        problem, remedy = "needs a licence accepted on huggingface.co", "accept it there and run: hf auth login"
    except RevisionNotFoundError:
        problem, remedy = "has no such revision", "correct --teacher-revision"
    except (RepositoryNotFoundError, HFValidationError):
        problem, remedy = "is neither a folder nor a model on huggingface.co", f"correct {flag}"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        problem = "is not in the local Hugging Face cache and cannot be downloaded now"
        remedy = f"run once with a network: hf download {model}, or give a folder with {flag}"
    raise TeacherError(f"the teacher's files must be at hand; '{model}'{at} {problem}; {remedy}")


def _read_settings(folder: Path, model: str, flag: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        settings = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise TeacherError(
            f"a model folder holds a config.json in Hugging Face layout; '{model}' has none; correct {flag}"
        ) from None
    except (OSError, ValueError) as error:
        settings, found = None, f"one that cannot be read ({error})"
    else:
        found = f"a {type(settings).__name__}"
    if not isinstance(settings, dict):
        raise TeacherError(
            f"config.json of a model is a JSON object; '{model}' has {found}; fetch it again or correct {flag}"
        )
    return settings


def _check_weights(folder: Path, model: str, flag: str) -> None:
    if not any(folder.glob(WEIGHT_FILES)):
        raise TeacherError(
            f"weights are read from safetensors files only; '{model}' has none; "
            f"save it with save_pretrained(..., safe_serialization=True) or correct {flag}"
        )
