import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mocha_pipe.data.errors import DatasetError
from mocha_pipe.data.source import open_source, read_split, splits_of
from tests.data.test_source import SourceContract

Make = Callable[..., Path]
ABOUT = {"type": "dataset", "task": "detect", "class_names": {"0": "ball", "1": "mug"}, "path": "pictures"}
BOXES = {
    "a.jpg": [[1, 0.5, 0.5, 0.5, 0.5], [0, 0.25, 0.5, 0.1, 0.2]],
    "b.jpg": [[0, 0.5, 0.5, 1, 1]],
    "c.jpg": None,
}


@pytest.fixture
def make_ndjson(tmp_path: Path, write_image: Make) -> Make:
    """make_ndjson(about, boxes, splits): pictures of 40 x 20 px and an NDJSON of them; `splits` by picture."""

    def make(
        about: Mapping[str, Any] = ABOUT,
        boxes: Mapping[str, Any] = BOXES,
        splits: Mapping[str, str] = {},
        key: str = "boxes",
    ) -> Path:
        lines: list[Any] = [about]
        for seed, (name, objects) in enumerate(boxes.items()):
            split = splits.get(name, "train")
            write_image(tmp_path / "set/pictures/images" / split / name, seed=seed)
            entry = {"type": "image", "file": name, "width": 40, "height": 20, "split": split}
            lines.append(entry if objects is None else {**entry, "annotations": {key: objects}})
        file = tmp_path / "set" / "mugs.ndjson"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    return make


class TestNdjsonSource(SourceContract):
    def make(self, request: pytest.FixtureRequest) -> Path:
        make: Make = request.getfixturevalue("make_ndjson")
        return make(splits={"d.jpg": "val"}, boxes={**BOXES, "d.jpg": []})


def test_splits_and_names(make_ndjson: Make) -> None:
    file = make_ndjson(splits={"b.jpg": "val", "c.jpg": "test"})
    assert splits_of(file) == ("train", "val", "test")
    assert [record.name for record in open_source(file, "val").records] == ["images/val/b.jpg"]


