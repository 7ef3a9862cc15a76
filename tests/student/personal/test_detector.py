"""Image in, personal boxes out: against ultralytics' own predict, the embedder, and a plain loop over boxes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split
import cv2
import numpy as np
import pytest
import torch
import ultralytics
from PIL import Image
from ultralytics import YOLO
from ultralytics.utils import LOGGER

from mocha_pipe.data.boxes import box_iou
from mocha_pipe.data.errors import MochaWarning
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.errors import StudentModelError, StudentModelNotFoundError
from mocha_pipe.student.fewshot.strangers import load_strangers, save_strangers
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.features import region_features, tap
from mocha_pipe.student.network.student_files import Student, load_student
from mocha_pipe.student.personal.detector import PersonalDetector, PredictArgumentError
from mocha_pipe.student.personal.media.files import SourceError
from mocha_pipe.student.personal.naming import Namer
from mocha_pipe.student.personal.profile import Profile, student_digest
from mocha_pipe.student.personal.profile_file import ProfileError
from tests.student.personal.conftest import CLASSES, SIZE

CONFIDENCE = 0.3


@pytest.fixture(scope="module")
def paths(pictures: DetectionSource) -> list[Path]:
    return [record.path for record in pictures.records]


def make_profile(folder: Path, pictures: DetectionSource) -> Profile:
    """Objects shown once: two mugs and a ball that the student finds in three of the pictures; no boot."""
    found = RegionEmbedder(load_student(folder), image_size=SIZE, confidence=CONFIDENCE).embed_pool(pictures)
    profile = Profile.empty(student_digest(folder), CLASSES)
    for name, coarse, image in (("my mug", 0, 1), ("our mug", 0, 4), ("my ball", 1, 0)):
        row = np.flatnonzero((found.detection_coarse == coarse) & (found.detection_image == image))[0]
        profile = profile.add(name, found.detection_embedding[[row]], np.array([coarse]))
    return profile


@pytest.fixture(scope="module")
def profile(folder: Path, pictures: DetectionSource) -> Profile:
    return make_profile(folder, pictures)


@pytest.fixture(scope="module")
def detector(folder: Path, profile: Profile) -> PersonalDetector:
    detector = PersonalDetector.load(folder, confidence=CONFIDENCE)
    detector.profile = profile
    return detector


@pytest.fixture(scope="module")
def detectors(made: Path, pictures: DetectionSource, detector: PersonalDetector) -> Callable[[str], PersonalDetector]:
    """One of each family, with objects of its own."""
    known = {"v8": detector}

    def make(family: str) -> PersonalDetector:
        if family not in known:
            known[family] = PersonalDetector.load(made / family, confidence=CONFIDENCE)
            known[family].profile = make_profile(made / family, pictures)
        return known[family]

    return make


class Recorded:
    """A namer that remembers what it was asked."""

    def __init__(self, namer: Namer) -> None:
        self.names, self.may_name, self._namer = namer.names, namer.may_name, namer
        self.embeddings: list[np.ndarray] = []
        self.coarse: list[np.ndarray] = []

    def __call__(self, embeddings: np.ndarray, coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.embeddings.append(embeddings)
        self.coarse.append(coarse)
        return self._namer(embeddings, coarse)


@pytest.fixture
def asked(detector: PersonalDetector, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded(detector.namer)
    monkeypatch.setattr(detector, "namer", recorded)
    return recorded


def letterboxed(path: Path) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """What the network sees of one picture: (1, 3, S, S), gain (4,), offset (4,) in pixels."""
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    ratio = min(SIZE / height, SIZE / width)
    inner_width, inner_height = round(width * ratio), round(height * ratio)
    left, top = round((SIZE - inner_width) / 2 - 0.1), round((SIZE - inner_height) / 2 - 0.1)
    canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
    canvas[top : top + inner_height, left : left + inner_width] = cv2.resize(image, (inner_width, inner_height))
    tensor = torch.from_numpy(canvas[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    return tensor, np.tile([inner_width / width, inner_height / height], 2), np.tile([left, top], 2)


def plain_embeddings(student: Student, path: Path, boxes: np.ndarray) -> np.ndarray:
    """Embeddings of boxes in pixels of the picture, one box at a time."""
    tensor, gain, offset = letterboxed(path)
    sides = np.tile(tensor.shape[:1:-1], 2)
    with torch.no_grad(), tap(student.detector, student.features) as maps:
        student.detector(tensor)
        shares = torch.from_numpy((boxes * gain + offset) / sides)
        rows = [student.translation(region_features(maps, torch.tensor([0]), own[None])) for own in shares]
    return torch.cat(rows).numpy() if rows else np.zeros((0, student.embedding_dim), np.float32)


def has_area(boxes: np.ndarray) -> np.ndarray:
    """An untrained detector also finds things in the padding; clipped to the picture, they have none."""
    return (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 1


@pytest.mark.parametrize("family", ["v8", "26"])
def test_boxes_are_those_of_yolo_predict_and_names_equal_a_loop_over_boxes(
    made: Path, detectors: Callable[[str], PersonalDetector], paths: list[Path], family: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    detector, yolo = detectors(family), YOLO(made / family / "student.pt")
    namer = Namer(detector.profile, load_strangers(made / family), 0.5)
    monkeypatch.setattr(detector, "namer", namer)
    named = compared = 0
    for path in paths:
        (result,) = detector(path)
        (plain,) = yolo.predict(path, imgsz=SIZE, rect=False, conf=CONFIDENCE, device="cpu", verbose=False)
        torch.testing.assert_close(result.boxes.data[:, :5], plain.boxes.data[:, :5])
        torch.testing.assert_close(result.coarse, plain.boxes.cls)
        boxes, coarse = result.boxes.xyxy.numpy(), result.coarse.numpy().astype(int)
        for embedding, own, name, sure, valid in zip(
            plain_embeddings(detector.student, path, boxes), coarse, result.boxes.cls, result.certainty,
            has_area(boxes), strict=True,
        ):  # fmt: skip
            if not valid:
                continue
            personal, certainty = namer(embedding[None], np.array([own])) if own < 2 else ([-1], [0.0])
            assert int(name) == (3 + personal[0] if personal[0] >= 0 else own)
            assert float(sure) == pytest.approx(certainty[0], abs=0.002)  # strangers stand a thousandth apart
            named, compared = named + (personal[0] >= 0), compared + 1
    assert compared > 20
    assert 5 < named < compared - 5


def test_an_embedding_is_that_of_the_embedder_for_the_same_box(
    pictures: DetectionSource, paths: list[Path], detector: PersonalDetector, asked: Recorded
) -> None:
    results = [detector(path)[0] for path in paths]
    embedder = RegionEmbedder(detector.student, image_size=SIZE, confidence=CONFIDENCE, batch=1)
    found = embedder.embed_pool(pictures)
    candidates = found.detection_coarse < 2
    np.testing.assert_allclose(np.concatenate(asked.embeddings), found.detection_embedding[candidates], atol=1e-4)
    np.testing.assert_array_equal(np.concatenate(asked.coarse), found.detection_coarse[candidates])
    boxes = np.concatenate([result.boxes.xyxy.numpy() for result in results])
    np.testing.assert_allclose(boxes, found.detection_xyxy, atol=1e-3)


def test_a_batch_of_different_sizes_equals_single_images(paths: list[Path], detector: PersonalDetector) -> None:
    batch = detector([cv2.imread(str(path)) for path in paths])
    for path, together in zip(paths, batch, strict=True):
        (alone,) = detector(path)
        torch.testing.assert_close(together.boxes.data, alone.boxes.data, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.certainty, alone.certainty, atol=2e-3, rtol=0)


def test_rectangles_are_looked_at_when_they_are_asked_for(
    folder: Path, paths: list[Path], detector: PersonalDetector
) -> None:
    plain = YOLO(folder / "student.pt")
    for path in paths[:4]:
        (wide,) = plain.predict(path, imgsz=SIZE, conf=CONFIDENCE, device="cpu", verbose=False)
        torch.testing.assert_close(detector(path, rect=True)[0].boxes.data[:, :5], wide.boxes.data[:, :5])


def test_it_repeats_bitwise_and_streams_the_same(paths: list[Path], detector: PersonalDetector) -> None:
    several = paths[0].parent / "picture0[0-4]*.png"
    first, predictor = detector(several), detector._yolo.predictor
    for again in (detector(several), list(detector(several, stream=True))):
        assert [result.path for result in again] == [str(path) for path in paths]
        for before, after in zip(first, again, strict=True):
            assert torch.equal(before.boxes.data, after.boxes.data)
            assert torch.equal(before.certainty, after.certainty)
    assert detector._yolo.predictor is predictor, "nothing is set up anew"


def test_only_boxes_of_classes_with_an_object_are_embedded(
    paths: list[Path], detector: PersonalDetector, asked: Recorded
) -> None:
    images = [cv2.imread(str(path)) for path in paths]
    detector(images)
    assert set(np.concatenate(asked.coarse)) == {0, 1}
    asked.embeddings.clear()
    assert any(len(result) for result in detector(images, classes=[2]))
    assert asked.embeddings == []


def test_the_object_that_was_shown_is_found_again_and_others_stay_coarse(
    paths: list[Path], detector: PersonalDetector
) -> None:
    results = [detector(path)[0] for path in paths]
    named = [result.names[int(name)] for result in results for name in result.boxes.cls]
    assert {"my mug", "our mug", "my ball", "mug", "ball", "boot"} == set(named)
    for result in results:
        assert ((result.certainty >= 0.95) == (result.boxes.cls >= 3)).all()
        assert (result.certainty[result.boxes.cls < 3] == 0).all()


@pytest.fixture
def open_detector(folder: Path, pictures: DetectionSource) -> PersonalDetector:
    """One thing, learnt as of no class at all; and nearly everything looks like it."""
    found = RegionEmbedder(load_student(folder), image_size=SIZE, confidence=CONFIDENCE).embed_pool(pictures)
    profile = Profile.empty(student_digest(folder), CLASSES, learner="simpleshot")
    detector = PersonalDetector.load(folder, confidence=0.05, false_accept_rate=0.999)
    detector.profile = profile.add("my duck", found.detection_embedding[:1], np.array([3]))
    return detector


def test_a_thing_is_found_under_any_class_and_the_result_says_which(
    paths: list[Path], open_detector: PersonalDetector
) -> None:
    said = {int(own) for path in paths for own in open_detector(path)[0][open_detector(path)[0].is_personal].coarse}
    assert said == {0, 1, 2}


def test_one_thing_under_two_classes_is_one_box(
    folder: Path, paths: list[Path], open_detector: PersonalDetector
) -> None:
    plain, gone = YOLO(folder / "student.pt"), 0
    for path in paths:
        (result,) = open_detector(path)
        (everything,) = plain.predict(path, imgsz=SIZE, rect=False, conf=0.05, device="cpu", verbose=False)
        stays = (everything.boxes.data[:, None, :5] == result.boxes.data[:, :5]).all(dim=2).any(dim=1)
        torch.testing.assert_close(everything.boxes.data[stays, :5], result.boxes.data[:, :5])
        mine = result[result.is_personal].boxes.xyxy
        assert (box_iou(everything.boxes.xyxy[~stays], mine).max(axis=1, initial=0) > 0.3).all(), "cut to the picture"
        gone += int((~stays).sum())
    assert gone > 5


def test_a_tracker_gets_the_features_of_the_boxes_that_stay(
    paths: list[Path], open_detector: PersonalDetector, tmp_path: Path
) -> None:
    settings = (Path(ultralytics.__file__).parent / "cfg/trackers/botsort.yaml").read_text()
    assert "with_reid: False" in settings
    (tmp_path / "reid.yaml").write_text(settings.replace("with_reid: False", "with_reid: True"))
    video = make_video(tmp_path / "clip.avi", paths[1], frames=3)
    results = list(open_detector.track(video, tracker=tmp_path / "reid.yaml", conf=0.05, stream=True))
    predictor = open_detector._yolo.predictor
    assert not all(stays.all() for stays in predictor.stay)
    assert any(result.boxes.is_track for result in results)


def test_the_false_accept_rate_decides_how_many_get_a_name(
    folder: Path, paths: list[Path], profile: Profile, detector: PersonalDetector
) -> None:
    loose = PersonalDetector.load(folder, confidence=CONFIDENCE, false_accept_rate=0.999)
    loose.profile = profile
    strict, loose = (sum(int(result.is_personal.sum()) for result in each(paths)) for each in (detector, loose))
    assert 3 <= strict < loose


@pytest.fixture(scope="module")
def bare(folder: Path) -> PersonalDetector:
    """Without a profile."""
    return PersonalDetector.load(folder, confidence=0.6)


def test_the_confidence_is_the_detectors_unless_a_call_has_its_own(paths: list[Path], bare: PersonalDetector) -> None:
    strict, loose = bare(paths[0])[0], bare(paths[0], conf=0.3)[0]
    assert strict.boxes.conf.min() > 0.6
    assert 0.3 < loose.boxes.conf.min() < 0.6


def test_without_a_profile_nothing_is_embedded(
    paths: list[Path], bare: PersonalDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("embedded")

    monkeypatch.setattr("mocha_pipe.student.personal.predictor.embed_boxes", refuse)
    assert len(bare(paths[0], conf=CONFIDENCE)[0]) > 0


def test_another_profile_may_come_at_any_time(paths: list[Path], profile: Profile, bare: PersonalDetector) -> None:
    before = bare.student
    (plain,) = bare(paths[1], conf=CONFIDENCE)
    assert plain.names == dict(enumerate(CLASSES))
    assert not plain.is_personal.any()
    frames = bare([cv2.imread(str(paths[1]))] * 2, stream=True, conf=CONFIDENCE)
    bare.profile = profile
    assert next(frames).is_personal.any()
    frames.close()  # ultralytics lets nobody else predict before
    bare.profile = profile.rename("my mug", "the mug").remove("my ball")
    (renamed,) = bare(paths[1], conf=CONFIDENCE)
    assert renamed.names == dict(enumerate([*CLASSES, "the mug", "our mug"]))
    bare.profile = None
    assert torch.equal(bare(paths[1], conf=CONFIDENCE)[0].boxes.data, plain.boxes.data)
    assert bare.student is before


def test_a_profile_from_a_file_equals_one_that_is_set(
    folder: Path, paths: list[Path], profile: Profile, detector: PersonalDetector, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And a detector gives the process all its cores."""
    before = torch.get_num_threads()
    monkeypatch.setattr("mocha_pipe.student.personal.predictor.cpu_threads", lambda: before + 2)
    profile.save(tmp_path / "mine.safetensors")
    loaded = PersonalDetector.load(str(folder), str(tmp_path / "mine.safetensors"), confidence=CONFIDENCE)
    try:
        assert torch.equal(loaded(paths[0])[0].boxes.data, detector(paths[0])[0].boxes.data)
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)


