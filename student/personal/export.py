"""A distilled student as one file that runs without this package: ONNX for onnxruntime, or TorchScript for torch.

Inputs and outputs of such a file are those of `PersonalGraph.forward`. docs/onnx.md is for those who run the file.
Beside an ONNX file lies what it says about itself as JSON, for runtimes that show no metadata, and the thresholds of
other false-accept rates.
"""

import io
import json
import mmap
import warnings
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import atomic_path, write_json
from mocha_pipe.student.choices import default_learner
from mocha_pipe.student.fewshot.strangers import accept_above, load_strangers, promise
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.student.personal.graph import GRAPH_LEARNERS, PersonalDetections, PersonalGraph
from mocha_pipe.student.personal.profile import student_digest

ABOUT_FILE = "about.json"
"""Extra file of a TorchScript file that says what the file is; an ONNX file says so in its metadata."""
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""False-accept rates whose thresholds lie beside an ONNX file."""

_FORMAT = "mocha-pipe-3"
_MARKS = (b"mocha-pipe-1", b"mocha-pipe-2", _FORMAT.encode())  # of all formats so far
_OPSET = 20
_MOST_PROTOTYPES = 500  # that compete; the file has thresholds for up to so many, and the last serves more
_QUANTILES = 1001  # so that the share of them that a closeness exceeds has three digits


class ExportError(MochaError, ValueError):
    """A student cannot be exported in the way that was asked for."""


def export_student(
    folder: Path,
    path: Path,
    *,
    file_format: str = "onnx",
    image_size: int | None = None,
    learner: str | None = None,
    false_accept_rate: float = 0.05,
) -> dict[str, Any]:
    """Write a student as one file, and of ONNX a JSON file beside it (`about_file`); earlier ones are replaced whole.

    Args:
        folder: of the distilled student.
        path: of the file.
        file_format: one of `FILE_FORMATS`.
        image_size: pixels of the square that images are letterboxed to; where None, the one that it was trained at.
        learner: how detections are compared with prototypes; the profiles in use must have the same. Where None, the
            one that the student learns with by default.
        false_accept_rate: rate that the thresholds in the file keep.

    Returns:
        What the file says about itself: `format`, `student` (its digest), `class_names`, `image_size`, `features`,
        `learner`, `false_accept_rate`, `promise` (which rate its strangers support, in words) and `thresholds`
        (`accept_thresholds`). In the file all are texts, those that are no texts here as json.

    Raises:
        ExportError: there is no such format or learner, a package is missing, or `path` is another kind of file.
        StudentModelError, StudentModelNotFoundError: the student cannot be read.
        CalibrationError: the rate makes no sense.
    """
    if file_format not in FILE_FORMATS:
        raise ExportError(f"--format must be one of {', '.join(FILE_FORMATS)}; found {file_format!r}.")
    if learner not in (None, *GRAPH_LEARNERS):
        raise ExportError(
            f"--learner must be one that can be exported, {', '.join(GRAPH_LEARNERS)}; found {learner!r}."
        )
    if file_format == "onnx" and find_spec("onnx") is None:
        raise ExportError("--format onnx needs the package onnx, found none; run: pip install 'mocha-pipe[onnx]'")
    require_replaceable(path)
    require_replaceable(about_file(path))
    digest = student_digest(folder)
    strangers_U = load_strangers(folder)
    thresholds = accept_thresholds(strangers_U, false_accept_rate)
    student = load_student(folder)
    learner = learner or default_learner(student.features)
    graph = PersonalGraph(student, image_size=image_size or student.image_size, learner=learner)
    about = {
        "format": _FORMAT,
        "student": digest,
        "class_names": list(student.class_names),
        "image_size": graph.image_size,
        "features": student.features,
        "learner": learner,
        "false_accept_rate": false_accept_rate,
        "promise": promise(len(strangers_U), false_accept_rate),
        "thresholds": thresholds,
    }
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in about.items()
    }
    # Tracing warns that it is deprecated, and of each value that it takes for constant.
    with atomic_path(path) as temporary, torch.no_grad(), warnings.catch_warnings(action="ignore"):
        FILE_FORMATS[file_format](graph, temporary, texts)
    if file_format == "onnx":
        other_rates = _other_rates(strangers_U, false_accept_rate)
        write_json(about_file(path), {**about, "embedding_dim": graph.embedding_dim, **other_rates})
    return about


def about_file(path: Path) -> Path:
    """The JSON file beside an exported ONNX file."""
    return path.with_name(f"{path.name}.json")


def _other_rates(strangers_U: NDArray[np.floating], asked: float) -> dict[str, Any]:
    """What a program needs to let its user choose the false-accept rate, and to say how sure a name is."""
    rates = sorted({*RATES, asked})
    quantiles = np.quantile(strangers_U, np.linspace(0, 1, _QUANTILES)).tolist() if len(strangers_U) else []
    return {
        "thresholds_by_rate": {str(rate): accept_thresholds(strangers_U, rate) for rate in rates},
        "promises": {str(rate): promise(len(strangers_U), rate) for rate in rates},
        "strangers": {"count": len(strangers_U), "quantiles": quantiles},
    }


def require_replaceable(path: Path) -> None:
    """Refuse to write over what is no exported file.

    Raises:
        ExportError: something else is there.
    """
    if not path.exists():
        return
    is_ours = path.is_file() and path.stat().st_size > 0
    if is_ours:  # all formats hold what the file says about itself uncompressed
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            is_ours = any(content.find(mark) >= 0 for mark in _MARKS)
    if not is_ours:
        raise ExportError(
            f"{path}: was not written by `mocha-pipe export`, and would be replaced; name another file with --out"
        )


def accept_thresholds(strangers_U: NDArray[np.floating], false_accept_rate: float) -> list[float]:
    """`accept_above` where 1, 2, 3 ... prototypes compete, up to 500.

    Raises:
        CalibrationError: the rate makes no sense.
    """
    thresholds: list[float] = []
    while len(thresholds) < _MOST_PROTOTYPES:
        thresholds.append(accept_above(strangers_U, false_accept_rate, len(thresholds) + 1))
        if thresholds[-1] == np.max(strangers_U, initial=-1):  # the strictest that there is serves all behind it
            thresholds += thresholds[-1:] * (_MOST_PROTOTYPES - len(thresholds))
    return thresholds


def _write_onnx(graph: PersonalGraph, path: Path, about: Mapping[str, str]) -> None:
    import onnx

    inputs = _example(graph)
    torch.onnx.export(
        graph, tuple(inputs.values()), path, dynamo=False, opset_version=_OPSET,
        input_names=list(inputs), output_names=list(PersonalDetections._fields),
        dynamic_axes={name: {0: "prototypes"} for name in ("prototypes", "coarse", "objects", "threshold")}
        | {name: {0: "detections"} for name in PersonalDetections._fields}
        | {name: {0: "regions"} for name in ("regions", "region_embeddings")},
    )  # fmt: skip
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(about))
    onnx.save(model, path)


def _write_torchscript(graph: PersonalGraph, path: Path, about: Mapping[str, str]) -> None:
    inputs = tuple(_example(graph).values())
    traced = torch.jit.trace(graph, inputs, check_trace=False, _store_inputs=False)  # type: ignore[no-untyped-call]
    archive = io.BytesIO()
    torch.jit.save(traced, archive, _extra_files={ABOUT_FILE: json.dumps(about)})
    with zipfile.ZipFile(archive) as written, zipfile.ZipFile(path, "w") as kept:
        for entry in written.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # these name folders of this machine
                kept.writestr(entry, written.read(entry))


FILE_FORMATS: Mapping[str, Callable[[PersonalGraph, Path, Mapping[str, str]], None]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
}
"""What writes a file of each format."""


def _example(graph: PersonalGraph) -> dict[str, Tensor]:
    """Inputs by name with which tracing meets every operation."""
    size, dim = graph.image_size, graph.embedding_dim
    return {
        "image": torch.zeros(1, 3, size, size),
        "area": torch.tensor([0.0, 0.0, size, size]),
        "prototypes": torch.ones(2, dim),
        "coarse": torch.arange(2),
        "objects": torch.arange(2),
        "threshold": torch.zeros(2),
        "confidence": torch.tensor([-1.0]),
        "regions": torch.ones(2, 4),
    }
