"""Where a checkpoint lies on this machine, and what identifies its content on every machine."""

import glob
import hashlib
from collections.abc import Sequence
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

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
SETTING_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    _INDEX,
)
"""What transformers reads beside the weights and `_TEMPLATES`. Nothing else counts for the digest."""
_TEMPLATES = "additional_chat_templates/*.jinja"
_ADAPTER = "adapter_config.json"
"""Where this file is, transformers applies an adapter, but only on a machine that has peft."""
_PACKAGES = {
    "aqlm": "aqlm",
    "auto-round": "auto-round",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fbgemm_fp8": "fbgemm-gpu",
    "fp8": "kernels",
    "gptq": "gptqmodel",
    "hqq": "hqq",
    "mxfp4": "kernels",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
}
"""What transformers needs to run weights that were quantised by a method."""


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
        TeacherError: no such folder or repository, no network, no config.json or no complete safetensors weights in it,
            an adapter beside the weights, or quantised weights.
    """
    folder, is_local = _locate(model, revision, flag)
    settings = _read_settings(folder, model, flag)
    if is_local:
        _check_weights(folder, settings, model, flag, "fetch them again")
        return Checkpoint(folder.resolve().name, folder_digest(folder), folder, settings)
    if weights:
        names = [glob.escape(name) for name in _weight_names(folder, settings, model, flag)]
        _download(model, folder.name, flag, names)  # at the commit of the settings, whatever was pushed since
        _check_weights(folder, settings, model, flag, f"run once with a network: hf download {model},")
    return Checkpoint(model, folder.name, folder, settings)  # the hub's cache names a snapshot after its commit


def read_settings(model: str, *, revision: str | None, flag: str) -> dict[str, Any]:
    """Content of a checkpoint's config.json, which tells what kind of model it is; no weights are looked at.

    Raises:
        TeacherError: as `find_checkpoint`.
    """
    return _read_settings(_locate(model, revision, flag)[0], model, flag)


def folder_digest(folder: Path) -> str:
    """Hex digest (blake2b-16) over name and content of the settings in a folder and of the weights that they name.

    Raises:
        TeacherError: the settings cannot be read, or name no weights.
    """
    settings = _read_settings(folder, str(folder), "--teacher")
    names = {*_weight_names(folder, settings, str(folder), "--teacher")}
    names |= {name for name in SETTING_FILES if (folder / name).is_file()}
    names |= {path.relative_to(folder).as_posix() for path in folder.glob(_TEMPLATES)}
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(names):
        total.update(f"{name}\0{file_digest(folder / name)}\n".encode())
    return total.hexdigest()


def _locate(model: str, revision: str | None, flag: str) -> tuple[Path, bool]:
    """The folder with a checkpoint's files, and whether it is a folder of the user's; a hub id's weights may lack."""
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
    return _download(model, revision, flag, [*SETTING_FILES, _TEMPLATES, _ADAPTER]), False


def _download(model: str, revision: str | None, flag: str, patterns: Sequence[str]) -> Path:
    """Folder of a hub repository's snapshot. A `*` matches across folders, so no pattern begins with it."""
    at = f" at revision '{revision}'" if revision else ""
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
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
    if (folder / _ADAPTER).exists():
        raise TeacherError(
            f"the weights of a teacher must be whole; '{model}' has an adapter ({_ADAPTER}), which transformers "
            "applies on some machines and on others not; merge it (peft: merge_and_unload, then save_pretrained) and "
            f"name the result with {flag}"
        )
    settings = _read_object(folder / "config.json", model, flag)
    if settings is None:
        raise TeacherError(
            f"a model folder holds a config.json in Hugging Face layout; '{model}' has none; correct {flag}"
        )
    text = settings.get("text_config")
    for part in (settings, text if isinstance(text, dict) else {}):
        if isinstance(quantised := part.get("quantization_config"), dict):
            by_bits = quantised.get("load_in_8bit") or quantised.get("load_in_4bit")
            method = "bitsandbytes" if by_bits else str(quantised.get("quant_method", "a method that it does not name"))
            package = f"the package {_PACKAGES[method]}" if method in _PACKAGES else "packages of its own"
            raise TeacherError(
                f"the weights of a teacher must be plain numbers, the same on every machine; those of '{model}' are "
                f"quantised by {method}, whose kernels come with {package}; name the model that was quantised with "
                f"{flag}"
            )
    return settings


def _read_object(path: Path, model: str, flag: str) -> dict[str, Any] | None:
    """A JSON object; None where there is no file."""
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        content, found = None, f"one that cannot be read ({error})"
    else:
        found = f"a {type(content).__name__}"
    if not isinstance(content, dict):
        raise TeacherError(
            f"{path.name} of a model is a JSON object; '{model}' has {found}; fetch it again or correct {flag}"
        )
    return content


def _weight_names(folder: Path, settings: dict[str, Any], model: str, flag: str) -> list[str]:
    """Files that transformers will read the weights from, by its own order; they need not be there."""
    named = settings.get("transformers_weights")
    first = named if isinstance(named, str) else _WEIGHTS
    if named is None and not (folder / _WEIGHTS).is_file() and (folder / _INDEX).is_file():
        first = _INDEX
    names = {first}
    if first.endswith(".index.json"):
        places = (_read_object(folder / first, model, flag) or {}).get("weight_map")
        names = {str(place) for place in places.values()} if isinstance(places, dict) else set()
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise TeacherError(
            f"weights are read from safetensors files beside config.json; {first} of '{model}' names "
            f"{min(names, default='none')}; save it with save_pretrained(..., safe_serialization=True) or correct "
            f"{flag}"
        )
    return sorted(names)


def _check_weights(folder: Path, settings: dict[str, Any], model: str, flag: str, remedy: str) -> None:
    names = _weight_names(folder, settings, model, flag)
    missing = [name for name in names if not (folder / name).is_file()]
    if names == [_WEIGHTS] == missing:
        raise TeacherError(
            f"weights are read from {_WEIGHTS}, or from the files that {_INDEX} names; '{model}' has neither; "
            f"{remedy} or name a checkpoint with them (save_pretrained(..., safe_serialization=True)) with {flag}"
        )
    if missing:
        raise TeacherError(
            f"the weights of a teacher must be complete; '{model}' lacks {len(missing)} of {len(names)} files, the "
            f"first is {missing[0]}; {remedy} or correct {flag}"
        )
