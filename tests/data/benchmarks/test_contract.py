"""What every reader of benchmarks promises, and what those of the published ones promise beyond."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mocha_pipe.data.benchmarks.episodes import Episode, draw_episodes
from mocha_pipe.data.benchmarks.opening import PUBLISHED, open_benchmark, open_training
from mocha_pipe.data.coarse import COARSE_NAMES
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.types import PersonalBenchmark


class BenchmarkContract:
    """A subclass builds a folder; `name` is the published benchmark's, empty for a folder of one's own."""

    name = ""
    shots = 1

    @classmethod
    def build(cls, root: Path, request: pytest.FixtureRequest) -> None:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Read by every test of the class, changed by none."""
        root = tmp_path_factory.mktemp("benchmark") / "set"
        cls.build(root, request)
        return root

    @pytest.fixture
    def ours(self, folder: Path, bent: Callable[[Path], Path]) -> Path:
        return bent(folder)

    @classmethod
    def open(cls, folder: Path) -> PersonalBenchmark:
        return open_benchmark(cls.name, folder) if cls.name else open_benchmark(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def benchmark(cls, folder: Path) -> PersonalBenchmark:
        return cls.open(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def drawn(cls, benchmark: PersonalBenchmark) -> tuple[Episode, ...]:
        return draw_episodes(benchmark, episodes=2, shots=cls.shots, reserve=cls.shots, seed=0)

    def test_every_object_has_a_name_of_its_own_and_a_coarse_class(self, benchmark: PersonalBenchmark) -> None:
        names = benchmark.source.class_names
        assert len(set(names)) == len(names) == len(benchmark.coarse_of)
        assert set(benchmark.coarse_of.tolist()) == set(range(len(benchmark.coarse_names)))
        assert benchmark.coarse_of.dtype == np.int64

    def test_every_object_is_taught_by_boxes_of_its_own(
        self, benchmark: PersonalBenchmark, drawn: tuple[Episode, ...]
    ) -> None:
        object_of_row = np.concatenate([record.class_ids for record in benchmark.source.records])
        for episode in drawn:
            assert episode.support.shape == (len(benchmark.source.class_names), self.shots)
            for number, rows in enumerate(episode.support):
                assert object_of_row[rows].tolist() == [number] * self.shots

    def test_no_image_teaches_and_is_asked_about(
        self, benchmark: PersonalBenchmark, drawn: tuple[Episode, ...]
    ) -> None:
        records = benchmark.source.records
        image_of_row = np.repeat(np.arange(len(records)), [len(record.class_ids) for record in records])
        for episode in drawn:
            assert len(episode.query)
            assert not set(image_of_row[episode.support].ravel().tolist()) & set(episode.query.tolist())
            assert episode.query.tolist() == sorted(set(episode.query.tolist()))

    def test_names_lie_below_the_root_and_a_moved_copy_is_the_same(
        self, benchmark: PersonalBenchmark, folder: Path, tmp_path: Path
    ) -> None:
        copy = Path(shutil.copytree(folder, tmp_path / "set"))
        moved = self.open(copy)
        assert moved.fingerprint() == benchmark.fingerprint()
        for record in moved.source.records:
            assert Path(record.path) == copy / record.name
            assert record.path.is_file()

    def test_a_changed_box_changes_the_fingerprint(self, benchmark: PersonalBenchmark, ours: Path) -> None:
        label = next(file for file in sorted(ours.rglob("*.txt")) if file.read_text())
        label.write_text(label.read_text().replace("0.5 0.5 0.5 0.5", "0.5 0.5 0.5 0.25"))
        assert self.open(ours).fingerprint() != benchmark.fingerprint()

    def test_unreadable_images_are_refused_and_counted(self, benchmark: PersonalBenchmark, ours: Path) -> None:
        first, *others = (ours / record.name for record in benchmark.source.records[:3])
        first.write_bytes(b"none")
        with pytest.raises(DatasetError) as refused:
            self.open(ours)
        message = f"{first}: cannot be read as an image (no known image format); replace or remove the file"
        assert str(refused.value) == message
        for image in others:
            image.write_bytes(b"none")
        with pytest.raises(DatasetError) as refused:
            self.open(ours)
        assert str(refused.value).startswith(f"{message} (and 2 more")


class PublishedContract(BenchmarkContract):
    """`coarse_ids` is the personal -> coarse map of the paper's data, in ids."""

    coarse_ids: tuple[int, ...]
    first_and_last: tuple[str, str]
    confidence: float

    def test_label_ids_mean_the_objects_of_the_paper(self, benchmark: PersonalBenchmark) -> None:
        names = benchmark.source.class_names
        assert (names[0], names[-1]) == self.first_and_last
        ids = [COARSE_NAMES.index(benchmark.coarse_names[coarse]) for coarse in benchmark.coarse_of]
        assert tuple(ids) == self.coarse_ids
        assert benchmark.coarse_names == tuple(COARSE_NAMES[number] for number in sorted(set(self.coarse_ids)))
        assert benchmark.name == self.name

    def test_boxes_are_pixels(self, benchmark: PersonalBenchmark) -> None:
        for record in benchmark.source.records:
            assert (record.width, record.height) == (24, 16)
            np.testing.assert_allclose(record.xyxy, [[6, 4, 18, 12]])
            assert record.class_ids.tolist() == [int(Path(record.name).name[:2])]

    def test_the_reference_confidence(self) -> None:
        assert PUBLISHED[self.name].confidence == self.confidence

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetNotFoundError) as refused:
            self.open(tmp_path / "nowhere")
        assert str(refused.value) == (
            f"{tmp_path}/nowhere: no such folder; name the one that holds {self.name} with --data"
        )

    def test_an_unknown_object_is_refused(self, benchmark: PersonalBenchmark, ours: Path) -> None:
        image = ours / benchmark.source.records[0].name
        label = image.parent.parent / "labels" / f"{image.stem}.txt"
        label.write_text("77 0.5 0.5 0.5 0.5\n")
        with pytest.raises(DatasetError) as refused:
            self.open(ours)
        last = len(self.coarse_ids) - 1
        assert str(refused.value) == (
            f"{label}:1: unknown class id 77, the class names have ids 0 to {last}; mend the id or add the name"
        )

    def test_without_any_label_it_is_another_folder(self, ours: Path) -> None:
        for label in ours.rglob("*.txt"):
            label.unlink()
        with pytest.raises(DatasetError, match="no image has a label file, looked in"):
            self.open(ours)


class TestPerSeg(PublishedContract):
    name, confidence, first_and_last = "perseg", 0.1, ("backpack", "wooden_pot")
    coarse_ids = (
        13, 13, 15, 14, 1, 10, 22, 16, 16, 22, 17, 18, 19, 20, 21, 21, 21, 21, 21, 21, 21, 21, 14, 22, 19, 14, 14, 14,
        14, 14, 22, 19, 23, 20, 14, 22, 14, 14, 22,
    )  # fmt: skip

    @classmethod
    def build(cls, root: Path, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("build_perseg")(root)

    def test_labels_may_lie_beside_the_images(self, benchmark: PersonalBenchmark, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder / "images", tmp_path, dirs_exist_ok=True)
        shutil.copytree(folder / "labels", tmp_path, dirs_exist_ok=True)
        shutil.copy(folder / "episodes.json", tmp_path)
        beside = self.open(tmp_path)
        assert [record.name for record in beside.source.records] == [
            Path(record.name).name for record in benchmark.source.records
        ]
        assert beside.published == benchmark.published


class TestPod(PublishedContract):
    name, confidence, first_and_last = "pod", 0.1, ("book1", "toy3")
    coarse_ids = tuple(coarse for coarse in (24, 0, 10, 18, 1, 25, 2, 27, 3, 4, 7, 12, 8, 19, 14) for _ in range(3))

    @classmethod
    def build(cls, root: Path, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("build_pod")(root)


class _Handheld(PublishedContract):
    confidence = 0.001
    shots = 2

    @classmethod
    def build(cls, root: Path, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("build_handheld")(root, len(cls.coarse_ids))

    def test_a_detector_learns_from_images_that_no_episode_is_about(
        self, benchmark: PersonalBenchmark, folder: Path
    ) -> None:
        training = open_training(self.name, folder)
        assert [record.path for record in training.source.records] == [folder / "val/images/00_0.jpg"]
        assert training.source.class_names == benchmark.source.class_names
        np.testing.assert_array_equal(training.coarse_of, benchmark.coarse_of)

    def test_the_reference_lets_heads_learn(self) -> None:
        assert PUBLISHED[self.name].head_epochs == 10


class TestCore50(_Handheld):
    name, first_and_last = "core50", ("plug1", "remote5")
    coarse_ids = tuple(coarse for coarse in (6, 7, 8, 9, 10, 2, 11, 4, 3, 12) for _ in range(5))

    def test_splits_may_lie_below_images_and_labels(
        self, benchmark: PersonalBenchmark, folder: Path, tmp_path: Path
    ) -> None:
        for kind in ("images", "labels"):
            shutil.copytree(folder / "train" / kind, tmp_path / kind / "train")
        for shots in (1, 2):
            shutil.copy(folder / f"episodes_{shots}shot.json", tmp_path)
        other = self.open(tmp_path)
        assert other.published == benchmark.published
        assert [record.class_ids.tolist() for record in other.source.records] == [
            record.class_ids.tolist() for record in benchmark.source.records
        ]

    def test_without_val_there_is_nothing_to_learn_from(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder / "train", tmp_path / "train")
        with pytest.raises(DatasetNotFoundError) as refused:
            open_training(self.name, tmp_path)
        assert str(refused.value) == (
            f"{tmp_path}: {self.name} has a folder 'val', which is not in it; name the folder that holds it with --data"
        )

    def test_a_folder_without_train(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder / "val", tmp_path / "val")
        with pytest.raises(DatasetNotFoundError) as refused:
            self.open(tmp_path)
        assert str(refused.value) == (
            f"{tmp_path}: {self.name} has a folder 'train', which is not in it; "
            "name the folder that holds it with --data"
        )

    def test_a_train_without_images(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        with pytest.raises(DatasetError) as refused:
            self.open(tmp_path)
        assert str(refused.value) == (f"{tmp_path}: no image of {self.name} in {tmp_path}/train; put its images there")


class TestIcubworld(_Handheld):
    """Read by the same code as CORe50; beside the contract of all it has its own objects."""

    name, first_and_last = "icubworld", ("bottle0", "bags3")
    coarse_ids = (0,) * 8 + (24,) * 8 + (3,) * 4 + (29,) * 4 + (30,) * 4 + (26,) * 4


class TestPods(BenchmarkContract):
    name = "pods"

    @classmethod
    def build(cls, root: Path, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("build_pods")(root)

    def test_a_changed_box_changes_the_fingerprint(self, benchmark: PersonalBenchmark, ours: Path) -> None:
        mask = next(iter(sorted((ours / "test_dense_masks").rglob("*.png"))))
        Image.new("L", (24, 16), 255).save(mask)
        assert self.open(ours).fingerprint() != benchmark.fingerprint()


class TestYamlFolder(BenchmarkContract):
    @classmethod
    def build(cls, root: Path, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("write_split")(root, ".", 3, range(3))
        (root / "data.yaml").write_text(
            "test: images\nnames: [red mug, blue mug, my ball]\ncoarse_names: [ball, mug]\ncoarse: [1, 1, 0]\n"
        )


class TestPhotos(BenchmarkContract):
    @classmethod
    def build(cls, root: Path, request: pytest.FixtureRequest) -> None:
        write_scene: Callable[..., Path] = request.getfixturevalue("write_scene")
        for name in ("blue mug", "my ball", "red mug"):
            for copy in range(3):
                write_scene(root / name / f"{copy}.jpg", root / name / f"labels/{copy}.txt", [0])
