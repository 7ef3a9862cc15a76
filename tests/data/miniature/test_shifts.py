"""Fresh casts, worlds that differ from that of training, and what the training scenes show."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.miniature.drawing import View, draw_object, pattern_mask
from mocha_pipe.data.miniature.objects import (
    COLOURS,
    PATTERNS,
    UNSEEN_COLOURS,
    UNSEEN_PATTERNS,
    PersonalObject,
    Shift,
    shifted,
)
from mocha_pipe.data.miniature.scenes import SCENE_SIZE, render_scene
from mocha_pipe.data.miniature.world import make_cast, make_miniature, personal_cast, training_objects
from mocha_pipe.data.source import open_source

GRID = np.meshgrid(np.linspace(-1, 1, 81, dtype=np.float32), np.linspace(-1, 1, 81, dtype=np.float32))


@pytest.mark.parametrize("pattern", UNSEEN_PATTERNS)
def test_an_unseen_pattern_shows_both_colours_and_is_none_of_the_others(pattern: str) -> None:
    mask = pattern_mask(pattern, *GRID)
    assert 0.2 < mask.mean() < 0.8
    others = [pattern_mask(other, *GRID) for other in (*PATTERNS, *UNSEEN_PATTERNS) if other != pattern]
    assert all((mask != other).mean() > 0.1 for other in others)


def test_unseen_colours_are_painted_and_lie_apart_from_the_others() -> None:
    canvas = np.zeros((160, 160, 3), dtype=np.float32)
    view = View(size=30.0, angle=0.0, squeeze=1.0, shear=0.0, brightness=1.0)
    draw_object(canvas, PersonalObject("book", "teal", "teal", "plain", "pink"), view, (80.0, 80.0))
    np.testing.assert_allclose(canvas[80, 80], UNSEEN_COLOURS["pink"], atol=8)
    for colour in UNSEEN_COLOURS.values():
        assert min(np.linalg.norm(np.subtract(colour, other)) for other in COLOURS.values()) > 50


def test_counterparts_are_one_to_one_and_differ_in_one_thing() -> None:
    cast = personal_cast("benchmark", WorldSize(), 0)
    assert tuple(shifted(thing, "none") for thing in cast) == cast
    recoloured = [shifted(thing, "colours") for thing in cast]
    assert len(set(recoloured)) == len(cast)
    assert {colour for thing in recoloured for colour in (thing.main, thing.second)} <= set(UNSEEN_COLOURS)
    assert [(thing.shape, thing.pattern, bool(thing.sticker)) for thing in recoloured] == [
        (thing.shape, thing.pattern, bool(thing.sticker)) for thing in cast
    ]
    redrawn = [shifted(thing, "patterns") for thing in cast]
    assert {thing.pattern for thing in redrawn} <= {"plain", *UNSEEN_PATTERNS}
    assert [replace(thing, pattern="") for thing in redrawn] == [replace(thing, pattern="") for thing in cast]
    assert len(set(redrawn)) == len(cast)


def test_a_cast_is_the_benchmark_of_its_seed(
    tmp_path: Path, tiny: WorldSize, content: Callable[[Path], dict[str, bytes]]
) -> None:
    make_cast(tmp_path / "cast", tiny, seed=3, progress=False)
    make_miniature(tmp_path / "world", tiny, seed=3, progress=False)
    assert content(tmp_path / "cast") == content(tmp_path / "world" / "benchmark")
    make_cast(tmp_path / "other", tiny, seed=4, progress=False)
    assert content(tmp_path / "other") != content(tmp_path / "cast")


@pytest.mark.parametrize("shift", ["colours", "patterns", "small"])
def test_a_shifted_cast_names_its_objects_and_repeats(
    tmp_path: Path, tiny: WorldSize, shift: Shift, content: Callable[[Path], dict[str, bytes]]
) -> None:
    for name in ("one", "again"):
        make_cast(tmp_path / name, tiny, seed=3, shift=shift, progress=False)
    assert content(tmp_path / "one") == content(tmp_path / "again")
    about = yaml.safe_load((tmp_path / "one/data.yaml").read_text())
    assert about["names"] == [thing.name for thing in personal_cast("benchmark", tiny, 3, shift)]
    with Image.open(next((tmp_path / "one/images").iterdir())) as image:
        assert image.size == ((2 * SCENE_SIZE,) * 2 if shift == "small" else (SCENE_SIZE,) * 2)


def test_in_a_larger_scene_objects_stay_as_large_as_they_are() -> None:
    things = [PersonalObject("ball", "red", "red", "plain")] * 4
    sides = {
        side: np.concatenate([render_scene(np.random.default_rng(seed), things, side).xyxy for seed in range(6)])
        for side in (SCENE_SIZE, 2 * SCENE_SIZE)
    }
    widths = {side: (xyxy[:, 2] - xyxy[:, 0]).mean() for side, xyxy in sides.items()}
    assert widths[2 * SCENE_SIZE] == pytest.approx(widths[SCENE_SIZE], rel=0.2)
    assert sides[2 * SCENE_SIZE].max() > SCENE_SIZE


def test_training_scenes_show_what_their_labels_say(world: Path, small: WorldSize) -> None:
    scenes = training_objects(small, seed=4)
    source = open_source(world / "data.yaml", "train")
    assert len(scenes) == len(source.records)
    for objects, record in zip(scenes, source.records, strict=True):
        assert [thing.shape for thing in objects] == [source.class_names[class_id] for class_id in record.class_ids]
