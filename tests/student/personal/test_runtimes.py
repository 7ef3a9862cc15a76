"""What the exported file asks of a runtime, and what runtimes other than onnxruntime make of it."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from mocha_pipe.student.network.embedder import picture_area
from mocha_pipe.student.personal.graph import PersonalDetections
from tests.student.personal.conftest import SIZE, WIDTH
from tests.student.personal.wanted import Runner, Wanted, assert_equal_to_pytorch, onnx_runner, want

Inputs = dict[str, NDArray[np.generic]]

NOBODY: Inputs = {
    "prototypes": np.zeros((1, WIDTH), np.float32), "coarse": np.array([-1]), "objects": np.zeros(1, np.int64),
    "threshold": np.full(1, 2, np.float32),
}  # fmt: skip
"""A row that stands for no object."""
BLIND: Inputs = {"confidence": np.ones(1, np.float32)}
A_REGION: Inputs = {"regions": np.array([[10, 20, 50, 60]], np.float32)}


# --- what it asks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v8", "v8-deep"])
def test_no_step_has_a_table_without_rows_but_the_last_of_each_answer(made: Path, wanted: Wanted, name: str) -> None:
    """Runtimes on WebGPU fail on them; here all steps are looked at where nothing is detected."""
    model = onnx.load(made / f"{name}.onnx")
    answers = {output.name for output in model.graph.output}
    last = [node for node in model.graph.node if answers & set(node.output)]
    rows = {node.input[1] for node in last if node.op_type == "Gather"}
    assert len(last) == 7
    assert len(rows) == 1, "the rows that stay, chosen by one step before the last"
    shapes = {node.output[0] for node in model.graph.node if node.op_type == "Shape"}  # parts of them may be empty
    steps = [
        name
        for node in model.graph.node
        for name in node.output
        if name and name not in answers | rows and not shapes & set(node.input)
    ]
    model.graph.output.extend(onnx.ValueInfoProto(name=step) for step in steps)
    usual = wanted.inputs(0)
    width = model.graph.input[2].type.tensor_type.shape.dim[1].dim_value
    nobody = NOBODY | {"prototypes": np.zeros((1, width), np.float32)}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    values = dict(zip(steps, session.run(steps, usual | nobody | BLIND | A_REGION), strict=True))
    assert [step for step, value in values.items() if value.size == 0] == []
    assert len(values) > 300


def test_the_limit_stands_inside_nms_and_onnxruntime_1_20_knows_the_opset(exported: Path) -> None:
    """tract cannot slice what NMS gives without knowing how much that is at most; onnxruntime 1.20 has opset 21."""
    model = onnx.load(exported)
    values = {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in model.graph.node
              if node.op_type == "Constant"}  # fmt: skip
    limits = [values[node.input[2]].tolist() for node in model.graph.node if node.op_type == "NonMaxSuppression"]
    assert limits == [[301], [301]]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]


def test_a_row_that_stands_for_no_object_and_no_row_are_the_same(run: Runner, wanted: Wanted) -> None:
    usual = wanted.inputs(0)
    nothing = {name: usual[name][:0] for name in NOBODY}
    for other in ({}, BLIND):
        alone, padded = run(usual | nothing | other), run(usual | NOBODY | A_REGION | other)
        for one, two in zip(alone[:-1], padded[:-1], strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)
    among = {name: np.concatenate([NOBODY[name], usual[name]]) for name in NOBODY}
    ours, theirs = PersonalDetections(*run(usual)), PersonalDetections(*run(usual | among))
    assert (ours.personal >= 0).any()
    np.testing.assert_array_equal(theirs.personal, ours.personal + (ours.personal >= 0))


@pytest.mark.parametrize("name", ["v8", "v8-deep"])
def test_a_region_has_the_embedding_of_a_detection_in_its_place(made: Path, wanted: Wanted, name: str) -> None:
    """Also of one that reaches beyond the picture, from which features are taken alone."""
    path = made / f"{name}.onnx"
    run, record = onnx_runner(path), wanted.source.records[0]
    width = onnx.load(path).graph.input[2].type.tensor_type.shape.dim[1].dim_value
    usual = wanted.inputs(0) | NOBODY | {"prototypes": np.zeros((1, width), np.float32)}
    found = PersonalDetections(*run(usual))
    again = PersonalDetections(*run(usual | {"regions": found.boxes[::-1]}))
    assert len(found.boxes) > 4
    np.testing.assert_allclose(again.region_embeddings[::-1], found.embeddings, rtol=0, atol=1e-5)
    area = picture_area((SIZE, SIZE), (record.height, record.width)).astype(np.float32)
    beyond = area + np.array([-9, -9, 9, 9], np.float32)
    whole = PersonalDetections(*run(usual | {"regions": np.stack([area, beyond])})).region_embeddings
    np.testing.assert_allclose(whole[0], whole[1], rtol=0, atol=1e-6)


# --- other runtimes ---------------------------------------------------------------------------------------------------

BY_MNN = """
import sys
import numpy as np
import MNN.expr as F
import MNN.nn as nn