def test_the_student_itself_is_left_alone(paths: list[Path], detector: PersonalDetector) -> None:
    detector(paths[0])
    for model in (detector.student.detector, detector._yolo.model):
        assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
        assert not model.is_fused()


def test_nothing_found_is_an_empty_result(paths: list[Path], detector: PersonalDetector) -> None:
    (result,) = detector(paths[0], conf=1.0)
    assert len(result) == len(result.coarse) == len(result.certainty) == 0
    assert result.to_json() == "[]"
    np.testing.assert_array_equal(result.plot(), cv2.imread(str(paths[0])))


@pytest.mark.parametrize("kind", ["path", "text", "PIL", "array", "tensor", "list", "folder"])
def test_every_kind_of_source(paths: list[Path], detector: PersonalDetector, kind: str, tmp_path: Path) -> None:
    array = cv2.resize(cv2.imread(str(paths[1])), (SIZE, SIZE))
    cv2.imwrite(str(tmp_path / "one.png"), array)
    path = tmp_path / "one.png"
    tensor = torch.from_numpy(array[:, :, ::-1].copy()).permute(2, 0, 1)[None] / 255
    source = {
        "path": path, "text": str(path), "PIL": Image.open(path), "array": array, "tensor": tensor, "list": [path],
        "folder": tmp_path,
    }[kind]  # fmt: skip
    expected, (found,) = detector(array)[0], detector(source)
    torch.testing.assert_close(found.boxes.data, expected.boxes.data, atol=1e-3, rtol=1e-4)
    assert found.is_personal.any()


