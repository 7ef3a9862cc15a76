"""`mocha-pipe detect` with a real student that nothing was taught: images, folders, videos, json lines, drawings."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401

# isort: split
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from mocha_pipe.pipeline.personal import detect as detect_module
from mocha_pipe.pipeline.personal.detect import FoundObject, Frame
from mocha_pipe.student.fewshot.strangers import save_strangers
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.features import region_features, tap
from mocha_pipe.student.network.student_files import save_student
from mocha_pipe.student.personal.detector import PersonalDetector
from mocha_pipe.student.personal.profile import Profile, student_digest

Detect = Callable[..., Result]
CLASSES = ("mug", "ball", "boot")


@pytest.fixture(scope="module")
def folder(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with random weights, whose scores spread over 0..1 and whose features are of size one."""
    torch.manual_seed(0)
    model = DistillModel(str(tiny_detector), num_classes=3, features="fine", target_dim=8)
    model.names = dict(enumerate(CLASSES))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # statistics of all that passes
    model.train()
    with torch.no_grad(), tap(model, "fine") as maps:
        model(torch.nn.functional.interpolate(torch.rand(8, 3, 8, 8), (96, 96)))
        corners = torch.rand(64, 2, 2).sort(dim=1).values.flatten(1)
        model.translation(region_features(maps, torch.arange(64) % 8, corners))
    for level in model.model[-1].cv3:
        torch.nn.init.normal_(level[-1].weight, std=0.5)
        torch.nn.init.constant_(level[-1].bias, -2)
    folder = save_student(model, tmp_path_factory.mktemp("student"), image_size=96, meta={})
    save_strangers(folder, np.linspace(-1, 0.9, 999))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of random blocks."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in (("desk.png", (120, 80)), ("shelf.png", (64, 96))):
        blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST))
    return folder


