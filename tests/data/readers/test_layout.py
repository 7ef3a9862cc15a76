import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.readers.layout import load_layout
from mocha_pipe.data.source import read_split

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
        (
            "names: {1: ball, 2: mug}",
            "'names:' has 2 names, so its ids must be 0 to 1, found [1, 2]; "
            "count them from 0, or where the labels count from 1 too, add '0: nothing'",
        ),
        (
            "names: {a: ball}",
            "'names:' has 1 names, so its ids must be 0 to 0, found ['a']; number them "
            "so, in the order of the labels' ids",
        ),
        (
            "names: {0: ball, 2: mug}",
            "'names:' has 2 names, so its ids must be 0 to 1, found [0, 2]; number them so, "
            "in the order of the labels' ids",
        ),
        ("names: [ball]\nnc: 2", "'nc: 2' but 'names:' has 1 names; remove 'nc:'"),
        ("nc: 1.5", "'nc:' must be a whole number of classes, found 1.5"),
        ("nc: many", "'nc:' must be a whole number of classes, found 'many'"),
        ("train: 3", "'train:' must be a folder, a list file, or a list of those, found 3"),
        ("val: [a, 3]", "'val:' must be a folder, a list file, or a list of those, found ['a', 3]"),
        ("path: [a]", "'path:' must be a folder, found a list"),
        *(
            (f"kpt_shape: {shape}", f"'kpt_shape:' must be [points, 2 or 3 numbers per point], found {said}; mend it")
            for shape, said in (
                ("17", "17"),
                ("[-2, -3]", "[-2, -3]"),
                ("[-17, 3]", "[-17, 3]"),
                ("[17, 4]", "[17, 4]"),
                ("[true, 3]", "[True, 3]"),
            )
        ),
        (
            "train: images\nval: images\ntrain: other",
            "is not valid YAML (line 3: key 'train' is there twice, of which "
            "only the last would count); mend that line",
        ),
        (
            "names:\n  0: ball\n  1: mug\n  1: boot",
            "is not valid YAML (line 4: key 1 is there twice, of which only the last would count); mend that line",
        ),
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
    for variable in ("YOLO_CONFIG_DIR", "XDG_CONFIG_HOME"):  # no settings of ultralytics
        monkeypatch.setenv(variable, str(tmp_path))
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
def test_entry_outside_the_root(tmp_path: Path, how: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "set"
    outside.mkdir()
    root.mkdir()
    (root / "link").symlink_to(outside)
    entry = {"dots": "x/../../outside", "absolute": str(outside), "link": "link"}[how]
    data = root / "data.yaml"
    data.write_text(f"train: {entry}\nnc: 1")
    assert load_layout(data).places("train") == [outside]


@pytest.mark.parametrize(
    ("key", "value"), [("train", "images\\train"), ("train", ".\\images\\train"), ("path", "..\\set")]
)
def test_backslashes_of_windows_are_read(tmp_path: Path, key: str, value: str) -> None:
    root = tmp_path / "set"
    (root / "images/train").mkdir(parents=True)
    keys = {"train": "images/train", "nc": "1", key: value}
    (root / "data.yaml").write_text("".join(f"{name}: {text}\n" for name, text in keys.items()))
    layout = load_layout(root / "data.yaml")
    assert layout.root == root
    assert layout.places("train") == [root / "images/train"]


def test_a_folder_whose_name_has_a_backslash_wins(tmp_path: Path) -> None:
    (tmp_path / "images\\train").mkdir()
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("train: images\\train\nnc: 1")
    assert load_layout(tmp_path / "data.yaml").places("train") == [tmp_path / "images\\train"]


def test_path_of_windows_that_cannot_be_here(yaml_file: Path) -> None:
    yaml_file.write_text("train: C:\\data\\images\\train\nnc: 1")
    with pytest.raises(DatasetNotFoundError) as caught:
        load_layout(yaml_file).places("train")
    assert str(caught.value) == (
        f"{yaml_file}: 'train: C:\\data\\images\\train' is a path of another machine, which runs Windows; write where "
        "the pictures lie on this one"
    )
    yaml_file.write_text("path: D:\\sets\\mugs\ntrain: images\nnc: 1")
    with pytest.raises(DatasetNotFoundError) as caught:
        load_layout(yaml_file)
    assert str(caught.value) == (
        f"{yaml_file}: 'path: D:\\sets\\mugs' is a path of another machine, which runs Windows; write where the data "
        "set lies on this one"
    )


@pytest.mark.parametrize("entry", ["//nowhere/share/images", "a:b"])
def test_what_may_be_a_path_here_is_none_of_windows(yaml_file: Path, entry: str) -> None:
    yaml_file.write_text(f"train: {entry}\nnc: 1")
    with pytest.raises(DatasetNotFoundError, match="is not there, looked for"):
        load_layout(yaml_file).places("train")


@pytest.mark.parametrize("entry", ["C:/mugs/images", "\\\\\\\\share\\\\mugs"])
def test_drives_and_shares_of_windows_are_known(yaml_file: Path, entry: str) -> None:
    yaml_file.write_text(f"train: '{entry}'\nnc: 1")
    with pytest.raises(DatasetNotFoundError, match="is a path of another machine, which runs Windows"):
        load_layout(yaml_file).places("train")


def make_split(folder: Path) -> Path:
    (folder / "images/train").mkdir(parents=True)
    return folder


def test_path_in_two_places_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics counts `path:` from the working folder, where CVAT's `path: ./` is any folder at all."""
    beside, work = make_split(tmp_path / "set"), make_split(tmp_path / "work")
    data = beside / "data.yaml"
    data.write_text("path: .\ntrain: images/train\nnc: 1")
    monkeypatch.chdir(work)
    layout = load_layout(data)
    assert layout.root == beside
    (problem,) = layout.problems
    assert (problem.severity, problem.where, problem.message) == (
        "warning",
        str(data),
        f"'path: .' is read as {beside}, from this file's folder, and `yolo train` would read {work}, from the working "
        f"folder; write 'path: {beside}' so that there is only one",
    )
    data.write_text(f"path: {beside}\ntrain: images/train\nnc: 1")  # the remedy
    assert (load_layout(data).root, load_layout(data).problems) == (beside, ())


def test_path_counts_from_where_the_splits_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`path: .` is there beside the yaml as well, but holds nothing."""
    work, settings = make_split(tmp_path / "work"), tmp_path / "settings"
    settings.mkdir()
    (settings / "data.yaml").write_text("path: .\ntrain: images/train\nnc: 1")
    monkeypatch.chdir(work)
    layout = load_layout(settings / "data.yaml")
    assert (layout.root, layout.problems) == (work, ())


@pytest.mark.parametrize("variable", ["YOLO_CONFIG_DIR", "XDG_CONFIG_HOME"])
def test_path_in_the_datasets_folder_of_ultralytics(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    make_split(tmp_path / "datasets" / "coco8")
    (tmp_path / "config" / "Ultralytics").mkdir(parents=True)
    settings = tmp_path / "config" / "Ultralytics" / "settings.json"
    monkeypatch.delenv("YOLO_CONFIG_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "config"))
    yaml_file.write_text("path: coco8\ntrain: images/train\nnc: 1")
    for useless in ("{", "[]", '{"datasets_dir": 3}', '{"datasets_dir": "/nowhere"}'):
        settings.write_text(useless)
        with pytest.raises(DatasetNotFoundError, match="is no folder"):
            load_layout(yaml_file)
    settings.write_text(json.dumps({"datasets_dir": str(tmp_path / "datasets")}))
    assert load_layout(yaml_file).root == tmp_path / "datasets" / "coco8"


@pytest.mark.parametrize("channels", [1, 4, 10, "three", [3]])
def test_other_channels_are_refused(yaml_file: Path, channels: object) -> None:
    yaml_file.write_text(f"nc: 1\nchannels: {channels}")
    with pytest.raises(DatasetError) as caught:
        load_layout(yaml_file)
    assert str(caught.value) == (
        f"{yaml_file}: teacher and student see three channels, red, green and blue, found 'channels: {channels}'; save "
        "the pictures as RGB and remove 'channels:'"
    )


@pytest.mark.parametrize("channels", ["", "3", "3.0", "'3'"])
def test_three_channels_may_be_said(yaml_file: Path, channels: str) -> None:
    yaml_file.write_text(f"nc: 1\nchannels: {channels}")
    assert load_layout(yaml_file).class_names == ("class_0",)


def test_codes_of_imagenet_become_words_as_in_ultralytics(yaml_file: Path) -> None:
    from mocha_pipe.student.environment import prepare_environment

    prepare_environment()
    from ultralytics.nn.autobackend import check_class_names

    for names in (["n01440764", "n01443537", "mug"], ["mug", "n01440764"]):
        yaml_file.write_text(yaml.safe_dump({"names": names}))
        assert load_layout(yaml_file).class_names == tuple(check_class_names(names).values())
    yaml_file.write_text("names: [n01440764, n01443537]")
    assert load_layout(yaml_file).class_names == ("tench", "goldfish")


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


def test_a_split_called_valid(make_yolo: Callable[..., Path], refusal: Callable[..., str]) -> None:
    data = make_yolo(keys={"val": None, "valid": "images/train"})
    (found,) = read_split(data, "train").problems
    assert (found.severity, found.message) == (
        "warning",
        "'valid:' is no split that `yolo train` knows, and is not read; rename it to 'val:'",
    )
    assert refusal(data, "val").endswith("splits found: 'train:'; rename 'valid:' to 'val:'")
    data.write_text(data.read_text().replace("valid:", "val:"))
    assert read_split(data, "val").problems == ()