def make_video(path: Path, picture: Path, frames: int = 6) -> Path:
    """The picture wanders to the right by two pixels a frame."""
    image = np.tile(cv2.imread(str(picture)), (1, 2, 1))
    height, width = image.shape[0], image.shape[1] // 2
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
    for frame in range(frames):
        writer.write(np.ascontiguousarray(image[:, 2 * frame : 2 * frame + width]))
    writer.release()
    return path


def test_a_video_gives_a_result_per_frame(paths: list[Path], detector: PersonalDetector, tmp_path: Path) -> None:
    results = list(detector(make_video(tmp_path / "clip.avi", paths[1]), stream=True))
    assert len(results) == 6
    assert all(result.path.endswith("clip.avi") for result in results)
    assert any(result.is_personal.any() for result in results)


@pytest.mark.parametrize("tracker", ["bytetrack", "botsort", "tracktrack"])
def test_tracks_are_those_of_yolo_and_boxes_keep_their_names(
    folder: Path, paths: list[Path], detector: PersonalDetector, tmp_path: Path, tracker: str
) -> None:
    video = make_video(tmp_path / "clip.avi", paths[1])
    settings = {"tracker": f"{tracker}.yaml", "conf": CONFIDENCE, "stream": True}
    results = list(detector.track(video, **settings))
    plain = YOLO(folder / "student.pt").track(video, **settings, imgsz=SIZE, rect=False, device="cpu", verbose=False)
    named = 0
    for ours, theirs in zip(results, plain, strict=True):
        assert (ours.boxes.id is None) == (theirs.boxes.id is None)
        torch.testing.assert_close(ours.boxes.data[:, :-1], theirs.boxes.data[:, :-1])  # all but the class
        torch.testing.assert_close(ours.coarse, theirs.boxes.cls)
        assert ((ours.certainty > 0) == (ours.boxes.cls >= 3)).all()
        named += int(ours.is_personal.sum()) if ours.boxes.is_track else 0
    assert named > 0 or tracker == "tracktrack"  # which starts no track on scores as low as these
    assert detector(paths[1])[0].boxes.id is None


