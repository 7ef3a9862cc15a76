"""What every teacher owes the cache. A new teacher subclasses `TeacherContract` and brings a `teacher` fixture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.teachers.base import RegionEmbeddings, Teacher
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher
from mocha_pipe.teacher_cache.teachers.loading import load_teacher
from tests.shared import DEVICE

CLASS_NAMES = ["cat", "kitchen & dining room table", "a", "Müll 垃圾", "cat", "scissors", "the can"]


class TeacherContract:
    """Shape, type, order and repeatability of embeddings."""

    tolerance = 1e-4
    """Largest difference between a region embedded alone and in a batch, as a share of the embedding's norm."""
    arrays = frozenset({"hidden", "visual"})
    """What it fills."""

    @pytest.fixture
    def teacher(self) -> Teacher:
        """The teacher under test, with a batch smaller than the number of class names."""
        raise NotImplementedError

    @pytest.fixture
    def crops(self, teacher: Teacher, make_crops: Callable[..., list[NDArray[np.uint8]]]) -> list[NDArray[np.uint8]]:
        """One picture per class name."""
        return make_crops(len(CLASS_NAMES), teacher.spec.crop_size)

    def assert_close(self, found: RegionEmbeddings, expected: RegionEmbeddings) -> None:
        """Equal up to the tolerance, row by row."""
        for one, other in ((found.hidden, expected.hidden), (found.visual, expected.visual)):
            difference = np.linalg.norm(one - other, axis=1)
            assert (difference <= self.tolerance * np.linalg.norm(other, axis=1)).all()

    def test_embeddings_are_finite_float32_of_the_promised_width(
        self, teacher: Teacher, crops: list[NDArray[np.uint8]]
    ) -> None:
        found = teacher.embed(crops, CLASS_NAMES)
        assert found.hidden.shape == (len(crops), teacher.spec.hidden_dim)
        assert found.visual.shape == (len(crops), teacher.spec.visual_dim)
        assert found.hidden.dtype == found.visual.dtype == np.float32
        assert np.isfinite(found.hidden).all()
        assert np.isfinite(found.visual).all()
        assert set(teacher.spec.arrays) == self.arrays

    def test_repeats_bit_by_bit(self, teacher: Teacher, crops: list[NDArray[np.uint8]]) -> None:
        first, second = teacher.embed(crops, CLASS_NAMES), teacher.embed(crops, CLASS_NAMES)
        assert np.array_equal(first.hidden, second.hidden)
        assert np.array_equal(first.visual, second.visual)

    def test_a_region_alone_equals_the_region_in_a_batch(
        self, teacher: Teacher, crops: list[NDArray[np.uint8]]
    ) -> None:
        alone = [teacher.embed([crop], [name]) for crop, name in zip(crops, CLASS_NAMES, strict=True)]
        stacked = RegionEmbeddings(
            np.concatenate([one.hidden for one in alone]), np.concatenate([one.visual for one in alone])
        )
        self.assert_close(teacher.embed(crops, CLASS_NAMES), stacked)

    def test_rows_follow_the_order_of_the_crops(self, teacher: Teacher, crops: list[NDArray[np.uint8]]) -> None:
        order = np.random.default_rng(3).permutation(len(crops))
        straight = teacher.embed(crops, CLASS_NAMES)
        shuffled = teacher.embed([crops[i] for i in order], [CLASS_NAMES[i] for i in order])
        self.assert_close(shuffled, RegionEmbeddings(straight.hidden[order], straight.visual[order]))

    def test_the_class_name_matters_to_hidden_and_not_to_visual(
        self, teacher: Teacher, crops: list[NDArray[np.uint8]]
    ) -> None:
        found = teacher.embed([crops[0], crops[0]], ["cat", "scissors"])
        assert "hidden" not in self.arrays or not np.allclose(found.hidden[0], found.hidden[1], rtol=0.01)
        assert np.allclose(found.visual[0], found.visual[1], rtol=1e-4, atol=1e-5)

    def test_the_picture_matters(self, teacher: Teacher, crops: list[NDArray[np.uint8]]) -> None:
        found = teacher.embed([crops[0], crops[1]], ["cat", "cat"])
        assert "hidden" not in self.arrays or not np.allclose(found.hidden[0], found.hidden[1], rtol=0.001)
        assert not np.allclose(found.visual[0], found.visual[1], rtol=0.001)

    def test_no_regions_give_no_rows(self, teacher: Teacher) -> None:
        found = teacher.embed([], [])
        assert found.hidden.shape == (0, teacher.spec.hidden_dim)
        assert found.visual.shape == (0, teacher.spec.visual_dim)

    def test_spec_survives_json(self, teacher: Teacher) -> None:
        assert TeacherSpec.from_json(teacher.spec.to_json()) == teacher.spec