@pytest.mark.parametrize("count", [1, 2, 3, 25])
def test_validation_pictures_are_drawn_as_ultralytics_draws_them(make_ndjson: Make, count: int) -> None:
    import random

    boxes = {f"{number:02}.jpg": [[0, 0.5, 0.5, 0.5, 0.5]] for number in range(count)}
    file = make_ndjson(boxes=boxes)
    if count < 2:
        assert splits_of(file) == ("train",)
        return
    order = [f"images/train/{name}" for name in boxes]
    random.Random(0).shuffle(order)
    drawn = set(order[: max(1, count // 10)])
    assert {record.name for record in open_source(file, "val").records} == drawn
    assert {record.name for record in open_source(file, "train").records} == set(order) - drawn


def test_polygons_and_ids_without_a_name(make_ndjson: Make) -> None:
    boxes = {"a.jpg": [[0, 0.1, 0.1, 0.5, 0.1, 0.1, 0.6], [3, 0.1, 0.1, 0.5, 0.1, 0.1, 0.6]], "b.jpg": []}
    file = make_ndjson({**ABOUT, "task": "segment"}, boxes, {"b.jpg": "val"}, key="segments")
    source = open_source(file)
    assert source.class_names == ("ball", "mug", "class2", "class3")
    assert source.records[0].xyxy.round(3).tolist() == [[4, 2, 20, 12]] * 2
    unnamed = make_ndjson({**ABOUT, "class_names": None}, boxes, {"b.jpg": "val"}, key="segments")
    assert open_source(unnamed).class_names == ("class_0", "class_1", "class_2", "class_3")


def test_problems_name_line_and_object(make_ndjson: Make) -> None:
    file = make_ndjson(
        boxes={"a.jpg": [[0, 0.5, 0.5, 0.2, 0.2], [0, 7, 0.5, 0.2, 0.2]], "b.jpg": []}, splits={"b.jpg": "val"}
    )
    (problem,) = read_split(file, "train").problems
    assert problem.where == f"{file}:2 object:2"
    assert problem.message.startswith("coordinates are shares of the image in 0..1, found 7")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", ": the first line of an NDJSON describes the data set, found none; export it again"),
        ('{"type": "image"}', ": the first line of an NDJSON describes the data set, found none; export it again"),
        ('{"task": "pose"}', ": the task must be detect or segment, found 'pose'; export boxes"),
        (
            '{"task": "detect"}',
            ": pictures behind a URL are not fetched; put them into images/train and images/val of a folder and name "
            'it in the first line: "path": "folder"',
        ),
        (
            '{"path": "x"}\n{"file"',
            ":2: is not valid JSON (Expecting ':' delimiter: line 1 column 8 (char 7)); export it again",
        ),
        ('{"path": "x"}\n[]', ":2: a line is a map, found []; export it again"),
        (
            '{"path": "x"}\n{"file": "../a.jpg", "split": "train"}',
            ':2: a picture has a "split" (train, val or test) and a "file" without a folder, found \'train\' and '
            "'../a.jpg'; mend the line",
        ),
        (
            '{"path": "x"}\n{"file": "a.jpg", "split": "train", "annotations": {"boxes": [3]}}',
            ':2: "annotations" is {"boxes": [[class, x, y, width, height], ...]}, found {\'boxes\': [3]}; '
            "mend the line",
        ),
        (
            '{"path": "x"}\n{"file": "a.jpg", "split": "val"}',
            ': no picture is of the split \'train\'; write "split": "train" where one is',
        ),
        (
            '{"path": "x"}\n{"file": "a.jpg", "split": "train"}',
            ': no class is named; write "class_names": {"0": name} into the first line',
        ),
        (
            '{"path": "x", "class_names": {"first": "ball"}}\n{"file": "a.jpg", "split": "train"}',
            ': "class_names" is {"0": name, "1": name, ...}, found {\'first\': \'ball\'}; mend the first line',
        ),
    ],
)
def test_bad_file(tmp_path: Path, lines: str, message: str) -> None:
    file = tmp_path / "x.ndjson"
    file.write_text(lines)
    with pytest.raises(DatasetError) as caught:
        open_source(file)
    assert str(caught.value) == f"{file}{message}"


def test_hostile_numbers_are_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "x.ndjson"
    first = '{"path": "x", "class_names": {"0": "ball"}}\n'
    for line in (
        "[" * 100_000,
        '{"file": "a.jpg", "split": "train", "annotations": {"boxes": [[' + "9" * 5000 + ", 0, 0, 1, 1]]}}",
    ):
        file.write_text(first + line)
        with pytest.raises(DatasetError) as caught:
            open_source(file)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_ndjson_of_another_tool(tmp_path: Path) -> None:
    file = tmp_path / "export.ndjson"
    file.write_text('{"data_row": {"id": "x"}, "projects": {}}\n')
    with pytest.raises(DatasetError) as caught:
        splits_of(file)
    assert str(caught.value) == (
        f'{file}: the first line of an NDJSON of ultralytics is {{"type": "dataset", ...}}, found the keys '
        "['data_row', 'projects']; export the labels as YOLO or COCO"
    )


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"path": "a\0b"}, "\"path\" must be a folder that a disk can have, found 'a\\x00b'; mend the first line"),
        ({"path": "x" * 300}, '"path" must be a folder that a disk can have, found \'xxx'),
        (
            {"class_names": {"0": "mug", "1": "mug"}},
            "classes 0 and 1 are both called 'mug' in 'class_names:'; give each a name of its own",
        ),
        (
            {"class_names": {"0": None, "1": "mug"}},
            "the name of class 0 in 'class_names:' must be a text, found None; give it one",
        ),
        ({"task": "x" * 9999}, "the task must be detect or segment, found 'xxx"),
        ({"class_names": ["x" * 9999]}, '"class_names" is {"0": name, "1": name, ...}, found [\'xxx'),
    ],
)
def test_values_of_the_first_line_that_are_wrong(make_ndjson: Make, about: dict[str, Any], message: str) -> None:
    file = make_ndjson()
    first, *others = file.read_text().splitlines(keepends=True)
    file.write_text(json.dumps({**json.loads(first), **about}) + "\n" + "".join(others))
    with pytest.raises(DatasetError) as caught:
        splits_of(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert len(str(caught.value)) < len(str(file)) + 300


@pytest.mark.parametrize("name", ["a\0.jpg", "x" * 300])
def test_a_picture_that_no_disk_has(make_ndjson: Make, name: str) -> None:
    file = make_ndjson()
    file.write_text(file.read_text().replace('"a.jpg"', json.dumps(name)))
    with pytest.raises(DatasetError, match='"file" without a folder, found') as caught:
        splits_of(file)
    assert len(str(caught.value)) < len(str(file)) + 300
