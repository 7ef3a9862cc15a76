from collections.abc import Callable
from pathlib import Path

import pytest

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.readers.layout import load_layout

Make = Callable[..., Path]


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return tmp_path / "data.yaml"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [ball, mug]", ("ball", "mug")),
        ("names: {1: mug, 0: ball}", ("ball", "mug")),
        ("names: {'0': ball, '1': 7}", ("ball", "7")),
        ("names: [ball, mug]\nnc: 2", ("ball", "mug")),
        ("nc: 2", ("class_0", "class_1")),
        ("names:\nnc: '2'", ("class_0", "class_1")),
        ("train: x.json", None),
    ],
)
def test_class_names(yaml_file: Path, text: str, names: tuple[str, ...] | None) -> None:
    yaml_file.write_text(text)
    assert load_layout(yaml_file).class_names == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: ball", "'names:' must be a list or map of class names, found a str"),
        ("names: []", "'names:' must be a list or map of class names, found a list"),
        ("names: {1: ball, 2: mug}", "'names:' has 2 names, so its ids must be 0 to 1, found [1, 2]"),
        ("names: {a: ball}", "'names:' has 1 names, so its ids must be 0 to 0, found ['a']"),
        ("names: [ball]\nnc: 2", "'nc: 2' but 'names:' has 1 names; remove 'nc:'"),
        ("nc: 1.5", "'nc:' must be a whole number of classes, found 1.5"),
        ("nc: many", "'nc:' must be a whole number of classes, found 'many'"),
        ("train: 3", "'train:' must be a folder, a list file, or a list of those, found 3"),
        ("val: [a, 3]", "'val:' must be a folder, a list file, or a list of those, found ['a', 3]"),
        ("path: [a]", "'path:' must be a folder, found a list"),
        ("kpt_shape: 17", "'kpt_shape:' must be [points, numbers per point], found 17"),
        ("- a", "must hold 'key: value' lines, found a list; see 'names:' and 'train:'"),
        ("", "must hold 'key: value' lines, found nothing; see 'names:' and 'train:'"),
    ],
)
def test_bad_yaml(yaml_file: Path, text: str, message: str) -> None:
    yaml_file.write_text(text)
    with pytest.raises(DatasetError) as caught:
        load_layout(yaml_file)
    assert str(caught.value) == f"{yaml_file}: {message}"


def test_yaml_that_cannot_be_parsed(yaml_file: Path) -> None:
    yaml_file.write_text("names: [ball\ntrain: x")
    with pytest.raises(DatasetError, match=r"^.+: is not valid YAML \(line 2: .+\); mend that line$"):
        load_layout(yaml_file)


def test_yaml_that_is_no_text(yaml_file: Path) -> None:
    yaml_file.write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError) as caught:
        load_layout(yaml_file)
    assert str(caught.value) == f"{yaml_file}: is not UTF-8 text; save it as UTF-8"


def test_root_is_the_path_absolute_or_from_the_yaml_or_from_the_working_folder(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "work" / "there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    for path, root in [
        ("", tmp_path),
        ("path: beside", tmp_path / "beside"),
        ("path: there", tmp_path / "work" / "there"),
        (f"path: {tmp_path}/work", tmp_path / "work"),
    ]:
        yaml_file.write_text(f"nc: 1\n{path}\n")
        assert load_layout(yaml_file).root == root.resolve()


def test_root_that_is_not_there(yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yaml_file.write_text("path: nowhere")
    with pytest.raises(DatasetNotFoundError) as caught:
        load_layout(yaml_file)
    assert str(caught.value) == (
        f"{yaml_file}: 'path: nowhere' is no folder, looked for {tmp_path}/nowhere and {tmp_path}/work/nowhere; "
        "set 'path:' to the data set's folder"
    )


def test_validation_is_another_word_for_val(yaml_file: Path) -> None:
    yaml_file.write_text("validation: images")
    assert load_layout(yaml_file).entries == {"val": "images"}


def test_roboflow_entry_falls_back_to_the_folder_inside(yaml_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "train" / "images").mkdir(parents=True)
    data = root / "data.yaml"
    data.write_text("train: ../train/images\nnc: 1")
    assert load_layout(data).places("train") == [root / "train" / "images"]


def test_missing_split_and_missing_folder(yaml_file: Path, tmp_path: Path) -> None:
    yaml_file.write_text("train: images\nnc: 1")
    with pytest.raises(DatasetError) as caught:
        load_layout(yaml_file).places("val")
    assert str(caught.value) == (f"{yaml_file}: key 'val:' is missing, splits found: 'train:'; add 'val: images/val'")
    with pytest.raises(DatasetNotFoundError) as missing:
        load_layout(yaml_file).places("train")
    assert str(missing.value) == (
        f"{yaml_file}: 'train: images' is not there, looked for {tmp_path}/images; mend 'train:' or 'path:'"
    )


@pytest.mark.parametrize("how", ["dots", "absolute", "link"])
def test_entry_that_leaves_the_root(tmp_path: Path, how: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "set"
    outside.mkdir()
    root.mkdir()
    (root / "link").symlink_to(outside)
    entry = {"dots": "x/../../outside", "absolute": str(outside), "link": "link"}[how]
    data = root / "data.yaml"
    data.write_text(f"train: {entry}\nnc: 1")
    with pytest.raises(DatasetError) as caught:
        load_layout(data).places("train")
    assert str(caught.value) == (
        f"{data}: 'train: {entry}' leaves the data set's folder {root}; set 'path:' to a folder that holds both"
    )


@pytest.mark.parametrize("key", ["path", "train", "val"])
@pytest.mark.parametrize("value", [300 * "x", '"a\\0b"', f"[images, {300 * 'x'}]"], ids=["long", "zero", "in a list"])
def test_what_no_disk_has_is_no_path(yaml_file: Path, key: str, value: str) -> None:
    yaml_file.write_text(f"{key}: {value}\nnames: [ball]\n")
    with pytest.raises(DatasetError, match=f"'{key}:' must be a path that a disk can have, found '.+'; mend it$"):
        load_layout(yaml_file)


def test_a_number_of_classes_beyond_all_reason(yaml_file: Path) -> None:
    yaml_file.write_text(f"nc: 1{400 * '0'}\n")
    with pytest.raises(DatasetError, match=r"'nc:' must be a whole number of classes, found a number of 1329 bits$"):
        load_layout(yaml_file)


def test_lists_in_lists_are_told_in_short(yaml_file: Path) -> None:
    yaml_file.write_text(
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{new}: &{new} [{','.join(9 * [f'*{old}'])}]\n" for old, new in ("ab", "bc", "cd", "de", "ef", "fg"))
        + "train: *g\n"
    )
    with pytest.raises(DatasetError, match="'train:' must be a folder, a list file, or a list of those") as caught:
        load_layout(yaml_file)
    assert len(str(caught.value)) < 1000