class TestLlavaPrompt(TeacherContract):
    """One forward pass; `visual` from its own tower."""

    @pytest.fixture
    def teacher(self, small_llava: Path, make_teacher: Callable[..., LlavaTeacher]) -> Teacher:
        return make_teacher(small_llava, batch=3)


class TestLlavaGenerate(TeacherContract):
    """Greedy answers; `visual` from a CLIP checkpoint."""

    @pytest.fixture
    def teacher(self, small_llava: Path, toy_clip: Path, make_teacher: Callable[..., LlavaTeacher]) -> Teacher:
        return make_teacher(small_llava, batch=3, mode="generate", max_new_tokens=6, visual=str(toy_clip))


class TestLlavaBeams(TeacherContract):
    """Answers from a beam search."""

    @pytest.fixture
    def teacher(self, small_llava: Path, make_teacher: Callable[..., LlavaTeacher]) -> Teacher:
        return make_teacher(small_llava, batch=3, mode="generate", max_new_tokens=6, num_beams=3)


class TestLlavaReference(TeacherContract):
    """Answers as the paper's code searches for them."""

    @pytest.fixture
    def teacher(self, small_llava: Path, make_teacher: Callable[..., LlavaTeacher]) -> Teacher:
        search = {"num_beams": 3, "sampling_seed": 0, "no_repeat_ngram": 3, "all_beams": True}
        return make_teacher(small_llava, batch=3, mode="generate", max_new_tokens=6, **search)


class TestLlavaBfloat16(TeacherContract):
    """The number type that GPUs use, on the CPU."""

    tolerance = 0.02

    @pytest.fixture
    def teacher(self, small_llava: Path, make_teacher: Callable[..., LlavaTeacher]) -> Teacher:
        return make_teacher(small_llava, batch=3, dtype="bfloat16")


class EncoderContract(TeacherContract):
    """Image encoders: `visual` alone. Toy models with random weights, see tests/toy_encoders.py."""

    arrays = frozenset({"visual"})
    kind = ""

    @pytest.fixture
    def teacher(self, toy_encoder: Callable[[str], Path]) -> Teacher:
        return load_teacher(TeacherConfig(model=str(toy_encoder(self.kind)), device=DEVICE, dtype="float32", batch=3))


class TestVit(EncoderContract):
    """Class token of the last states."""

    kind = "vit"


class TestClip(EncoderContract):
    """Both towers in one checkpoint; projected embedding."""

    kind = "clip"


class TestClipVision(EncoderContract):
    """CLIP's vision tower alone."""

    kind = "clip_vision"


class TestSiglip(EncoderContract):
    """Pooled by an attention of its own."""

    kind = "siglip"


class TestDinov2(EncoderContract):
    """The processor keeps the middle of a crop."""

    kind = "dinov2"


class TestDinov3(EncoderContract):
    """Rotary positions and register tokens."""

    kind = "dinov3"


class TestConvnext(EncoderContract):
    """A convolutional network."""

    kind = "convnext"


class TestResnet(EncoderContract):
    """Its pooled output is a map of one cell."""

    kind = "resnet"


class TestIjepa(EncoderContract):
    """No class token: the mean over the patches."""

    kind = "ijepa"


class TestTimm(EncoderContract):
    """timm's own layout of a checkpoint."""

    kind = "timm"


class TestEncoderBfloat16(EncoderContract):
    """The number type that GPUs use, on the CPU."""

    tolerance = 0.02

    @pytest.fixture
    def teacher(self, toy_encoder: Callable[[str], Path]) -> Teacher:
        return load_teacher(TeacherConfig(model=str(toy_encoder("dinov2")), device=DEVICE, dtype="bfloat16", batch=3))
