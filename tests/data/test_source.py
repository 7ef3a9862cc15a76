"""The contract of a source, held by every reader, and the errors of open_source."""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.source import find_data, open_source, splits_of
from mocha_pipe.data.types import DetectionSource

Make = Callable[..., Path]


class SourceContract:
    """What downstream code relies on; a subclass names the builder of two images, three boxes and a background."""

    def make(self, request: pytest.FixtureRequest) -> Path:
        raise NotImplementedError

    @pytest.fixture
    def data(self, request: pytest.FixtureRequest) -> Path:
        return self.make(request)

    @pytest.fixture
    def source(self, data: Path) -> DetectionSource:
        return open_source(data)

    def test_content(self, source: DetectionSource) -> None:
        assert source.class_names == ("ball", "mug")
        assert [record.path.name for record in source.records] == ["a.jpg", "b.jpg", "c.jpg"]
        assert [record.class_ids.tolist() for record in source.records] == [[1, 0], [0], []]
        np.testing.assert_allclose(source.records[0].xyxy, [[10, 5, 30, 15], [8, 8, 12, 12]])
        np.testing.assert_allclose(source.records[1].xyxy, [[0, 0, 40, 20]])
        assert source.num_regions == 3

    def test_records_are_sorted_by_unique_names_below_the_root(self, source: DetectionSource) -> None:
        names = [record.name for record in source.records]
        assert names == sorted(set(names))
        for record in source.records:
            assert record.path == source.root / record.name
            assert record.path.is_file()

    def test_arrays_have_their_dtypes_and_lie_inside_the_image(self, source: DetectionSource) -> None:
        for record in source.records:
            assert (record.width, record.height) == (40, 20)
            assert record.xyxy.shape == (len(record.class_ids), 4)
            assert (record.xyxy.dtype, record.class_ids.dtype) == (np.float64, np.int64)
            assert (record.xyxy >= 0).all()
            assert (record.xyxy <= [40, 20, 40, 20]).all()
            assert (record.xyxy[:, 2:] > record.xyxy[:, :2]).all()

    def test_a_second_opening_and_a_moved_copy_are_the_same(
        self, data: Path, source: DetectionSource, tmp_path: Path
    ) -> None:
        assert open_source(data).fingerprint() == source.fingerprint()
        shutil.copytree(tmp_path / "set", tmp_path / "copy")
        moved = open_source(tmp_path / "copy" / data.relative_to(tmp_path / "set"))
        assert moved.fingerprint() == source.fingerprint()
        assert [record.name for record in moved.records] == [record.name for record in source.records]

    def test_an_unreadable_image_is_refused(self, data: Path, source: DetectionSource) -> None:
        source.records[1].path.write_bytes(b"none")
        with pytest.raises(DatasetError, match="cannot be read as an image"):
            open_source(data)

    def test_an_unreadable_image_keeps_its_place_where_that_is_asked_for(
        self, data: Path, source: DetectionSource
    ) -> None:
        path = source.records[0].path
        path.write_bytes(b"none")
        kept = open_source(data, keep_unreadable=True)
        assert [record.name for record in kept.records] == [record.name for record in source.records]
        assert [record.readable for record in kept.records] == [False, True, True]
        assert [record.class_ids.tolist() for record in kept.records] == [[1, 0], [0], []]
        first = kept.records[0]
        assert first.xyxy.shape == (2, 4)
        assert (first.xyxy[:, 2:] > first.xyxy[:, :2]).all()
        assert (first.xyxy <= [first.width, first.height] * 2).all()
        (warning,) = kept.problems
        assert (warning.severity, warning.where, warning.unreadable) == ("warning", str(path), True)
        assert warning.message == (
            "cannot be read as an image (no known image format); replace or remove the file; "
            "until then its boxes are set aside, in no training"
        )

    def test_readable_images_are_marked_so(self, source: DetectionSource) -> None:
        assert all(record.readable for record in source.records)

    def test_other_mistakes_are_refused_beside_an_unreadable_image(self, data: Path, source: DetectionSource) -> None:
        source.records[0].path.write_bytes(b"none")
        Image.new("RGB", (40, 9)).save(source.records[1].path)
        with pytest.raises(DatasetError, match=r"b\.jpg: an image must be at least 10 x 10 pixels, found 40 x 9"):
            open_source(data, keep_unreadable=True)

    def test_images_that_cannot_be_reached_are_never_set_aside(
        self, data: Path, source: DetectionSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("mocha_pipe.data.images._open_image", fail)
        with pytest.raises(DatasetError) as caught:
            open_source(data, keep_unreadable=True)
        assert str(caught.value) == (
            f"{source.records[0].path}: cannot be reached (Input/output error); bring the disk back and run the same "
            f"command again (and 2 more; list all: mocha-pipe data check {data})"
        )


LABELS = {
    "train/a.jpg": "1 0.5 0.5 0.5 0.5\n0 0.25 0.5 0.1 0.2\n",
    "train/b.jpg": "0 0.5 0.5 1 1\n",
    "train/c.jpg": "",
}


class TestYoloSource(SourceContract):
    def make(self, request: pytest.FixtureRequest) -> Path:
        make_yolo: Make = request.getfixturevalue("make_yolo")
        return make_yolo(LABELS, {"names": ["ball", "mug"]})


class TestCocoSource(SourceContract):
    def make(self, request: pytest.FixtureRequest) -> Path:
        make_coco: Make = request.getfixturevalue("make_coco")
        images = [{"id": number, "file_name": name} for number, name in ((9, "c.jpg"), (7, "a.jpg"), (3, "b.jpg"))]
        return make_coco(images=images, write=("train/a.jpg", "train/b.jpg", "train/c.jpg"))


class TestCocoBehindYaml(SourceContract):
    def make(self, request: pytest.FixtureRequest) -> Path:
        file = TestCocoSource().make(request)
        data = file.parents[1] / "data.yaml"
        data.write_text("train: annotations/instances_train.json\nval: annotations/instances_train.json\n")
        return data


def test_one_problem_is_the_whole_line(make_yolo: Make, refusal: Callable[..., str]) -> None:
    data = make_yolo({"train/a.jpg": "5 0.5 0.5 0.5 0.5\n"})
    assert refusal(data, error=DatasetError) == (
        f"{data.parent}/labels/train/a.txt:1: unknown class id 5, the class names have ids 0 to 2; "
        "mend the id or add the name"
    )


def test_many_problems_give_the_first_the_count_and_the_command(make_yolo: Make, refusal: Callable[..., str]) -> None:
    data = make_yolo({"train/a.jpg": "5 0.5 0.5 0.5 0.5\n0 nan 0 0 0\n", "train/b.jpg": "x 0 0 0 0\n"})
    assert refusal(data, error=DatasetError) == (
        f"{data.parent}/labels/train/a.txt:1: unknown class id 5, the class names have ids 0 to 2; "
        f"mend the id or add the name (and 2 more; list all: mocha-pipe data check {data})"
    )


def test_the_command_quotes_a_path_with_spaces(make_yolo: Make, tmp_path: Path, refusal: Callable[..., str]) -> None:
    data = make_yolo({"train/a.jpg": "5 0 0 0 0\n6 0 0 0 0\n"}, root=tmp_path / "my set")
    assert refusal(data).endswith(f"list all: mocha-pipe data check '{data}')")


def test_warnings_do_not_stop(make_yolo: Make) -> None:
    source = open_source(make_yolo({"train/a.jpg": "0 0.5 0.5 0.5 0.5\n" * 2}))
    assert source.num_regions == 1
    assert [warning.severity for warning in source.problems] == ["warning"]


def test_file_that_is_not_there(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert refusal(tmp_path / "data.yaml", error=DatasetNotFoundError) == (
        f"{tmp_path}/data.yaml: no such file; pass the data.yaml (YOLO) or .json (COCO) of a data set, "
        "or make the miniature one: mocha-pipe data miniature"
    )


def test_unknown_suffix_and_archive(tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "data.csv").touch()
    assert refusal(tmp_path / "data.csv", error=DatasetError) == (
        f"{tmp_path}/data.csv: a data set is a .yaml (YOLO), .ndjson (ultralytics) or .json (COCO) file, found '.csv'"
    )
    for name in ("data.zip", "data.tar.gz"):
        (tmp_path / name).touch()
        assert refusal(tmp_path / name, error=DatasetError) == (
            f"{tmp_path}/{name}: is an archive; unpack it (python -m zipfile -e FILE FOLDER, or tar -xf FILE) and pass "
            "the data.yaml in it"
        )


def test_the_remedy_for_an_archive_works_when_it_is_typed(make_yolo: Make, tmp_path: Path) -> None:
    data = make_yolo(LABELS)
    for kind in ("zip", "gztar"):
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, data.parent))
        with pytest.raises(DatasetError) as caught:
            open_source(archive)
        commands = str(caught.value).partition("(")[2].partition(")")[0].split(", or ")
        folder = tmp_path / kind
        folder.mkdir()
        command = commands[kind == "gztar"].replace("FILE", str(archive)).replace("FOLDER", str(folder)).split()
        subprocess.run([sys.executable if word == "python" else word for word in command], check=True, cwd=folder)
        assert open_source(folder / "data.yaml").num_regions == 3