inputs, names = dict(np.load(sys.argv[2])), sys.argv[4:]
net = nn.load_module_from_file(sys.argv[1], list(inputs), names)
variables = []
for values in inputs.values():
    kind = F.float if values.dtype == np.float32 else F.int
    variables.append(F.const(values.ravel().tolist(), list(values.shape), F.NCHW, kind))
answers = dict(zip(names, net.forward(variables)))
np.savez(sys.argv[3], **{  # what is empty cannot be read
    name: np.array(each.read()).reshape(each.shape) if 0 not in each.shape else np.zeros(each.shape)
    for name, each in answers.items()
})
"""


def mnn_runner(path: Path, folder: Path) -> Runner:
    """By another Python, where MNN is installed; its converter installs packages where it is imported."""
    python = os.environ.get("MNN_PYTHON")
    if not python:
        pytest.skip("MNN needs an environment of its own: python -m venv mnn && mnn/bin/pip install MNN numpy, and "
                    "MNN_PYTHON=mnn/bin/python")  # fmt: skip
    converter, written = Path(python).with_name("mnnconvert"), folder / "student.mnn"
    kinds = ["-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(written), "--bizCode", "student"]
    subprocess.run([converter, *kinds], check=True, capture_output=True)

    def run(inputs: Inputs) -> list[NDArray[np.generic]]:
        np.savez(folder / "inputs.npz", **inputs)
        paths, names = (written, folder / "inputs.npz", folder / "answers.npz"), PersonalDetections._fields
        subprocess.run([python, "-c", BY_MNN, *paths, *names], check=True, capture_output=True)
        answers = np.load(folder / "answers.npz")
        return [answers[name] for name in names]

    return run


def tract_runner(path: Path, folder: Path) -> Runner:
    """By the Rust library, as its package for Python has it."""
    tract = pytest.importorskip("tract", reason="tract is not installed: pip install tract")
    model = tract.onnx().load(path).into_model().into_runnable()
    return lambda inputs: [answer.to_numpy() for answer in model.run(list(inputs.values()))]


@pytest.mark.parametrize("runner", [tract_runner, mnn_runner])
def test_another_runtime_equals_pytorch(
    exported: Path, wanted: Wanted, runner: Callable[[Path, Path], Runner], tmp_path: Path
) -> None:
    assert_equal_to_pytorch(runner(exported, tmp_path), wanted, 5)


def test_tract_answers_where_there_is_nothing(exported: Path, wanted: Wanted, tmp_path: Path) -> None:
    run, usual = tract_runner(exported, tmp_path), wanted.inputs(0)
    nothing = {name: usual[name][:0] for name in NOBODY}
    answer = PersonalDetections(*run(usual | nothing | BLIND | A_REGION))
    assert [each.shape for each in answer] == [(0, 4), (0,), (0,), (0,), (0,), (0, WIDTH), (1, WIDTH)]


def test_mnn_equals_pytorch_by_features_for_photographs(made: Path, wanted: Wanted, tmp_path: Path) -> None:
    run = mnn_runner(made / "v8-deep.onnx", tmp_path)
    few = replace(wanted.source, records=wanted.source.records[:3])
    assert_equal_to_pytorch(run, want(made / "v8-deep", few, "simpleshot"), 3)
