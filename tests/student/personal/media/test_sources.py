"""What a source names: paths before anything else, globs beside brackets, lists; and what is no source."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ultralytics.data.loaders import LoadStreams

from mocha_pipe.student.personal.media import sources as module
from mocha_pipe.student.personal.media.files import SourceError, find_media
from mocha_pipe.student.personal.media.loader import FileLoader
from mocha_pipe.student.personal.media.sources import open_loader, refuse_addresses, without_password

REMEDY = "): name an image, a folder or a glob of images, a video, the index of a camera or the URL of a stream"


def touch(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*sources: str) -> list[str]:
    """Relative to the working folder."""
    return [os.path.relpath(file) for file in find_media(sources).files]


def refused(*sources: str | int) -> str:
    with pytest.raises(SourceError) as caught:
        open_loader(sources)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("folder", ["2024", "0", "screen", "trip [1]", "a*b", "rtsp:", "über", "x.jpg", "x.txt", "-1"])
def test_a_folder_that_exists_is_that_folder_whatever_it_is_called(folder: str) -> None:
    touch(f"{folder}/a.jpg", f"{folder}/b.MP4", f"{folder}/notes.txt", f"{folder}/.hidden.jpg", f"{folder}/c.png")
    expected = [f"{folder}/a.jpg", f"{folder}/c.png", f"{folder}/b.MP4"]
    assert found(folder) == expected
    assert isinstance(open_loader([folder]), FileLoader)
    assert isinstance(open_loader([Path(folder)]), FileLoader)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("trip [1]/*.jpg", ["trip [1]/a.jpg", "trip [1]/b.jpg"]),
        ("trip [1]/?.jpg", ["trip [1]/a.jpg", "trip [1]/b.jpg"]),
        ("trip [1]/[b].jpg", ["trip [1]/b.jpg"]),
        ("trip [1]/b [2]*", ["trip [1]/b [2].jpg"]),
        ("trip*/a.jpg", ["trip 1/a.jpg", "trip [1]/a.jpg"]),
        ("trip [[]*/a.jpg", ["trip [1]/a.jpg"]),
        ("trip?1", ["trip 1/a.jpg"]),
        ("**/a.jpg", ["trip 1/a.jpg", "trip [1]/a.jpg"]),
        ("trip [1]*/**", ["trip 1/a.jpg"]),
        ("{here}/trip [1]/a*", ["trip [1]/a.jpg"]),
        ("trip [1]/b [2].jpg", ["trip [1]/b [2].jpg"]),
    ],
)
def test_parts_of_a_glob_that_exist_are_names(pattern: str, expected: list[str]) -> None:
    touch("trip 1/a.jpg", "trip [1]/a.jpg", "trip [1]/b.jpg", "trip [1]/notes.txt")
    if "[2]" in pattern:
        touch("trip [1]/b [2].jpg")
    assert found(pattern.replace("{here}", str(Path.cwd()))) == expected


def test_a_glob_typed_inside_a_folder_with_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("trip [1]/a.jpg", "trip [1]/[b].jpg")
    monkeypatch.chdir("trip [1]")
    assert found("*.jpg") == ["[b].jpg", "a.jpg"]
    assert found("[b].jpg") == ["[b].jpg"]


def test_several_sources_keep_their_order_and_what_is_no_image_is_left_out() -> None:
    touch("b/2.jpg", "b/1.jpg", "c.jpg", "a.mp4", "notes.md", "list.txt")
    Path("empty").mkdir()
    media = find_media(["c.jpg", "b", "notes.md", "a.mp4", "empty", "list.txt", "c.jpg"])
    assert [os.path.relpath(file) for file in media.files] == ["c.jpg", "b/1.jpg", "b/2.jpg", "a.mp4", "c.jpg"]
    assert media.left_out == [
        ("notes.md", "No images or videos found in notes.md"),
        ("empty", "No images or videos found in empty, the folder is empty"),
        ("list.txt", "No images or videos found in list.txt"),
    ]
    assert "notes.md: No images or videos found in notes.md" in refused("notes.md", "empty")


def test_a_list_names_sources_relative_to_here_or_to_itself() -> None:
    touch("here.jpg", "lists/there.jpg", "lists/b/x.jpg")
    Path("lists/all.txt").write_text("\ufeffhere.jpg\n\n  there.jpg \nb\nher*.jpg\n", encoding="utf-8")
    assert found("lists/all.txt") == ["here.jpg", "lists/there.jpg", "lists/b/x.jpg", "here.jpg"]
    Path("lists/all.csv").write_text('source\n"there.jpg",here.jpg\n')
    assert found("lists/all.csv") == ["lists/there.jpg", "here.jpg"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist"),
        ("no*.jpg", "No images or videos found in no*.jpg, which nothing matches"),
        ("empty", "No images or videos found in empty, the folder is empty"),
        ("full", "No images or videos found in full, which holds 2 folders such as a, 2 .txt, 1 Makefile"),
        ("full/*.txt", "No images or videos found in full/*.txt, which 2 files or folders match"),
        ("full/a.txt", "No images or videos found in full/a.txt, the list is empty"),
        ("full/Makefile", "No images or videos found in full/Makefile"),
        ("broken.jpg", "broken.jpg does not exist"),
        ("x" * 300, f"{'x' * 300} does not exist"),
        (f"rtsp://127.0.0.1:9/{'x' * 300}", f"Failed to open rtsp://127.0.0.1:9/{'x' * 300}"),
        ("itself.txt", "No images or videos found in itself.txt"),
        (97, "Failed to open 97"),
        ("97", "Failed to open 97"),
        ("rtsp://anna:secret@127.0.0.1:9/door", "Failed to open rtsp://***@127.0.0.1:9/door"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_says_why(source: str | int, reason: str) -> None:
    touch("full/a/x.jpg", "full/b/y.jpg", "full/a.txt", "full/c.txt", "full/Makefile")
    Path("empty").mkdir()
    Path("itself.txt").write_text("itself.txt")
    Path("broken.jpg").symlink_to("gone.jpg")
    assert refused(source) == f"{without_password(str(source))} cannot be read ({reason}{REMEDY}"


def test_a_picture_of_the_screen_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_source: str) -> None:
        raise ModuleNotFoundError("No module named 'mss'", name="mss")

    monkeypatch.setattr(module, "LoadScreenshots", missing)
    for source in ("screen", "screen 1"):
        assert refused(source) == f"{source} cannot be read (No module named 'mss'; run: pip install mss{REMEDY}"


def test_a_camera_is_looked_at_alone() -> None:
    touch("a.jpg")
    assert refused("a.jpg", "rtsp://anna:secret@door/1") == (
        "rtsp://***@door/1: a camera, a stream or the screen is looked at alone, found 2 sources; name it in a command "
        "of its own"
    )


# --- addresses --------------------------------------------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    """Answers with the content type that the path names."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        kind, _, length = self.path[1:].partition(":")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length:
            self.send_header("Content-Length", length)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.mark.parametrize("path", ["photo.jpg", "clip.MP4?x=1", "image/png", "image/jpeg:4", "video/mp4:4"])
