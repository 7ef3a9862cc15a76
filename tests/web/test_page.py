"""A person teaches the page: boxes, names, objects, and the profile that goes to the command line and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocha_pipe.pipeline.personal.personalize import learn
from mocha_pipe.student.personal.detector import PersonalDetector
from mocha_pipe.student.personal.profile import Profile
from tests.web.conftest import ready


def look(page: Any, *pictures: Path) -> None:
    """Choose photos; wait until the first is looked at."""
    page.evaluate("() => { document.getElementById('spoken').textContent = '' }")
    page.locator("#photo-file").set_input_files(pictures)
    page.get_by_role("button", name=f"Look at {pictures[-1].name}").wait_for()


def draw(page: Any, box: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """Draw a box, left, top, right, bottom in pixels of a picture of that size, with the mouse."""
    place = page.locator("#overlay").bounding_box()
    scale = place["width"] / size[0]
    (x0, y0), (x1, y1) = ((place["x"] + scale * x, place["y"] + scale * y) for x, y in (box[:2], box[2:]))
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2, steps=2)
    page.mouse.move(x1, y1)
    page.mouse.up()


def name_it(page: Any, name: str, kind: str = "mug") -> None:
    """Fill in the form that is open, and wait for what it says."""
    page.locator("#name").fill(name)
    if page.locator("#class").is_visible():
        page.locator("#class").select_option(kind)
    page.get_by_role("button", name="Done").click()
    page.locator("#message").wait_for()
    page.locator("#teach").wait_for(state="hidden")


def found(page: Any) -> list[str]:
    """Names in the list of what was found."""
    return [text.split(",")[0] for text in page.locator("#found li").all_inner_texts()]


def saved_profile(page: Any, path: Path) -> Profile:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save profile").click()
    assert download.value.suggested_filename == "profile.safetensors"
    download.value.save_as(path)
    return Profile.load(path)


def saved_results(page: Any, path: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save results").click()
    download.value.save_as(path)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def assert_same(results: dict[str, Any], student: Path, profile: Path, picture: Path, rate: float = 0.05) -> None:
    """What the page saved is what `PersonalDetector` finds."""
    (wanted,) = PersonalDetector.load(student, profile, false_accept_rate=rate)(picture)
    boxes = [
        {"name": wanted.names[int(name)], "class": wanted.names[int(coarse)]}
        for name, coarse in zip(wanted.boxes.cls.tolist(), wanted.coarse.tolist(), strict=True)
    ]
    assert [{key: box[key] for key in ("name", "class")} for box in results["boxes"]] == boxes
    xyxy = np.array([box["xyxy"] for box in results["boxes"]]).reshape(-1, 4)
    assert np.abs(xyxy - wanted.boxes.xyxy.numpy()).max(initial=0) < 0.5
    assert np.allclose([box["certainty"] for box in results["boxes"]], wanted.certainty.numpy(), atol=2e-3)
    assert (results["height"], results["width"]) == wanted.orig_shape


@pytest.mark.parametrize("box", [(10, 8, 50, 40), (70, 2, 88, 12)])
def test_a_drawn_box_is_learnt_as_by_personalize(
    page: Any, student: Path, pictures: list[Path], box: tuple[int, int, int, int], tmp_path: Path
) -> None:
    look(page, pictures[0])
    draw(page, box, (90, 60))
    left, top, width, height = (
        page.locator(f"#box-{side}").input_value() for side in ("left", "top", "width", "height")
    )
    shown = page.evaluate("() => document.getElementById('overlay').toDataURL()")
    page.locator("#overlay").hover()  # the box that is being named stays where it was drawn
    assert page.evaluate("() => document.getElementById('overlay').toDataURL()") == shown
    drawn = [float(left), float(top), float(left) + float(width), float(top) + float(height)]
    assert np.abs(np.array(drawn) - box).max() <= 1
    kind = "ball" if page.locator("#class").is_visible() else None
    name_it(page, "my mug", "ball")
    mine = saved_profile(page, tmp_path / "page.safetensors")
    learnt = learn(
        "my mug", [pictures[0]], profile=tmp_path / "none", folder=student, learner=None,
        boxes=[f"{left},{top},{width},{height}"], class_name=kind, confidence=0.25, device="cpu",
    ).profile  # fmt: skip
    for key, value in learnt.learner.tensors().items():
        assert np.abs(mine.learner.tensors()[key] - value).max() < 1e-4, key
    assert mine.lessons.photos == learnt.lessons.photos  # so that the photo counts once wherever it is met
    assert np.array_equal(mine.lessons.boxes, learnt.lessons.boxes)
    assert_same(saved_results(page, tmp_path / "r.json"), student, tmp_path / "page.safetensors", pictures[0])


def test_before_the_first_picture_there_is_nothing_to_draw_on(browser: Any, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    waiting: list[Any] = []
    page.route("**/*.onnx", lambda route: waiting.append(route))  # the student is still on its way
    with page.expect_request("**/*.onnx"):
        page.goto(address)
    draw(page, (20, 20, 120, 100), (300, 300))
    assert page.locator("#teach").is_hidden()
    for route in waiting:
        route.continue_()
    ready(page)
    context.close()
    assert errors == []


def test_objects_are_found_renamed_forgotten_and_remembered(page: Any, pictures: list[Path], tmp_path: Path) -> None:
    look(page, pictures[1])
    before = found(page)
    assert len(before) > 3
    page.get_by_role("button", name="Name this").first.click()
    name_it(page, "my mug")
    assert "Learnt my mug from 1 photo." in page.inner_text("#message")
    assert found(page)[0].startswith("my mug (")
    assert {name for name in found(page) if not name.startswith("my mug")} <= {"mug", "ball", "boot"}
    page.get_by_role("button", name="Name this").last.click()
    name_it(page, "Zoë's boot")
    assert any(name.startswith("Zoë's boot (") for name in found(page))
    page.get_by_role("button", name="Teach my mug by this picture too").first.click()
    assert "which knows 1 photo" in page.inner_text("#refines")
    name_it(page, "my mug")
    assert "counts once" in page.inner_text("#message")

    page.get_by_label("Show my mug").uncheck()
    page.locator("#found li", has_text="my mug (").first.wait_for(state="detached")
    page.get_by_label("Show my mug").check()
    page.locator("#found li", has_text="my mug (").first.wait_for()
    page.get_by_role("button", name="Rename my mug").click()
    page.get_by_label("New name").fill("Zoë's boot")
    page.get_by_role("button", name="Rename", exact=True).click()
    assert "a name belongs to one object" in page.inner_text("#message")
    page.get_by_role("button", name="Rename my mug").click()
    page.get_by_label("New name").fill("Anna's mug")
    page.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_text("Anna's mug (").first.wait_for()

    page.reload()
    ready(page)
    assert page.locator("#objects strong").all_inner_texts() == ["Anna's mug", "Zoë's boot"]
    assert page.locator("#objects img").count() == 2
    page.get_by_role("button", name="Forget Zoë's boot").click()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Forget Zoë's boot").click()
    page.get_by_role("button", name="Forget", exact=True).click()
    page.get_by_role("button", name="Forget Zoë's boot").wait_for(state="detached")
    assert saved_profile(page, tmp_path / "p.safetensors").names == ("Anna's mug",)


def test_a_profile_goes_to_the_command_line_and_back(
    page: Any, student: Path, pictures: list[Path], tmp_path: Path
) -> None:
    look(page, pictures[1])
    page.get_by_role("button", name="Name this").first.click()
    name_it(page, "my mug")
    path = tmp_path / "profile.safetensors"
    profile = saved_profile(page, path)
    for place, rate in ((3, 0.01), (9, 0.5)):
        page.locator("#rate").fill(str(place))
        page.get_by_text("50 %: 1 in 2" if rate == 0.5 else "1 %: 1 in 100").wait_for()
        page.wait_for_timeout(300)
        assert_same(saved_results(page, tmp_path / "r.json"), student, path, pictures[1], rate)
    profile.rename("my mug", "the other mug").save(path)
    page.locator("#profile-file").set_input_files(path)
    page.get_by_role("button", name="Replace mine").click()
    page.get_by_text("profile.safetensors: the other mug").wait_for()
    assert page.locator("#objects strong").all_inner_texts() == ["the other mug"]
    profile.save(path)
    page.locator("#profile-file").set_input_files(path)
    page.get_by_role("button", name="Add to mine").click()
    page.get_by_text("my mug", exact=True).wait_for()
    assert saved_profile(page, path).names == ("the other mug", "my mug")


def test_a_profile_that_does_not_go_with_the_student_is_refused(
    page: Any, pictures: list[Path], tmp_path: Path
) -> None:
    look(page, pictures[1])
    page.get_by_role("button", name="Name this").first.click()
    name_it(page, "my mug")
    path = tmp_path / "other.safetensors"
    Profile.empty("b" * 64, ["mug"]).add("x", np.ones((1, 24)), np.array([0])).save(path)
    page.locator("#profile-file").set_input_files(path)
    page.get_by_text(
        "a profile must be used with the student that it was learnt with: it has that of student bbb"
    ).wait_for()
    path.write_bytes(b"no profile")
    page.locator("#profile-file").set_input_files(path)
    page.get_by_text("other.safetensors: file of a profile must be a safetensors file").wait_for()
    assert page.locator("#objects strong").all_inner_texts() == ["my mug"]


def test_the_form_refuses_what_cannot_be_learnt(page: Any, pictures: list[Path]) -> None:
    look(page, pictures[0])
    page.get_by_role("button", name="Box by numbers").press("Enter")
    assert page.evaluate("document.activeElement.id") == "name"

    def said(name: str, **sides: str) -> str:
        page.locator("#name").fill(name)
        for side, value in sides.items():
            page.locator(f"#box-{side}").fill(value)
        page.locator("#name").press("Enter")
        text: str = page.inner_text("#teach-message")
        return text

    assert "must be printable text without spaces around it, found nothing" in said("")
    assert "'mug' is what the student calls all of its kind" in said("mug")
    assert "1 or more wide and high" in said("my mug", width="0")
    assert "1 or more wide and high" in said("my mug", width="")
    assert "must lie inside the picture, 90 x 60 pixels" in said("my mug", width="200")
    assert page.locator("#objects li").count() == 0
    page.keyboard.press("Escape")
    assert page.locator("#teach").is_hidden()
    assert page.evaluate("document.activeElement.id") == "box"
    draw(page, (30, 20, 60, 20), (90, 60))
    assert "1 or more wide and high" in said("my mug")


def test_a_learner_without_classes_learns_what_the_detector_has_no_word_for(
    browser: Any, serve: Callable[..., str], made: Path, pictures: list[Path], tmp_path: Path
) -> None:
    student, path = made / "deep", tmp_path / "mine.safetensors"
    begun = learn(
        "my duck", [pictures[3]], profile=path, folder=student, learner=None, boxes=["3,3,40,30"], class_name=None,
        confidence=0.25, device="cpu",
    )  # fmt: skip
    begun.save(path)
    context = browser.new_context()
    page = context.new_page()
    page.goto(serve(student, path, learner="simpleshot"))
    ready(page)
    assert page.locator("#objects strong").all_inner_texts() == ["my duck"]
    page.set_viewport_size({"width": 1200, "height": 900})
    for picture in pictures[3:6]:
        look(page, picture)
        assert_same(saved_results(page, tmp_path / "r.json"), student, path, picture)
    draw(page, (1, 1, 12, 12), (90, 60))
    assert page.locator("#class").is_hidden()
    name_it(page, "a corner")
    assert saved_profile(page, path).names == ("my duck", "a corner")
    context.close()
