"""`mocha-pipe personalize`: what is learnt from photos, what is refused and how that is said; on a tiny student."""

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401

# isort: split

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from mocha_pipe.data.files import write_json
from mocha_pipe.data.types import DetectionSource, ImageRecord
from mocha_pipe.pipeline.cli.main import app
from mocha_pipe.pipeline.personal.personalize import Learnt, draw
from mocha_pipe.pipeline.personal.photos import PersonalizeError, Seen, Shown, find_object
from mocha_pipe.student.fewshot.strangers import save_strangers
from mocha_pipe.student.network import student_files
from mocha_pipe.student.network.distill_model import DistillModel
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.student.network.student_files import Student, load_student, save_student
from mocha_pipe.student.personal.profile import Profile, student_digest
from tests.shared import DEVICE

Command = Callable[..., Result]
Detections = dict[str, list[tuple[tuple[int, int, int, int], float, int]]]
"""Per photo: corners, confidence and class of each detection, the most confident first."""

WIDTH, HEIGHT = 120, 80
MUG, BOOT, BALL = range(3)


@pytest.fixture(scope="module")
def folder(tiny_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was never trained: it finds nothing, and embeds like any other."""
    torch.manual_seed(0)
    model = DistillModel(str(tiny_detector), num_classes=3, features="fine", target_dim=16)
    model.names = {MUG: "mug", BOOT: "boot", BALL: "ball"}
    folder = save_student(model, tmp_path_factory.mktemp("distilled") / "student", image_size=64, meta={})
    save_strangers(folder, np.linspace(-1, 0.5, 9999))
    return folder


@pytest.fixture(scope="module")
def student(folder: Path) -> Student:
    return load_student(folder)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"photo {number}.png" for number in range(3)]
    for path in paths:
        blocks = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST).save(path)
    return paths


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch) -> Callable[[Detections], None]:
    """Puts detections in place of the student's own; their embeddings are those that it has for the same boxes."""
    embed_pool = RegionEmbedder.embed_pool

    def set_detections(detections: Detections) -> None:
        def find(embedder: RegionEmbedder, source: DetectionSource) -> PoolPass:
            told = [detections.get(Path(record.name).name, []) for record in source.records]
            rows = [(image, *row) for image, own in enumerate(told) for row in own]
            xyxy = [np.array([row[0] for row in own], np.float64).reshape(-1, 4) for own in told]
            seen = [
                replace(record, xyxy=boxes, class_ids=np.zeros(len(boxes), np.int64))
                for record, boxes in zip(source.records, xyxy, strict=True)
            ]
            return PoolPass(
                detection_image=np.array([row[0] for row in rows], np.int64),
                detection_xyxy=np.concatenate(xyxy).astype(np.float32),
                detection_score=np.array([row[2] for row in rows], np.float32),
                detection_coarse=np.array([row[3] for row in rows], np.int64),
                detection_embedding=embed_pool(embedder, replace(source, records=tuple(seen))).region_embedding,
                region_embedding=embed_pool(embedder, source).region_embedding,
            )

        monkeypatch.setattr(RegionEmbedder, "embed_pool", find)

    return set_detections


@pytest.fixture
def personalize(command: Command, folder: Path, student: Student, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command with the tiny student, which was loaded before: nothing changes it."""
    monkeypatch.setattr(
        student_files, "load_student", lambda path: student if path == folder else pytest.fail(str(path))
    )
    return lambda *arguments: command("personalize", *arguments, "--student", folder)


def embedding(student: Student, photo: Path, xyxy: tuple[int, int, int, int]) -> np.ndarray:
    """What the student makes of a box, asked for directly."""
    record = ImageRecord(
        path=photo, name=photo.name, width=WIDTH, height=HEIGHT, xyxy=np.array([xyxy], np.float64),
        class_ids=np.zeros(1, np.int64),
    )  # fmt: skip
    source = DetectionSource(root=photo.parent, split="photos", class_names=("thing",), records=(record,))
    return RegionEmbedder(student, image_size=64).embed_pool(source).region_embedding[0]


def test_a_box_and_a_class_teach_what_the_student_makes_of_that_box(
    personalize: Command, folder: Path, student: Student, photos: list[Path]
) -> None:
    result = personalize(
        "my mug", photos[0], photos[1], "--box", "10,20,30,40", "--box", "0,0,120,80", "--class", "mug"
    )
    assert result.exit_code == 0, result.stderr
    profile = Profile.load(Path("work/profile.safetensors"))
    assert (profile.names, profile.class_names, profile.student) == (
        ("my mug",), ("mug", "boot", "ball"), student_digest(folder),
    )  # fmt: skip
    shown = [embedding(student, photos[0], (10, 20, 40, 60)), embedding(student, photos[1], (0, 0, 120, 80))]
    np.testing.assert_allclose(profile.learner.prototypes_, [np.mean(shown, axis=0)], atol=1e-5)
    assert np.abs(shown[0] - shown[1]).max() > 0.001
    assert profile.photos("my mug") == {"mug": 2}


def test_the_most_confident_detection_is_learnt_and_its_class(
    personalize: Command, student: Student, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({
        "photo 0.png": [((10, 10, 50, 60), 0.9, BOOT), ((12, 10, 50, 60), 0.8, MUG), ((80, 10, 110, 60), 0.4, MUG)],
        "photo 1.png": [((60, 5, 100, 70), 0.5, BALL)],
    })  # fmt: skip
    result = personalize("left boot", *photos[:2], "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["photos"] == [
        {"photo": str(photos[0]), "box": [10, 10, 40, 50], "class": "boot", "confidence": 0.9},
        {"photo": str(photos[1]), "box": [60, 5, 40, 65], "class": "ball", "confidence": 0.5},
    ]
    profile = Profile.load(Path("work/profile.safetensors"))
    assert profile.photos("left boot") == {"boot": 1, "ball": 1}
    np.testing.assert_array_equal(profile.learner.coarse_, [BOOT, BALL])
    expected = [embedding(student, photos[0], (10, 10, 50, 60)), embedding(student, photos[1], (60, 5, 100, 70))]
    np.testing.assert_allclose(profile.learner.prototypes_, expected, atol=1e-5)


def test_a_box_has_the_class_of_the_detection_that_overlaps_it_best(
    personalize: Command, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((60, 10, 90, 60), 0.9, BALL), ((10, 10, 40, 60), 0.6, MUG), ((10, 10, 42, 60), 0.3, BOOT)]})
    assert json.loads(personalize("a", photos[0], "--box", "10,10,32,50", "--json").stdout)["photos"] == [
        {"photo": str(photos[0]), "box": [10, 10, 32, 50], "class": "boot", "confidence": None}
    ]


def test_a_class_says_which_detections_count(
    personalize: Command, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((60, 10, 90, 60), 0.9, BALL), ((10, 10, 40, 60), 0.6, MUG)]})
    told = json.loads(personalize("a", photos[0], "--class", "mug", "--json").stdout)
    assert (told["photos"][0]["class"], told["photos"][0]["box"]) == ("mug", [10, 10, 30, 50])


def test_more_photos_refine_an_object_as_if_shown_at_once(
    personalize: Command, folder: Path, photos: list[Path]
) -> None:
    boxes = ["--class", "mug", "--box", "10,20,30,40"]
    personalize("my mug", photos[0], *boxes)
    result = personalize("my mug", photos[1], *boxes)
    assert result.stdout.endswith(
        "my mug: learnt from 2 photos, in work/profile.safetensors\n"
        f"find it: mocha-pipe detect IMAGE --profile work/profile.safetensors --student {folder}\n"
    )
    personalize("my mug", *photos[:2], *boxes, *boxes[2:], "--profile", "at once.safetensors")
    twice, once = (Profile.load(Path(name)) for name in ("work/profile.safetensors", "at once.safetensors"))
    np.testing.assert_allclose(twice.learner.prototypes_, once.learner.prototypes_, atol=1e-6)
    assert twice.learner.counts_.tolist() == once.learner.counts_.tolist() == [2]


def test_the_learner_of_a_new_profile_can_be_chosen(personalize: Command, photos: list[Path]) -> None:
    boxes = ["--class", "mug", "--box", "10,20,30,40"]
    personalize("my mug", photos[0], *boxes, "--learner", "gallery")
    assert Profile.load(Path("work/profile.safetensors")).learner.name == "gallery"
    assert personalize("my mug", photos[1], *boxes).exit_code == 0
    assert personalize("my mug", photos[1], *boxes, "--learner", "gallery").exit_code == 0
    assert Profile.load(Path("work/profile.safetensors")).photos("my mug") == {"mug": 2}
    result = personalize("my mug", photos[2], *boxes, "--learner", "protonet")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: the objects of a profile share one learner, work/profile.safetensors has gallery, found --learner "
        "protonet; leave it out, or begin another profile with --profile\n",
    )


def test_the_picture_shows_the_box(personalize: Command, photos: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (1280, 960)).save(photos[1])
    boxes = ["--box", "60,20,50,50", "--box", "200,400,800,500"]
    result = personalize("Mütze", *photos[:2], *boxes, "--class", "ball", "--save", "look")
    assert result.exit_code == 0, result.stderr
    assert "look at it: look/Mütze photo 0.jpg\nlook at it: look/Mütze photo 1.jpg\n" in result.stdout
    assert sorted(path.name for path in (tmp_path / "look").iterdir()) == ["Mütze photo 0.jpg", "Mütze photo 1.jpg"]
    picture = np.asarray(Image.open(tmp_path / "look/Mütze photo 1.jpg")).astype(int)
    assert picture.shape == (480, 640, 3)
    drawn = picture.max(axis=2) > 100
    assert drawn[250:400, 98:103].any(axis=1).all()  # left side of the box
    assert drawn[448:453, 150:450].any(axis=0).all()  # its lower side
    assert not drawn[260:440, 110:490].any()
    assert Image.open(tmp_path / "look/Mütze photo 0.jpg").size == (WIDTH, HEIGHT)


def test_the_student_of_the_last_distillation_is_taken(command: Command, folder: Path, photos: list[Path]) -> None:
    run = folder.parent
    told = {"stage": "distill", "config": {}, "inputs": {}, "outputs": {"student": "student"}, "versions": {}}
    write_json(run / "complete.json", {**told, "seconds": 1.0})
    write_json(Path("mine/last-distill.json"), {"run": str(run)})
    arguments = ["my mug", photos[0], "--class", "mug", "--box", "1,1,9,9", "--root", "mine"]
    assert command("personalize", *arguments).exit_code == 0
    assert Profile.load(Path("mine/profile.safetensors")).student == student_digest(folder)


def answer(folder: Path, photo: Path, text: str, *flags: str) -> Result:
    arguments = ["personalize", "my mug", str(photo), "--student", str(folder), *flags]
    return CliRunner().invoke(app, arguments, input=text)


def test_on_a_terminal_what_was_detected_is_shown_and_asked_about(
    folder: Path, photos: list[Path], sees: Callable[[Detections], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.9, BOOT)]})
    monkeypatch.setattr("mocha_pipe.pipeline.cli.personalize._is_terminal", lambda: True)
    result = answer(folder, photos[0], "n\n")
    assert "10,10,40,50" in result.stdout
    assert "boot" in result.stdout
    assert "0.90" in result.stdout
    assert result.exit_code == 2
    assert result.stderr == ("error: nothing was learnt; say where the object is with --box, once for each photo\n")
    assert not Path("work").exists()
    assert "Is that it?" in answer(folder, photos[0], "y\n").stdout
    assert Path("work/profile.safetensors").exists()
    for flags in (("--yes",), ("--json",), ("--box", "10,10,40,50")):
        result = answer(folder, photos[0], "", *flags)
        assert result.exit_code == 0
        assert "Is that it?" not in result.stdout


def test_a_script_is_not_asked(folder: Path, photos: list[Path], sees: Callable[[Detections], None]) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.9, BOOT)]})
    assert answer(folder, photos[0], "").exit_code == 0


def refused(result: Result) -> str:
    """What is said on stderr; nothing may have been written."""
    assert result.exit_code == 2, result.output
    assert not Path("work").exists()
    assert not Path("look").exists()
    return result.stderr


def test_two_objects_of_similar_confidence_are_refused_with_the_boxes_to_type(
    personalize: Command, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    mug, other, boot = ((10, 10, 50, 60), 0.8, MUG), ((60, 5, 100, 70), 0.41, MUG), ((12, 10, 50, 60), 0.7, BOOT)
    sees({"photo 0.png": [mug], "photo 1.png": [mug, boot, other]})
    assert refused(personalize("my mug", *photos, "--save", "look")) == (
        f"error: {photos[1]}: more than one object could be meant; say which with one of\n"
        "error:   --box 10,10,40,50  mug, confidence 0.80\n"
        "error:   --box 60,5,40,65  mug, confidence 0.41\n"
        f"error: {photos[2]}: the detector finds nothing here; say where the object is with --box "
        "left,top,width,height (the photo is 120 x 80 pixels) and what it is with --class, one of mug, boot, ball\n"
    )
    assert personalize("my mug", photos[1], "--box", "60,5,40,65").exit_code == 0
    assert Profile.load(Path("work/profile.safetensors")).photos("my mug") == {"mug": 1}


@pytest.mark.parametrize(
    "other", [((60, 5, 100, 70), 0.39, MUG), ((10, 10, 50, 45), 0.79, BOOT)], ids=["half as sure", "the same thing"]
)
def test_it_is_clear_what_is_meant_where_others_are(
    personalize: Command,
    photos: list[Path],
    sees: Callable[[Detections], None],
    other: tuple[tuple[int, int, int, int], float, int],
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.8, MUG), other]})
    assert personalize("my mug", photos[0]).exit_code == 0


def test_a_photo_in_which_nothing_is_found(personalize: Command, photos: list[Path]) -> None:
    assert refused(personalize("my mug", photos[0])) == (
        f"error: {photos[0]}: the detector finds nothing here; say where the object is with --box "
        "left,top,width,height (the photo is 120 x 80 pixels) and what it is with --class, one of mug, boot, ball\n"
    )
    assert "the detector finds no boot here" in refused(personalize("my mug", photos[0], "--class", "boot"))


def test_a_box_where_nothing_tells_its_class(
    personalize: Command, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.9, BOOT)]})
    assert refused(personalize("my mug", photos[0], "--box", "30,10,40,50")) == (
        f"error: {photos[0]}: a box has the class of a detection that overlaps it by half or more, found none; name it "
        "with --class, one of mug, boot, ball\n"
    )


def refused_box(student: Student, photo: Path, box: str) -> str:
    """What is said of a box; the command gives each mistake a line of its own."""
    with pytest.raises(PersonalizeError) as error:
        find_object(student, [photo], boxes=[box], class_name="mug", confidence=0.25, device=DEVICE)
    return str(error.value)


@pytest.mark.parametrize("box", ["100,20,30,40", "10,50,30,40", "-1,0,30,40", "10,-0.5,30,40"])
def test_a_box_outside_the_photo(student: Student, photos: list[Path], box: str) -> None:
    assert refused_box(student, photos[0], box) == (
        f"{photos[0]}: a box must lie inside the photo, 120 x 80 pixels when upright, found --box {box}; write "
        "left,top,width,height"
    )


@pytest.mark.parametrize(
    "box", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0.5,9", "1,2,9,-3", "nan,1,5,5", "1,1,inf,5"]
)
def test_a_box_that_is_none(student: Student, photos: list[Path], box: str) -> None:
    assert refused_box(student, photos[0], box) == (
        f"a box is left,top,width,height in pixels, 1 or more wide and high, found {box!r}; write it as --box "
        "10,20,30,40"
    )


def test_a_refused_box_is_one_line_of_the_command(personalize: Command, photos: list[Path]) -> None:
    for box in ("100,20,30,40", "1,2,3"):
        told = refused(personalize("my mug", photos[0], f"--box={box}", "--class", "mug"))
        assert told.startswith("error: ")
        assert len(told.splitlines()) == 1


OPEN = ("--learner", "simpleshot")


def test_a_thing_that_the_detector_has_no_class_for_is_learnt_from_a_box(
    personalize: Command, student: Student, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 1.png": [((10, 10, 50, 60), 0.9, BOOT)]})
    result = personalize("my duck", *photos[:2], *["--box", "10,10,40,50"] * 2, *OPEN, "--json")
    assert (result.exit_code, result.stderr) == (
        0, f"warning: {photos[0]}: the detector boxes nothing there, and my duck is found only where it does\n"
    )  # fmt: skip
    assert [photo["class"] for photo in json.loads(result.stdout)["photos"]] == ["none", "boot"]
    profile = Profile.load(Path("work/profile.safetensors"))
    assert profile.photos("my duck") == {"none": 1, "boot": 1}
    shown = [embedding(student, photo, (10, 10, 50, 60)) for photo in photos[:2]]
    unit = [row / np.linalg.norm(row) for row in shown]
    np.testing.assert_allclose(profile.learner.compared(), [np.mean(unit, axis=0)] * 2, atol=1e-5)
    assert "none" in personalize("my duck", photos[0], "--box", "10,10,40,50").stdout


def test_where_the_class_does_not_matter_none_is_asked_for(personalize: Command, photos: list[Path]) -> None:
    assert refused(personalize("my duck", photos[0], *OPEN)) == (
        f"error: {photos[0]}: the detector finds nothing here; say where the object is with --box "
        "left,top,width,height (the photo is 120 x 80 pixels)\n"
    )


def test_a_class_that_the_detector_does_not_say_there_is_warned_about(
    personalize: Command, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.9, BOOT), ((12, 10, 50, 60), 0.8, BALL)]})
    arguments = (photos[0], "--box", "12,10,38,50", "--class")
    assert personalize("my mug", *arguments, "mug").stderr == (
        f"warning: {photos[0]}: the detector says ball or boot there, and my mug is looked for where it says mug; "
        "learn it with --class ball, or in another profile with --learner simpleshot, to which the class does not "
        "matter\n"
    )
    assert personalize("my boot", *arguments, "boot", "--profile", "boots.safetensors").stderr == ""
    profile = ("--profile", "open.safetensors")
    assert personalize("my mug", *arguments, "mug", *OPEN, *profile).stderr == ""
    assert Profile.load(Path("open.safetensors")).photos("my mug") == {"mug": 1}
    alone = ("--profile", "alone.safetensors")
    assert personalize("a", photos[1], "--box", "12,10,38,50", "--class", "mug", *alone).stderr == (
        f"warning: {photos[1]}: the detector boxes nothing there, and a is found only where it does\n"
    )


def test_boxes_for_some_photos_only(personalize: Command, photos: list[Path]) -> None:
    assert refused(personalize("my mug", *photos, "--box", "1,1,9,9", "--box", "1,1,9,9")) == (
        "error: --box must stand once for each photo, in their order, or not at all; found 2 for 3 photos; learn "
        "photos one after the other where some need none\n"
    )


def test_the_frame_of_a_box_is_the_upright_photo(personalize: Command, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "side.jpg", exif=exif)
    arguments = ["my mug", tmp_path / "side.jpg", "--class", "mug", "--box"]
    assert "80 x 120 pixels" in refused(personalize(*arguments, "0,0,120,80"))
    assert personalize(*arguments, "0,0,80,120").exit_code == 0


def test_a_class_that_the_student_does_not_know(personalize: Command, photos: list[Path]) -> None:
    assert refused(personalize("my mug", photos[0], "--class", "cup")) == (
        "error: --class must be one of the student's, mug, boot, ball; found 'cup'\n"
    )


def test_photos_that_are_none(personalize: Command, photos: list[Path], tmp_path: Path) -> None:
    boxes = ["--box", "1,1,9,9", "--box", "1,1,9,9", "--class", "mug"]
    assert refused(personalize("my mug", photos[0], "nowhere.jpg", *boxes)) == (
        "error: nowhere.jpg: a photo is an image file, found none of this name; name one that exists\n"
    )
    assert refused(personalize("my mug", tmp_path, *boxes[:2])) == (
        f"error: {tmp_path}: a photo is an image file, found a folder; name the photos in it\n"
    )
    (tmp_path / "text.jpg").write_text("no picture")
    assert refused(personalize("my mug", photos[0], "text.jpg", *boxes)) == (
        "error: text.jpg: cannot be read as an image (no known image format); replace or remove the file\n"
    )


def test_the_name_of_a_class_is_no_name(personalize: Command, photos: list[Path]) -> None:
    assert refused(personalize("mug", photos[0])) == (
        "error: an object needs a name of its own, 'mug' is what the student calls all of its kind; write one such as "
        "'my mug'\n"
    )


def test_a_picture_that_cannot_be_written_does_not_hide_what_was_learnt(
    personalize: Command, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    boxes = ["--box", "1,1,9,9", "--class", "mug"]
    told = (
        "error: {}: a picture cannot be written there ({}), but my mug was learnt and is in work/profile.safetensors; "
        "to see what was learnt, free some space or name another folder with --save, and run the same command again\n"
    )
    Path("file").touch()
    result = personalize("my mug", photos[0], *boxes, "--save", "file/x")
    assert result.exit_code == 2
    assert "my mug: learnt from 1 photo, in work/profile.safetensors\n" in result.stdout
    assert result.stderr.endswith(told.format("file/x", "Not a directory"))
    monkeypatch.setattr("mocha_pipe.pipeline.personal.personalize.draw", full)
    result = personalize("my mug", photos[0], *boxes, "--save", "full", "--json")
    assert (result.exit_code, json.loads(result.stdout)["photos_in_all"]) == (2, 1)
    assert result.stderr.endswith(told.format("full", "No space left on device"))


def test_no_name_of_a_photo_steers_the_terminal(personalize: Command, photos: list[Path], tmp_path: Path) -> None:
    photo = photos[0].rename(tmp_path / "a\x1b[31m.png")
    result = personalize("my mug", photo, "--box", "1,1,9,9", "--class", "mug")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert r"a\x1b[31m.png: the detector boxes nothing there" in result.stderr


def test_names_and_learners_that_are_none(personalize: Command, photos: list[Path]) -> None:
    boxes = ["--box", "1,1,9,9", "--class", "mug"]
    assert "must be printable text" in refused(personalize(" my mug", photos[0], *boxes))
    assert "--learner must be one of" in refused(personalize("my mug", photos[0], *boxes, "--learner", "svm"))


def test_without_a_student_the_command_to_run_is_named(command: Command, photos: list[Path], tmp_path: Path) -> None:
    assert refused(command("personalize", "my mug", photos[0])) == (
        "error: no distillation was completed under work: run mocha-pipe distill, or name a student's folder with "
        "--student\n"
    )
    assert refused(command("personalize", "my mug", photos[0], "--student", tmp_path)) == (
        f"error: {tmp_path}/student.pt: no such file; name the folder of a distilled student, such as "
        "work/distill/student.\n"
    )


def test_a_profile_of_another_student_stays_as_it_is(personalize: Command, photos: list[Path]) -> None:
    path = Path("theirs.safetensors")
    Profile.empty("cd" * 32, ("mug",)).add("cup", np.ones((1, 16)), np.zeros(1, int)).save(path)
    before = path.read_bytes()
    result = personalize("my mug", photos[0], "--box", "1,1,9,9", "--class", "mug", "--profile", path)
    assert (result.exit_code, path.read_bytes()) == (2, before)
    assert "it has that of student cdcdcdcdcdcd, found student" in result.stderr


def test_an_error_in_a_later_photo_leaves_the_profile_untouched(personalize: Command, photos: list[Path]) -> None:
    boxes = ["--box", "1,1,9,9", "--class", "mug"]
    personalize("my mug", photos[0], *boxes)
    before = Path("work/profile.safetensors").read_bytes()
    assert personalize("my mug", photos[1], photos[2], *boxes, "--box", "1,1,900,9").exit_code == 2
    assert Path("work/profile.safetensors").read_bytes() == before


# --- what these very photos tell --------------------------------------------------------------------------------------


def test_a_photo_and_box_count_once_under_whatever_name_the_file_has(
    personalize: Command, photos: list[Path], tmp_path: Path
) -> None:
    boxes = ["--class", "mug", "--box", "10,20,30,40"]
    copy = tmp_path / "a copy.png"
    copy.write_bytes(photos[0].read_bytes())
    first = personalize("my mug", photos[0], copy, *boxes, *boxes[2:])
    assert "my mug: learnt from 1 photo, in" in first.stdout
    again = personalize("my mug", copy, *boxes)
    assert "my mug: learnt from 1 photo, in" in again.stdout
    for result in (first, again):
        assert result.stderr.splitlines()[-1] == (
            "warning: a photo and box was learnt before or named twice, and counts once"
        )
    assert "learnt from 2 photos" in personalize("my mug", copy, "--class", "mug", "--box", "60,20,30,40").stdout


def test_one_photo_under_two_names_is_warned_about(
    personalize: Command, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.9, MUG)], "photo 1.png": [((10, 10, 50, 60), 0.9, MUG)]})
    assert personalize("my mug", photos[0]).stderr == ""
    assert (
        "warning: Anna's mug looks like my mug (cosine 1.00): is it one object, or one photo under two names? forget "
        "one of them with: mocha-pipe profile remove 'Anna'\"'\"'s mug'\n"
    ) in personalize("Anna's mug", photos[0]).stderr


def test_an_object_that_the_detection_in_its_own_photo_is_not_called_is_warned_about() -> None:
    """Though the box overlaps a detection of its class by half and more."""
    boxed, detected = np.eye(2, 8, dtype=np.float32)
    for found, told in ((detected, 1), (boxed, 0)):
        seen = Seen(xyxy=(10, 10, 50, 70), coarse=0, embedding=found)
        where = {"photo": Path("a.jpg"), "xyxy": (10, 10, 50, 45), "digest": ""}
        shown = Shown(**where, coarse=0, seen=(seen,), confidence=None, embedding=boxed)
        profile = Profile.empty("ab" * 32, ("mug",)).add("my mug", boxed[None], np.zeros(1, int))
        learnt = Learnt(name="my mug", profile=profile, shown=[shown], strangers=np.linspace(-1, 0.5, 99))
        expected = (
            "a.jpg: what the detector boxes there is not close enough to what was learnt to be called my mug; learn it "
            "as the detector boxes it, --box 10,10,40,60, or show it in more photos"
        )
        assert learnt.warnings() == [expected] * told


def test_an_object_that_is_called_another_in_its_own_photo_is_warned_about(
    personalize: Command, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 70), 0.9, MUG)]})
    personalize("my mug", photos[0])
    told = personalize("your mug", photos[0], "--box", "10,10,40,35").stderr
    assert (
        f"warning: {photos[0]}: what the detector boxes there is called my mug, to which it is closer; show your mug "
        "in more photos, or as the detector boxes it: --box 10,10,40,60\n"
    ) in told


def test_too_few_strangers_are_said_when_an_object_is_learnt(
    personalize: Command, folder: Path, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 70), 0.9, MUG)]})
    save_strangers(folder, np.linspace(-1, 0.5, 6))
    try:
        told = personalize("my mug", photos[0]).stderr
    finally:
        save_strangers(folder, np.linspace(-1, 0.5, 9999))
    assert told.startswith("warning: a false-accept rate of 0.05 for 1 competing prototype needs 19 or more strangers")


def test_names_are_one_in_any_spelling(personalize: Command, photos: list[Path]) -> None:
    boxes = ["--class", "mug", "--box", "10,20,30,40"]
    personalize("caf\u00e9 mug", photos[0], *boxes)
    assert "caf\u00e9 mug: learnt from 2 photos" in personalize("cafe\u0301 mug", photos[1], *boxes).stdout


def test_pictures_of_two_objects_in_one_photo_stay_apart(
    personalize: Command, photos: list[Path], tmp_path: Path
) -> None:
    look = ["--class", "mug", "--save", "look"]
    personalize("my mug", photos[0], "--box", "10,20,30,40", *look)
    first = (tmp_path / "look/my mug photo 0.jpg").read_bytes()
    personalize("your mug", photos[0], "--box", "60,20,30,40", *look)
    told = personalize("my mug", photos[0], "--box", "60,20,30,40", *look)
    assert "look at it: look/my mug photo 0-2.jpg" in told.stdout
    assert sorted(path.name for path in (tmp_path / "look").iterdir()) == [
        "my mug photo 0-2.jpg", "my mug photo 0.jpg", "your mug photo 0.jpg",
    ]  # fmt: skip
    assert (tmp_path / "look/my mug photo 0.jpg").read_bytes() == first


# --- two at once ------------------------------------------------------------------------------------------------------

LEARN = """
import sys, numpy as np
from pathlib import Path
from mocha_pipe.pipeline.personal.personalize import Learnt
from mocha_pipe.pipeline.personal.photos import Shown
from mocha_pipe.student.personal.profile import Profile

name, path = sys.argv[1], Path(sys.argv[2])
empty = Profile.empty("ab" * 32, ("mug",))
for number in range(10):
    row = np.random.default_rng([ord(name), number]).normal(size=8).astype(np.float32)
    shown = Shown(photo=path, xyxy=(0, 0, 9, 9), coarse=0, seen=(), confidence=None, embedding=row, digest="")
    own = f"{name} {number}"
    Learnt(name=own, profile=empty, shown=[shown], strangers=row).save(path)
"""


def test_two_processes_that_learn_into_one_profile_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "profile.safetensors"
    learners = [subprocess.Popen([sys.executable, "-c", LEARN, name, str(path)]) for name in "ab"]
    assert [learner.wait(120) for learner in learners] == [0, 0]
    assert sorted(Profile.load(path).names) == sorted(f"{name} {number}" for name in "ab" for number in range(10))


def test_an_object_that_another_process_learns_while_the_user_is_asked_stays(
    folder: Path, photos: list[Path], sees: Callable[[Detections], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.9, BOOT)], "photo 1.png": [((10, 10, 50, 60), 0.9, MUG)]})

    def think() -> bool:
        arguments = ["personalize", "another", str(photos[1]), "--student", str(folder), "--yes"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        return False

    monkeypatch.setattr("mocha_pipe.pipeline.cli.personalize._is_terminal", think)
    assert answer(folder, photos[0], "").exit_code == 0
    assert set(Profile.load(Path("work/profile.safetensors")).names) == {"another", "my mug"}


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_no_part_of_a_picture_stays_where_the_disk_is_full(photos: list[Path], tmp_path: Path) -> None:
    row = np.zeros(8, np.float32)
    shown = Shown(photo=photos[0], xyxy=(0, 0, 9, 9), coarse=0, seen=(), confidence=None, embedding=row, digest="")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011  (its number is looked at)
            draw(shown, "my mug", "mug", tmp_path / "learnt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert caught.value.errno == errno.EFBIG
    assert list((tmp_path / "learnt").iterdir()) == []


def test_nothing_is_learnt_where_pictures_of_it_cannot_lie(
    folder: Path, photos: list[Path], sees: Callable[[Detections], None]
) -> None:
    sees({"photo 0.png": [((10, 10, 50, 60), 0.9, BOOT)]})
    result = answer(folder, photos[0], "", "--yes", "--save", str(photos[0]))
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert not Path("work/profile.safetensors").exists()