def test_a_profile_of_another_student_is_refused(
    detectors: Callable[[str], PersonalDetector], profile: Profile, paths: list[Path]
) -> None:
    other = detectors("26")
    own, other.profile = other.profile, None
    with pytest.raises(ProfileError, match="must be used with the student that it was learnt with"):
        other.profile = profile
    assert other.profile is None
    assert not other(paths[0])[0].is_personal.any()
    other.profile = own


def test_a_plain_detector_finds_coarse_classes_and_refuses_a_profile(
    folder: Path, paths: list[Path], profile: Profile, tmp_path: Path
) -> None:
    profile.save(tmp_path / "mine.safetensors")
    plain = folder / "student.pt"
    (result,) = PersonalDetector.load(plain, confidence=CONFIDENCE)(paths[0])
    assert len(result) > 0
    assert result.names == dict(enumerate(CLASSES))
    with pytest.raises(StudentModelError) as caught:
        PersonalDetector.load(plain, tmp_path / "mine.safetensors")
    assert str(caught.value) == (
        f"{plain}: personal names need a distilled student, found a plain detector; "
        "run `mocha-pipe distill` and name the folder of its student"
    )


def test_a_student_that_is_not_there_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(StudentModelNotFoundError):
        PersonalDetector.load(tmp_path / "yolov8n.pt")
    with pytest.raises(StudentModelNotFoundError):
        PersonalDetector.load(tmp_path / "student")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("missing.png", "missing.png does not exist"),
        ("empty", "No images or videos found in empty, the folder is empty"),
        (97, "(Failed to open 97)"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_line(
    detector: PersonalDetector, tmp_path: Path, source: str | int, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError) as caught:
        detector(source)
    assert str(caught.value).startswith(f"{source} cannot be read (")
    assert reason in str(caught.value)
    assert str(caught.value).endswith(
        "): name an image, a folder or a glob of images, a video, the index of a camera or the URL of a stream"
    )
    assert "\n" not in str(caught.value)


def test_a_file_behind_a_url_is_not_fetched(detector: PersonalDetector, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        detector("https://example.com/a/Photo.JPG?size=2")
    assert str(caught.value) == (
        "https://example.com/a/Photo.JPG?...: files behind a URL are not fetched; download it and name the local file"
    )
    assert list(tmp_path.iterdir()) == []


def test_drawn_pictures_never_replace_the_photos(paths: list[Path], detector: PersonalDetector, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), cv2.imread(str(paths[0])))
    before = photo.read_bytes()
    with pytest.raises(SourceError) as caught:
        detector(photo, save=True, project=str(tmp_path.parent), name=tmp_path.name, exist_ok=True)
    assert str(caught.value) == f"{tmp_path}: drawn pictures would replace what lies there; save to another folder"
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    ("classes", "ids"),
    [
        ("my mug", [3]),
        (["our mug", "boot"], [4, 2]),
        (3, [3]),
        ([0, 5], [0, 5]),
        (np.array([4]), [4]),
        ("mug", [0]),
        ([], []),
    ],
)
def test_classes_are_those_that_results_show(
    paths: list[Path], detector: PersonalDetector, classes: Any, ids: list[int]
) -> None:
    everything = detector(paths)
    for found, whole in zip(detector(paths, classes=classes), everything, strict=True):
        wanted = torch.isin(whole.boxes.cls, torch.tensor(ids)) | torch.isin(whole.coarse, torch.tensor(ids))
        torch.testing.assert_close(found.boxes.data, whole.boxes.data[wanted], rtol=0, atol=1e-3)
        assert found.coarse.tolist() == whole.coarse[wanted].tolist()
    assert [len(each) for each in detector(paths)] == [len(each) for each in everything], "the next call has all again"


