"""Chromium from the distribution's packages, driven by Playwright, for the tests and measurements of the page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
CAMERA = "--use-fake-device-for-media-stream"
"""A camera that shows a moving test picture; who opens a context allows it or not."""
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """What this machine lacks and how to get it; empty where it lacks nothing."""
    if find_spec("playwright") is None:
        return "Playwright is not installed: pip install playwright"
    return "" if _program() else "Chromium is not installed: apt install chromium"


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A browser with a profile folder of its own, which goes with it; the object is Playwright's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), headless=True, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


def _program() -> str | None:
    return next((found for name in _NAMES if (found := shutil.which(name))), None)