def test_a_file_behind_a_url_is_never_fetched_whatever_its_address_looks_like(server: str, path: str) -> None:
    shown = path.replace("x=1", "...")
    assert refused(f"{server}/{path}") == (
        f"{server}/{shown}: files behind a URL are not fetched; download it and name the local file"
    )
    assert len(Server.asked) == ("." not in path), "it was only asked what it is"
    with pytest.raises(SourceError, match="files behind a URL are not fetched"):
        refuse_addresses([Path("a.jpg"), f"{server}/{path}"])


@pytest.mark.parametrize("path", ["multipart/x-mixed-replace", "video/mp2t", "application/vnd.apple.mpegurl:4"])
def test_what_has_no_end_is_opened_as_a_stream(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Opened(LoadStreams):
        def __init__(self, source: str, **options: object) -> None:
            opened.append((source, options))

    monkeypatch.setattr(module, "LoadStreams", Opened)
    address = f"{server}/{path}".replace("//", "//anna:secret@")
    loader = open_loader([address], vid_stride=3, buffer=True)
    assert opened == [(address, {"vid_stride": 3, "buffer": True})]
    assert (loader.source_type.stream, len(Server.asked)) == (True, 1)
    assert "secret" not in loader.sources[0]


def test_an_address_is_shown_without_its_password() -> None:
    assert without_password("rtsp://a:b@c@host:554/x@y") == "rtsp://***@host:554/x@y"
    assert without_password("http://host/a@b") == "http://host/a@b"
    assert without_password("me@home.jpg") == "me@home.jpg"


@pytest.mark.parametrize("source", ["", " "])
def test_an_empty_name_is_not_the_working_folder(source: str) -> None:
    touch("a.png")
    assert refused(source) == f"'{source}' cannot be read (it names nothing; `.` is the working folder{REMEDY}"
    assert found(".") == ["a.png"]
