import json
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocha_pipe.teacher_cache.errors import CacheFormatError
from mocha_pipe.teacher_cache.spec import TeacherSpec

CHANGES: dict[str, Any] = {
    "model": "other/model",
    "revision": "ffff",
    "prompt": "What is this {label}?",
    "mode": "generate",
    "layer": -2,
    "pooling": "last token",
    "crop_margin": 0.2,
    "crop_size": 32,
    "dtype": "bfloat16",
    "visual": "openai/clip",
    "visual_revision": "eeee",
    "max_new_tokens": 64,
    "num_beams": 3,
    "sampling_seed": 0,
    "no_repeat_ngram": 3,
    "all_beams": True,
    "hidden_dim": 25,
    "visual_dim": 9,
    "sees": "the middle 14 x 14 of 16 x 16 pixels, 87.5 % of each side",
    "image_tokens": 64,
    "rounding": "to whole numbers",
}


def test_survives_json(helpers: SimpleNamespace) -> None:
    assert TeacherSpec.from_json(json.loads(json.dumps(helpers.spec.to_json()))) == helpers.spec


@settings(max_examples=25)
@given(st.text(), st.floats(0, 10), st.integers(-50, 50))
def test_survives_json_whatever_its_values(prompt: str, margin: float, layer: int) -> None:
    spec = TeacherSpec(**{**CHANGES, "prompt": prompt, "crop_margin": margin, "layer": layer})
    again = TeacherSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.digest() == spec.digest()


def test_whole_number_of_a_json_file_is_a_float(helpers: SimpleNamespace) -> None:
    spec = TeacherSpec.from_json({**helpers.spec.to_json(), "crop_margin": 0})
    assert spec.digest() == replace(helpers.spec, crop_margin=0.0).digest()


def test_digest_is_pinned(helpers: SimpleNamespace) -> None:
    assert helpers.spec.digest() == "65cb43a7ced70e9880c442c8111939f7"


@pytest.mark.parametrize("name", ["sees", "image_tokens", "rounding"])
def test_a_later_field_is_none_of_a_llava(helpers: SimpleNamespace, name: str) -> None:
    """Caches that were written before there were other teachers have no such field."""
    assert name not in helpers.spec.to_json()
    assert replace(helpers.spec, **{name: CHANGES[name]}).to_json()[name] == CHANGES[name]


def test_arrays_are_those_that_have_a_width(helpers: SimpleNamespace) -> None:
    assert helpers.spec.arrays == {"hidden": 24, "visual": 8}
    assert replace(helpers.spec, hidden_dim=0).arrays == {"visual": 8}


def test_changes_cover_every_field() -> None:
    assert set(CHANGES) == {field.name for field in fields(TeacherSpec)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_counts(helpers: SimpleNamespace, name: str) -> None:
    other = replace(helpers.spec, **{name: CHANGES[name]})
    assert other.digest() != helpers.spec.digest()
    expected = [f"{name} differs: cache has {getattr(helpers.spec, name)!r}, expected {CHANGES[name]!r}"]
    assert helpers.spec.differences(other) == expected


def test_differences_are_plain_words_in_the_order_of_the_fields(helpers: SimpleNamespace) -> None:
    other = replace(helpers.spec, num_beams=4, prompt="What is the {label}?", crop_margin=0.25)
    assert helpers.spec.differences(other) == [
        "prompt differs: cache has 'Describe the {label}.', expected 'What is the {label}?'",
        "crop_margin differs: cache has 0.1, expected 0.25",
        "num_beams differs: cache has 1, expected 4",
    ]
    assert other.differences(helpers.spec)[2] == "num_beams differs: cache has 4, expected 1"


@pytest.mark.parametrize(("name", "revision"), [("model", "revision"), ("visual", "visual_revision")])
def test_the_name_of_a_local_folder_decides_nothing(helpers: SimpleNamespace, name: str, revision: str) -> None:
    content = "d" * 32
    here = replace(helpers.spec, **{name: "llava", revision: content})
    there = replace(here, **{name: "models--llava"})
    assert here.digest() == there.digest()
    assert here.differences(there) == []
    other = replace(there, **{revision: "e" * 32})
    assert here.digest() != other.digest()
    assert [phrase.split()[0] for phrase in here.differences(other)] == [name, revision]


def test_a_commit_on_the_hub_and_a_folder_are_two_teachers(helpers: SimpleNamespace) -> None:
    hub = replace(helpers.spec, revision="a" * 40)
    assert hub.differences(replace(hub, model="mirror/teacher")) != []
    assert hub.digest() != replace(hub, model="mirror/teacher").digest()
    assert [phrase.split()[0] for phrase in hub.differences(replace(hub, model="llava", revision="b" * 32))] == [
        "model", "revision",
    ]  # fmt: skip


def test_equal_specs_have_no_differences(helpers: SimpleNamespace) -> None:
    assert helpers.spec.differences(replace(helpers.spec)) == []


def test_unknown_or_missing_field_is_refused(helpers: SimpleNamespace) -> None:
    values = {**helpers.spec.to_json(), "temperature": 1.0}
    del values["layer"]
    message = (
        "a teacher spec has exactly the fields model, revision, prompt, mode, layer, pooling, crop_margin, crop_size, "
        "dtype, visual, visual_revision, max_new_tokens, num_beams, hidden_dim, visual_dim, sees, image_tokens, "
        "sampling_seed, no_repeat_ngram, all_beams, rounding; found layer: Field required; temperature: Unexpected "
        "keyword argument; read this cache with the version of mocha-pipe that wrote it"
    )
    with pytest.raises(CacheFormatError) as caught:
        TeacherSpec.from_json(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layer", "-1", "layer: Input should be a valid integer"),
        ("layer", True, "layer: Input should be a valid integer"),
        ("mode", "dream", "mode: Input should be 'prompt', 'generate' or 'visual'"),
        ("crop_margin", None, "crop_margin: Input should be a valid number"),
    ],
)
def test_wrong_type_is_refused(helpers: SimpleNamespace, name: str, value: object, message: str) -> None:
    with pytest.raises(CacheFormatError) as caught:
        TeacherSpec.from_json({**helpers.spec.to_json(), name: value})
    assert str(caught.value).endswith(
        f"all_beams, rounding; found {message}; read this cache with the version of mocha-pipe that wrote it"
    )