def test_the_objects_of_one_class_are_asked_for(paths: list[Path], detector: PersonalDetector) -> None:
    found = [each for each in detector(paths, classes=["my mug"]) if len(each)]
    assert found
    assert {each.names[int(number)] for each in found for number in each.boxes.cls} == {"my mug"}


@pytest.mark.parametrize("classes", ["cup", [9], [0, "cup"], [1.5], [True], -1])
def test_classes_that_results_do_not_show(paths: list[Path], detector: PersonalDetector, classes: Any) -> None:
    wrong = classes[-1] if isinstance(classes, list) else classes
    with pytest.raises(PredictArgumentError) as raised:
        detector(paths[0], classes=classes)
    assert str(raised.value) == (
        "classes must be ids or names of 0 'mug', 1 'ball', 2 'boot', 3 'my mug', 4 'our mug', 5 'my ball'; found "
        f"{wrong!r}"
    )


def test_too_few_strangers_are_said_and_names_are_given(folder: Path, profile: Profile, tmp_path: Path) -> None:
    student = Path(shutil.copytree(folder, tmp_path / "student"))
    save_strangers(student, np.linspace(-1, 0.5, 6))
    detector = PersonalDetector.load(student, confidence=CONFIDENCE)
    with pytest.warns(MochaWarning, match="needs 39 or more strangers, and the student has 6"):
        detector.profile = profile
    assert detector.namer is not None


def test_a_list_with_an_address_is_refused(detector: PersonalDetector) -> None:
    with pytest.raises(SourceError, match="files behind a URL are not fetched"):
        detector(["http://127.0.0.1:9/photo"])


def test_what_cannot_be_read_is_told_at_the_end(
    paths: list[Path], detector: PersonalDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "b.png").write_bytes(paths[0].read_bytes())
    warned = []
    monkeypatch.setattr(LOGGER, "warning", warned.append)
    (result,) = detector(tmp_path)
    assert result.path == str(tmp_path / "b.png")
    assert warned[-1].startswith(f"{tmp_path / 'a.png'} was left out: cannot be read as an image (")


def test_several_views_of_an_image_are_refused(paths: list[Path], detector: PersonalDetector) -> None:
    with pytest.raises(PredictArgumentError, match=r"augment=True .*; leave it out"):
        detector(paths[0], augment=True)


def test_it_writes_nothing_unless_asked(paths: list[Path], detector: PersonalDetector, tmp_path: Path) -> None:
    detector(paths[0])
    assert list(tmp_path.iterdir()) == []