@pytest.fixture(scope="module")
def profile(folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`my thing` is the most confident detection on the desk."""
    seen: list[np.ndarray] = []
    detector = PersonalDetector.load(folder)
    anything = Profile.empty(student_digest(folder), CLASSES)
    for coarse in range(3):
        anything = anything.add(f"some {coarse}", np.ones((1, 8)), np.array([coarse]))
    detector.profile = anything
    namer, detector.namer = detector.namer, None

    class Recorded:
        names, may_name = namer.names, staticmethod(namer.may_name)

        def __call__(self, embeddings: np.ndarray, coarse: np.ndarray) -> Any:
            seen.append(embeddings)
            return namer(embeddings, coarse)

    detector.namer = Recorded()
    (result,) = detector(photos / "desk.png")
    mine = Profile.empty(student_digest(folder), CLASSES).add("my thing", seen[0][:1], result.coarse[:1].int().numpy())
    path = tmp_path_factory.mktemp("profile") / "mine.safetensors"
    mine.save(path)
    return path


@pytest.fixture(scope="module")
def load_once() -> Callable[..., PersonalDetector]:
    return cache(PersonalDetector.load)


@pytest.fixture
def detect(
    command: Callable[..., Result],
    folder: Path,
    profile: Path,
    load_once: Callable[..., PersonalDetector],
    monkeypatch: pytest.MonkeyPatch,
) -> Detect:
    monkeypatch.setattr(PersonalDetector, "load", load_once)
    return lambda source, *options: command(
        "detect", source, "--profile", profile, "--student", folder, "--device", "cpu", *options
    )


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def video(photos: Path, tmp_path: Path) -> Path:
    """Four frames of the desk, ten a second."""
    picture = cv2.imread(str(photos / "desk.png"))
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, picture.shape[1::-1])
    for _ in range(4):
        writer.write(picture)
    writer.release()
    return tmp_path / "clip.avi"


def test_an_image_is_one_line_of_words_and_a_summary(detect: Detect, photos: Path) -> None:
    result = detect(photos / "desk.png")
    assert result.exit_code == 0, result.stderr
    assert re.match(r"desk\.png: my thing \((mug|ball|boot), 99\.9%\)", result.stdout)
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.startswith("looked at 1 image, ")
    assert result.stderr.endswith(" ms each\n")


def test_json_lines_follow_their_schema(detect: Detect, photos: Path) -> None:
    (found,) = lines(detect(photos / "desk.png", "--json"))
    assert list(found) == ["source", "frame", "width", "height", "seconds", "boxes"]
    assert (found["source"], found["frame"]) == (str(photos / "desk.png"), 0)
    assert (found["width"], found["height"]) == (120, 80)
    assert 0 < found["seconds"] < 60
    for box in found["boxes"]:
        assert list(box) == ["xyxy", "name", "personal", "class", "confidence", "certainty"]
        left, top, right, bottom = box["xyxy"]
        assert 0 <= left <= right <= 120
        assert 0 <= top <= bottom <= 80
        assert 0.25 < box["confidence"] <= 1
        assert box["class"] in CLASSES
        assert box["personal"] == (box["name"] not in CLASSES) == (box["certainty"] >= 0.95)
        assert box["personal"] or (box["name"], box["certainty"]) == (box["class"], 0)
    assert found["boxes"][0]["name"] == "my thing"


def test_they_say_what_the_python_interface_says(detect: Detect, folder: Path, profile: Path, photos: Path) -> None:
    (found,) = lines(detect(photos / "desk.png", "--json", "--confidence", 0.4, "--false-accept-rate", 0.5))
    detector = PersonalDetector.load(folder, profile, confidence=0.4, false_accept_rate=0.5)
    (result,) = detector(photos / "desk.png")
    np.testing.assert_allclose([box["xyxy"] for box in found["boxes"]], result.boxes.xyxy, atol=0.006)
    assert [box["name"] for box in found["boxes"]] == [result.names[int(name)] for name in result.boxes.cls]
    assert [box["class"] for box in found["boxes"]] == [CLASSES[int(name)] for name in result.coarse]
    np.testing.assert_allclose([box["certainty"] for box in found["boxes"]], result.certainty, atol=1e-4)


def test_a_folder_is_a_line_per_image(detect: Detect, photos: Path) -> None:
    found = lines(detect(photos, "--json"))
    assert [(Path(line["source"]).name, line["frame"]) for line in found] == [("desk.png", 0), ("shelf.png", 0)]
    assert found[0]["boxes"] == lines(detect(photos / "desk.png", "--json"))[0]["boxes"]


def test_a_video_is_a_line_per_frame(detect: Detect, video: Path) -> None:
    assert [line["frame"] for line in lines(detect(video, "--json"))] == [0, 1, 2, 3]
    titles = [line.partition(":")[0] for line in detect(video).stdout.splitlines()]
    assert titles == [f"clip.avi frame {number}" for number in range(4)]


def test_save_leaves_a_picture_of_each_image(
    detect: Detect, photos: Path, folder: Path, profile: Path, tmp_path: Path
) -> None:
    result = detect(photos, "--save", "drawn/here")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.endswith("; drawn in drawn/here\n")
    drawn = sorted((tmp_path / "drawn/here").iterdir())
    assert [path.name for path in drawn] == ["desk.jpg", "shelf.jpg"]
    (expected,) = PersonalDetector.load(folder, profile)(photos / "desk.png")
    encoded = cv2.imdecode(cv2.imencode(".jpg", expected.plot())[1], cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.imread(str(drawn[0])), encoded)
    assert detect(photos, "--save", "drawn/here").exit_code == 0
    assert len(list((tmp_path / "drawn/here").iterdir())) == 2


def test_save_leaves_a_video_of_a_video(detect: Detect, video: Path, tmp_path: Path) -> None:
    detect(video, "--save", tmp_path / "drawn")
    (path,) = (tmp_path / "drawn").iterdir()
    assert path.stem == "clip"
    reader = cv2.VideoCapture(str(path))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    frames = []
    while (frame := reader.read())[0]:
        frames.append(frame[1])
    assert len(frames) == 4
    assert frames[0].shape == (80, 120, 3)


def test_drawings_do_not_replace_the_photos(detect: Detect, photos: Path) -> None:
    result = detect(photos, "--save", photos)
    assert result.exit_code == 2
    assert result.stderr == f"error: {photos}: drawn pictures would replace what lies there; save to another folder\n"


def test_nothing_is_drawn_over_an_original_behind_a_link(detect: Detect, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "originals").mkdir()
    original = tmp_path / "originals" / "desk.jpg"
    Image.open(photos / "desk.png").save(original)
    (tmp_path / "links" / "desk.jpg").symlink_to(original)
    before = original.read_bytes()
    for save in ("links", "originals", "links/../links"):
        result = detect("links", "--save", save)
        assert result.exit_code == 2
        assert result.stderr.endswith("drawn pictures would replace what lies there; save to another folder\n")
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "desk.jpg").symlink_to(original)
    result = detect("links", "--save", "found")
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["desk-2.jpg", "desk.jpg"]
    assert original.read_bytes() == before


def test_another_albums_photo_of_the_same_name_stays(detect: Detect, photos: Path, tmp_path: Path) -> None:
    for album, photo in (("cam1", "desk.png"), ("cam2", "shelf.png")):
        (tmp_path / album).mkdir()
        Image.open(photos / photo).save(tmp_path / album / "IMG_1.jpg")
    before = (tmp_path / "cam2" / "IMG_1.jpg").read_bytes()
    for _ in range(2):
        result = detect("cam1", "--save", "cam2")
        assert result.exit_code == 0
        assert result.stderr.splitlines()[0] == (
            f"WARNING ⚠️ {tmp_path}/cam2 holds files that are no drawings of an earlier run and stay; drawn under "
            "another name: IMG_1-2.jpg"
        )
        assert (tmp_path / "cam2" / "IMG_1.jpg").read_bytes() == before
        assert sorted(path.name for path in (tmp_path / "cam2").iterdir()) == ["IMG_1-2.jpg", "IMG_1.jpg"]


def test_a_full_disk_is_an_error_and_nothing_is_claimed(
    detect: Detect, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = detect(photos, "--save", "found")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {tmp_path}/found/desk.jpg could not be written (No space left on device); drawings before it are in "
        "place: make room, or save to another folder\n"
    )
    assert list((tmp_path / "found").iterdir()) == []


def test_a_video_that_cannot_be_written_whole_is_an_error(
    detect: Detect, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocha_pipe.student.personal.media.drawings._has_frames", lambda *_: False)
    result = detect(video, "--save", "found")
    assert (result.exit_code, len(result.stdout.splitlines())) == (2, 4)
    assert result.stderr.startswith(f"error: {tmp_path}/found/clip.avi could not be written (not all of its 4 frames ")
    assert list((tmp_path / "found").iterdir()) == []


def test_a_folder_that_may_not_be_written_is_one_line(detect: Detect, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = detect(photos, "--save", "file/found")
    assert result.exit_code == 2
    assert re.fullmatch(r"error: .*file/found could not be written \(Not a directory\); .*\n", result.stderr)


@pytest.mark.parametrize("place", ["2024", "screen", "trip [1]", "trip [1]/*.png", "trip [1]/?e*.png"])
def test_a_path_that_exists_is_meant_whatever_it_looks_like(detect: Detect, photos: Path, place: str) -> None:
    folder = Path(place.partition("/")[0])
    folder.mkdir()
    (folder / "desk.png").write_bytes((photos / "desk.png").read_bytes())
    assert [Path(line["source"]).name for line in lines(detect(place, "--json"))] == ["desk.png"]


def test_several_sources_as_a_shell_expands_them(
    command: Callable[..., Result], folder: Path, profile: Path, photos: Path, video: Path
) -> None:
    Path("notes.md").touch()
    several = [photos / "shelf.png", "notes.md", video, photos / "desk.png"]
    result = command("detect", *several, "--profile", profile, "--student", folder, "--save", "found")
    assert result.exit_code == 0, result.stderr
    titles = [line.partition(":")[0] for line in result.stdout.splitlines()]
    assert titles == ["shelf.png", *(f"clip.avi frame {number}" for number in range(4)), "desk.png"]
    assert "notes.md was left out: No images or videos found in notes.md" in result.stderr
    assert sorted(path.name for path in Path("found").iterdir()) == ["clip.avi", "desk.jpg", "shelf.jpg"]
    absent = command("detect", *several, "gone.png", "--profile", profile, "--student", folder)
    assert (absent.exit_code, absent.stdout) == (2, "")
    assert absent.stderr.startswith("error: gone.png cannot be read (gone.png does not exist): ")


@pytest.mark.parametrize("broken", ["a.mp4", "z.mp4"])
def test_a_broken_video_is_told_at_the_end_and_the_rest_goes_on(
    detect: Detect, photos: Path, video: Path, broken: str
) -> None:
    media = Path("media")
    media.mkdir()
    (media / broken).write_bytes(b"no video")
    (media / "desk.png").write_bytes((photos / "desk.png").read_bytes())
    video.rename(media / "clip.avi")
    result = detect(media, "--save", "found")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 5
    told = result.stderr.splitlines()
    assert f"WARNING ⚠️ {media.absolute() / broken} was left out: it cannot be opened as a video" in told
    assert told[-1].startswith("looked at 5 images, ")
    assert sorted(path.name for path in Path("found").iterdir()) == ["clip.avi", "desk.jpg"]


def test_ctrl_c_ends_a_camera_and_keeps_the_video(
    detect: Detect, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame_of = detect_module._frame

    def interrupted(result: Any, number: int) -> Frame:
        if number == 2:
            raise KeyboardInterrupt
        return frame_of(result, number)

    monkeypatch.setattr(detect_module, "_frame", interrupted)
    result = detect(video, "--save", tmp_path / "drawn")
    assert result.exit_code == 130
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.startswith("stopped after 2 images, ")
    reader = cv2.VideoCapture(str(next((tmp_path / "drawn").iterdir())))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_an_unreadable_image_is_told_apart_from_the_lines(detect: Detect, photos: Path, tmp_path: Path) -> None:
    broken = tmp_path / "photos"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    alone = detect(broken, "--json")
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert f"WARNING ⚠️ {broken / 'a.png'} was left out: " in alone.stderr
    assert alone.stderr.endswith(
        f"error: {broken}: no image in it could be decoded; look at the files, or name others\n"
    )
    (broken / "b.png").write_bytes((photos / "desk.png").read_bytes())
    result = detect(broken, "--json")
    assert [Path(line["source"]).name for line in lines(result)] == ["b.png"]
    assert f"WARNING ⚠️ {broken / 'a.png'} was left out: cannot be read as an image (" in result.stderr


def test_a_source_that_is_not_there_is_one_line(detect: Detect) -> None:
    result = detect("nowhere.jpg")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: nowhere.jpg cannot be read (nowhere.jpg does not exist): name an image, a folder or a glob of images, "
        "a video, the index of a camera or the URL of a stream\n"
    )


def test_without_a_profile_it_names_the_command_that_makes_one(command: Callable[..., Result], photos: Path) -> None:
    result = command("detect", photos)
    assert result.exit_code == 2
    assert result.stderr == (
        "error: work/profile.safetensors: no profile of your objects is there; learn an object with mocha-pipe "
        "personalize 'my mug' PHOTO, or name another file with --profile\n"
    )


def test_profile_and_student_are_found_under_the_root(
    command: Callable[..., Result], folder: Path, profile: Path, photos: Path
) -> None:
    (Path("work")).mkdir()
    (Path("work") / "profile.safetensors").write_bytes(profile.read_bytes())
    before_distill = command("detect", photos)
    assert before_distill.exit_code == 2
    assert before_distill.stderr.startswith("error: no distillation was completed under work: ")
    result = command("detect", photos / "desk.png", "--student", folder)
    assert result.stdout.startswith("desk.png: my thing")


def test_the_rate_is_checked(detect: Detect, photos: Path) -> None:
    result = detect(photos, "--false-accept-rate", 1)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: a false-accept rate must be above 0 and below 1, found 1")


def test_too_few_strangers_are_one_warning_and_names_are_given(
    command: Callable[..., Result], folder: Path, profile: Path, photos: Path, tmp_path: Path
) -> None:
    student = Path(shutil.copytree(folder, tmp_path / "student"))
    save_strangers(student, np.linspace(-1, 0.5, 6))
    result = command("detect", photos / "desk.png", "--profile", profile, "--student", student, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("desk.png: my thing (")
    warning, summary = result.stderr.splitlines()
    assert warning == (
        "warning: a false-accept rate of 0.05 for 1 competing prototype needs 19 or more strangers, and the student "
        "has 6: names are given at the strictest threshold there is, which keeps a rate of 0.14; distil with more "
        "validation images for a lower one"
    )
    assert summary.startswith("looked at 1 image")


def test_words_have_the_users_objects_first_and_count_the_others() -> None:
    def found(name: str, certainty: float) -> FoundObject:
        personal = certainty > 0
        return FoundObject(
            xyxy=(0, 0, 1, 1), name=name, personal=personal, coarse="cup", confidence=0.5, certainty=certainty
        )

    objects = (found("mug", 0), found("my mug", 0.962), found("ball", 0), found("mug", 0), found("our mug", 0.999))
    frame = Frame(source="/tmp/desk.JPG", number=0, width=1, height=1, seconds=0.1, found=objects)
    assert frame.describe() == "desk.JPG: our mug (cup, 99.9%), my mug (cup, 96.2%), 2 x mug, ball"
    empty = Frame(source="0", number=7, width=1, height=1, seconds=0.1, found=())
    assert empty.describe() == "0 frame 7: nothing"


def test_a_picture_has_one_line_whatever_its_name() -> None:
    frame = Frame(source="/tmp/caf\udce9\nx.jpg", number=0, width=1, height=1, seconds=0.1, found=())
    assert frame.describe() == r"caf\xe9\nx.jpg: nothing"