def test_a_folder_stands_for_the_one_yaml_in_it(make_yolo: Make, tmp_path: Path) -> None:
    """As `yolo train data=FOLDER`: in it, or else below it; of several the one of its name."""
    data = make_yolo(LABELS)
    assert find_data(data.parent) == data
    assert find_data(tmp_path) == data
    assert open_source(data.parent).num_regions == 3
    assert splits_of(data.parent) == ("train", "val")
    data.rename(data.with_name("data.yml"))
    assert find_data(data.parent) == data.with_name("data.yml")
    (data.parent / "other.yml").touch()
    with pytest.raises(DatasetError) as caught:
        find_data(data.parent)
    assert str(caught.value) == (
        f"{data.parent}: a folder is a data set where it holds one .yaml, found 2, {data.parent}/data.yml and "
        f"{data.parent}/other.yml; pass the data.yaml (YOLO) or .json (COCO) itself"
    )
    data.with_name("data.yml").rename(data.with_name("set.yml"))
    assert find_data(data.parent) == data.with_name("set.yml")


def test_a_folder_without_a_yaml(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert refusal(tmp_path, error=DatasetError) == (
        f"{tmp_path}: a folder is a data set where it holds one .yaml, found none; pass the data.yaml (YOLO) or .json "
        "(COCO) itself"
    )


def test_a_bare_name_is_a_yaml_here_or_one_that_ultralytics_ships(
    make_yolo: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_yolo(LABELS)
    monkeypatch.chdir(data.parent)
    assert open_source(Path("data")).num_regions == 3
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(DatasetNotFoundError) as caught:
        open_source(Path("coco8"))
    assert str(caught.value) == (
        "coco8: ultralytics ships a yaml of this name, but its pictures are not on this machine; have them fetched by: "
        "yolo train data=coco8"
    )
    labels = {**LABELS, "val/d.jpg": ""}
    shipped = make_yolo(labels, root=tmp_path / "datasets" / "coco8")  # its own data.yaml is not looked at
    shipped.unlink()
    settings = tmp_path / "config" / "Ultralytics" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"datasets_dir": str(tmp_path / "datasets")}))
    for name in ("coco8", "coco8.yaml"):
        source = open_source(Path(name))
        assert (source.root, source.num_regions) == (tmp_path / "datasets" / "coco8", 3)
        assert source.class_names[:2] == ("person", "bicycle")


