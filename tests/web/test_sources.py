"""Where pictures come from, and browsers that lack something: a sentence on the page, and nothing is lost."""

import base64
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from mocha_pipe.pipeline.web import serving
from tests.web.conftest import ready
from tests.web.test_page import found, look


def huge_png(path: Path) -> Path:
    """A picture of ten thousand megapixels, by its header."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_files_that_are_no_pictures(page: Any, pictures: list[Path], tmp_path: Path) -> None:
    look(page, pictures[0])
    before = found(page)
    (tmp_path / "note.jpg").write_text("no picture")
    whole = pictures[1].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 3])
    Image.new("RGB", (9, 40)).save(tmp_path / "thin.png")
    for path, words in (
        (tmp_path / "note.jpg", "cannot be read as an image"),
        (huge_png(tmp_path / "huge.png"), "is far too large"),
        (tmp_path / "thin.png", "at least 10 x 10 pixels, found 9 x 40"),
    ):
        page.locator("#photo-file").set_input_files(path)
        page.locator("#message", has_text=words).wait_for()
        assert found(page) == before
        assert page.get_by_role("button", name=f"Look at {path.name}").count() == 0
    (tmp_path / "film.mp4").write_bytes(b"no film")
    page.locator("#video-file").set_input_files(tmp_path / "film.mp4")
    page.get_by_text("film.mp4: this browser cannot play it as a video").wait_for()
    look(page, pictures[1])


def test_a_photo_with_an_orientation_stands_upright(page: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "lying.jpg", exif=exif)
    look(page, tmp_path / "lying.jpg")
    assert "40 by 80 pixels" in page.locator("#view").get_attribute("aria-label")


def test_a_drawn_picture_can_be_saved(page: Any, pictures: list[Path], tmp_path: Path) -> None:
    look(page, pictures[0])
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    assert download.value.suggested_filename == "picture00 found.png"
    download.value.save_as(tmp_path / "drawn.png")
    assert Image.open(tmp_path / "drawn.png").size == (800, 533)


def test_pictures_can_be_dropped(page: Any, pictures: list[Path]) -> None:
    transfer = page.evaluate_handle(
        """async (text) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.fromBase64(text)], "dropped.png", { type: "image/png" }));
          return transfer;
        }""",
        base64.b64encode(pictures[2].read_bytes()).decode(),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    page.get_by_role("button", name="Look at dropped.png").wait_for()


def test_a_video_is_followed_and_stays_where_it_is_paused(page: Any, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "film.webm"), cv2.VideoWriter_fourcc(*"VP80"), 10, (96, 64))
    for index in range(20):
        writer.write(np.full((64, 96, 3), 12 * index, np.uint8))
    writer.release()
    page.locator("#video-file").set_input_files(tmp_path / "film.webm")
    page.get_by_text("pictures a second").wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Go on").wait_for()
    page.get_by_role("button", name="Box by numbers").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go on").click()
    look(page, Path(__file__).parents[2] / "docs" / "images" / "my-mug.jpg")
    assert page.get_by_role("button", name="Pause").is_hidden()


def test_a_camera_is_followed_learnt_from_and_lost(browser: Any, address: str, tmp_path: Path) -> None:
    context = browser.new_context(permissions=["camera"])
    page = context.new_page()
    page.add_init_script(
        "const open = MediaDevices.prototype.getUserMedia; "
        "MediaDevices.prototype.getUserMedia = async function (...asked) { "
        "const stream = await open.apply(this, asked); window.tracks = stream.getTracks(); return stream; }"
    )
    page.goto(address)
    ready(page)
    page.get_by_role("button", name="Camera").click()
    page.get_by_text("pictures a second").wait_for()
    page.get_by_role("button", name="Box by numbers").click()
    page.locator("#name").fill("my test card")
    if page.locator("#class").is_visible():
        page.locator("#class").select_option("mug")
    page.get_by_role("button", name="Done").click()
    page.get_by_text("Learnt my test card from 1 photo.").wait_for()
    speed = page.inner_text("#speed")
    page.wait_for_timeout(1500)
    assert page.inner_text("#speed") != speed  # it went on
    (tmp_path / "note.jpg").write_text("no picture")
    page.locator("#photo-file").set_input_files(tmp_path / "note.jpg")
    page.get_by_text("cannot be read as an image").wait_for()
    assert page.get_by_role("button", name="Pause").is_visible()  # and still goes on
    page.evaluate("() => window.tracks.forEach((track) => track.dispatchEvent(new Event('ended')))")
    page.get_by_text("the camera is gone").wait_for()
    assert page.locator("#objects strong").all_inner_texts() == ["my test card"]
    context.close()


def test_a_camera_that_is_not_allowed(page: Any) -> None:
    before = found(page)
    page.get_by_role("button", name="Camera").click()
    page.get_by_text("the camera was not allowed; allow it for this page").wait_for()
    assert found(page) == before


def test_a_narrow_screen_has_everything_and_scrolls_one_way(browser: Any, address: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme="dark")
    page = context.new_page()
    page.goto(address)
    ready(page)
    page.get_by_role("button", name="Box by numbers").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    place = page.locator("#teach").bounding_box()
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= 360
    context.close()


def test_a_gpu_that_does_not_do_gives_way(browser: Any, address: str, made: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    own = "Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => ({}) } });\n"
    source = (Path(__file__).parents[2] / "web" / "worker.js").read_text(encoding="utf-8")
    page.route(
        "**/worker.js",
        lambda route: route.fulfill(body=own + source, content_type="text/javascript", headers=serving.HEADERS),
    )
    page.goto(address)
    ready(page)
    assert re.fullmatch(r"WebAssembly, \d+ threads?", page.inner_text("#state"))
    context.close()


def test_a_server_without_headers_leaves_one_thread(
    browser: Any, serve: Callable[..., str], student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEADERS", {})
    page = browser.new_page()
    page.goto(serve(student))
    ready(page)
    assert page.inner_text("#state") == "WebAssembly, 1 thread"
    page.close()


def test_a_browser_without_simd_is_told(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(address)
    page.get_by_text("this browser lacks WebAssembly SIMD").wait_for()
    page.close()


def test_a_browser_that_keeps_nothing_still_learns(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.add_init_script("indexedDB.open = () => { throw new DOMException('no', 'SecurityError') }")
    page.goto(address)
    page.get_by_text("this browser keeps nothing for this page; save the profile").wait_for()
    page.get_by_role("button", name="Name this").first.click()
    page.locator("#name").fill("my mug")
    page.get_by_role("button", name="Done").click()
    page.get_by_text("Learnt my mug from 1 photo.").wait_for()
    page.close()


def test_nothing_goes_elsewhere(page: Any) -> None:
    sent = page.evaluate("() => fetch('https://example.org/', { mode: 'no-cors' }).then(() => 'sent', () => 'refused')")
    assert sent == "refused"
    violated = page.evaluate(
        "() => new Promise((told) => {"
        "addEventListener('securitypolicyviolation', (event) => told(event.violatedDirective)); "
        "fetch('https://example.org/').catch(() => 0) })"
    )
    assert violated == "connect-src"
