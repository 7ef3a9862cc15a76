from collections.abc import Callable
from pathlib import Path

import pytest

from mocha_pipe.data.checking.check import check_dataset
from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.readers.class_names import widest_names
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import warning

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("names", "written", "read"),
    [
        ("[yes, mug]", "name 0 of 'names:' (yes) as", "True"),
        ("[mug, off]", "name 1 of 'names:' (off) as", "False"),
        ("[mug, 007]", "name 1 of 'names:' (007) as", "7"),
        ("{0: mug, 1: null}", "name 1 of 'names:' (null) as", "None"),
        ("{0: ~, 1: mug}", "name 0 of 'names:' (~) as", "None"),
        ("[mug, 1:30]", "name 1 of 'names:' (1:30) as", "90"),
        ("[mug, 1_000]", "name 1 of 'names:' (1_000) as", "1000"),
        ("\n- mug\n-", "name 1 of 'names:' (nothing) as", "None"),
    ],
)
def test_a_name_that_yaml_reads_as_something_else(tmp_path: Path, names: str, written: str, read: str) -> None:
    data = tmp_path / "data.yaml"
    data.write_text(f"train: images\nnames: {names}\n")
    with pytest.raises(DatasetError) as caught:
        check_dataset(data)
    assert str(caught.value) == (
        f"{data}: the name of a class must be a text, but yaml reads {written} {read}; write it in quotes"
    )


def test_names_that_stay_what_they_are(make_yolo: Make) -> None:
    data = make_yolo()
    data.write_text(data.read_text().partition("names:")[0] + "names: ['yes', 1.0, 7]\ntrain: images/train\n")
    assert open_source(data).class_names == ("yes", "1.0", "7")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mug", "ball", "mug"], "classes 0 and 2 are both called 'mug' in 'names:'; give each a name of its own"),
        (
            ["caf\u00e9", "cafe\u0301"],
            "classes 0 and 1 are both called 'cafe\u0301' in 'names:'; give each a name of its own",
        ),
        (["mug", "mug "], "classes 0 and 1 are both called 'mug ' in 'names:'; give each a name of its own"),
        (
            ["mug", "m\x1bug"],
            "the name of class 1 in 'names:' must be free of control characters, found 'm\\x1bug'; give it one",
        ),
        (["mug", ["a", "b"]], "name 1 of 'names:' must be a text, found ['a', 'b']; write one"),
        (["mug", {1: "ball"}], "name 1 of 'names:' must be a text, found {1: 'ball'}; write one"),
        (["mug", ""], "the name of class 1 in 'names:' must be a text, found ''; give it one"),
        (["mug", " "], "the name of class 1 in 'names:' must be a text, found ' '; give it one"),
    ],
)
def test_equal_and_empty_names(make_yolo: Make, names: list[object], message: str) -> None:
    data = make_yolo(keys={"names": names})
    with pytest.raises(DatasetError) as caught:
        check_dataset(data)
    assert str(caught.value) == f"{data}: {message}"


def test_the_widest_list_of_names() -> None:
    train, val = Path("train.json"), Path("val.json")
    assert widest_names({train: ("cat", "dog"), val: ("dog",)}) == ("cat", "dog")
    assert widest_names({train: ("cat",), val: ("dog", "cat")}) == ("dog", "cat")
    assert widest_names({train: ("cat", "dog"), val: ("dog", "cat")}) == ("cat", "dog")
    with pytest.raises(DatasetError) as caught:
        widest_names({train: ("cat", "dog"), val: ("cat", "cow")})
    assert str(caught.value) == (
        "val.json: the splits must have the same categories: ['cow'] are here alone, ['dog'] are in train.json alone; "
        "make the categories of both json equal"
    )


def test_names_that_differ_in_capitals_alone(make_yolo: Make, make_coco: Make) -> None:
    told = "classes 'BALL' and 'ball' differ in capitals alone; where they are one thing, make them one class"
    data = make_yolo(keys={"names": ["BALL", "mug", "ball"]})
    assert open_source(data).problems == (warning(data, told),)
    file = make_coco(categories=[{"id": 4, "name": "BALL"}, {"id": 90, "name": "ball"}])
    assert open_source(file).problems == (warning(file, told),)
