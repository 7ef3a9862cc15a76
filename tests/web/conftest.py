"""The page with a tiny student, served to a real browser; where there is none, the tests say so and are skipped."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.chromium import CAMERA, chromium, missing
from mocha_pipe.pipeline.web.runtime import FILES, VERSION
from mocha_pipe.pipeline.web.serving import open_server
from mocha_pipe.pipeline.web.site import Site, build_site
from mocha_pipe.student.environment import own_folder
from tests.shared import made_once

RUNTIME = own_folder() / "web" / f"onnxruntime-web-{VERSION}"  # of the user: tests fetch nothing


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for each file: Playwright bears no second one in a process, and the measurement opens its own."""
    if lack := missing():
        pytest.skip(lack)
    with chromium(CAMERA) as opened:
        yield opened


@pytest.fixture(scope="session")
def made() -> Path:
    """The students `fine` and `deep`, `pictures`, and the cache that `build_site` filled."""
    from tests.student.conftest import tiny_model
    from tests.student.personal.conftest import CLASSES, make_student, picture_source

    if not all((RUNTIME / name).is_file() for name in FILES):
        pytest.skip("onnxruntime-web is not kept here: make browser")

    def make(folder: Path) -> None:
        source = picture_source(folder / "pictures")
        (folder / "cache").mkdir()
        (folder / "cache" / RUNTIME.name).symlink_to(RUNTIME, target_is_directory=True)
        for features, learner in (("fine", None), ("deep", "simpleshot")):
            student = folder / features
            make_student(tiny_model("v8", folder), student, source, features=features, names=CLASSES)
            build_site(student, None, folder / "cache", learner=learner)

    return made_once("web", make)


@pytest.fixture(scope="session")
def student(made: Path) -> Path:
    """Its learner is `conditional`."""
    return made / "fine"


@pytest.fixture(scope="session")
def pictures(made: Path) -> list[Path]:
    return sorted((made / "pictures").iterdir())


@pytest.fixture(scope="session")
def serve(made: Path) -> Iterator[Callable[..., str]]:
    """Serve the page of a student, perhaps with a profile or with files changed; its address."""
    servers = []

    def start(student: Path, profile: Path | None = None, *, learner: str | None = None, **changed: Path) -> str:
        site: Site = {**build_site(student, profile, made / "cache", learner=learner), **changed}
        server, address = open_server(site, 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def address(serve: Callable[..., str], student: Path) -> str:
    return serve(student)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, when it has found what the first scene shows; another test finds nothing that was learnt on it."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(address)
    ready(opened)
    yield opened
    context.close()
    assert errors == []


def ready(page: Any) -> None:
    """Wait for the first boxes."""
    page.locator("#spoken", has_text="Found").wait_for(state="attached", timeout=60_000)


@pytest.fixture(scope="module")
def call(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Run JavaScript with one argument beside the modules of the page: `call("async (x) => ...", x)`."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}none")  # an empty page of the same server, without our policy
    yield page.evaluate
    context.close()
