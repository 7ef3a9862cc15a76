"""Targets that no teacher made."""

import pickle

import numpy as np
import pytest

from bench.controls import Control, attributes, control_targets, instances
from bench.inputs import BenchInputs
from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.miniature.objects import PersonalObject

RED_MUG = PersonalObject("mug", "red", "blue", "striped")
OBJECTS = [
    RED_MUG,
    PersonalObject("mug", "red", "blue", "dotted", "green"),
    PersonalObject("ball", "red", "red", "plain"),
    RED_MUG,
]
SIZE = WorldSize(train_scenes=24, val_scenes=1, objects_per_shape=2, scenes_per_object=1)  # of the fixture `inputs`


def test_attributes_are_one_channel_for_each_value_that_some_lack() -> None:
    found = attributes(OBJECTS)
    # ball, mug; blue, red (second); dotted, plain, striped; no sticker, green: all have red as their main colour.
    assert found.shape == (4, 2 + 2 + 3 + 2)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(found[0], found[3])
    is_ball = np.array([0, 0, 1, 0])
    np.testing.assert_allclose(found[:, 0], (is_ball - 0.25) / np.sqrt(0.25 * 0.75), rtol=1e-6)


def test_equal_objects_share_a_code_and_others_do_not() -> None:
    found = instances(OBJECTS, 64)
    np.testing.assert_array_equal(found[0], found[3])
    np.testing.assert_array_equal(found, instances(OBJECTS, 64))
    normal = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert (normal[:3] @ normal[:3].T - np.eye(3)).max() < 0.5


@pytest.mark.parametrize("control", ["attributes", "instances"])
def test_every_region_of_a_world_has_its_target(inputs: BenchInputs, control: Control) -> None:
    targets = control_targets(control, SIZE, 0, inputs.table, 16)
    assert len(targets) == inputs.source.num_regions
    assert targets.set_aside.tolist() == []
    rows = np.array([3, 0, 3])
    assert targets.lookup(rows).shape == (3, targets.dim)
    copy = pickle.loads(pickle.dumps(targets))
    np.testing.assert_array_equal(copy.lookup(rows), targets.lookup(rows))


def test_shape_is_read_off_the_class(inputs: BenchInputs) -> None:
    targets = control_targets("attributes", SIZE, 0, inputs.table, 16)
    class_ids = np.concatenate([record.class_ids for record in inputs.source.records])
    names = np.array(inputs.source.class_names)[class_ids]
    shapes = sorted(set(names))
    is_shape = targets.values_ND[:, : len(shapes)] > 0
    assert [shapes[place] for place in is_shape.argmax(axis=1)] == names.tolist()


def test_the_plan_of_another_world_is_noticed(inputs: BenchInputs) -> None:
    with pytest.raises(AssertionError, match="the plan of another world"):
        control_targets("instances", SIZE, 1, inputs.table, 16)