def test_splits(make_yolo: Make, make_coco: Make) -> None:
    assert splits_of(make_yolo(keys={"test": "images/train"})) == ("train", "val", "test")
    assert splits_of(make_coco()) == ("train",)


def test_a_folder_without_yaml_says_what_to_pass(tmp_path: Path, make_coco: Make) -> None:
    file = make_coco()
    with pytest.raises(DatasetError, match=r"found none; pass the \.json itself, such as .*instances_train\.json$"):
        find_data(file.parents[1])
    tmp_path.joinpath("labels").mkdir()
    tmp_path.joinpath("images").mkdir()
    tmp_path.joinpath("classes.txt").write_text("cup\nmug\n")
    with pytest.raises(DatasetError) as caught:
        find_data(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: a folder is a data set where it holds one .yaml, found none; write a data.yaml there with "
        "'train: images', 'val:' of other images, and as 'names:' the lines of classes.txt in their order"
    )


def test_a_folder_of_roboflow_s_coco_export_says_what_to_pass(tmp_path: Path) -> None:
    for split in ("test", "train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text("{}")
    with pytest.raises(DatasetError) as caught:
        find_data(tmp_path)
    assert str(caught.value).endswith(f"; pass the .json itself, such as {tmp_path}/train/_annotations.coco.json")
