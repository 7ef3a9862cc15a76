"""Opens what a source names: files, or alone a camera, a stream or the screen.

Files behind a URL are never fetched; a URL is that of a stream.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

from ultralytics.data.loaders import LoadScreenshots, LoadStreams, SourceTypes
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS
from ultralytics.utils.ops import clean_str

from mocha_pipe.data.errors import first_line
from mocha_pipe.student.personal.media.files import SourceError, exists, find_media, unreadable
from mocha_pipe.student.personal.media.loader import FileLoader

_STREAMS = ("rtsp://", "rtmp://", "tcp://")
_WEB = ("http://", "https://")
_SECONDS = 3.0  # until a server has answered


def open_loader(
    sources: Sequence[str | int | Path], *, batch: int = 1, vid_stride: int = 1, buffer: bool = False
) -> Any:
    """What reads the sources, as ultralytics' predictors take it.

    Args:
        sources: images, videos, folders and globs, one after the other; or alone a camera's index, the URL of a stream,
            `screen`, or a file that lists sources (`.txt`, `.csv`, or `.streams` for several streams at once).
        batch: most images at once.
        vid_stride: every so many frames of a video or stream one is looked at.
        buffer: queue the frames of a stream, and do not skip to the newest.

    Raises:
        SourceError: there is no such thing, it cannot be opened, or it is not to be looked at in this way.
    """
    live = [str(source) for source in sources if _is_live(source)]
    if not live:
        media = find_media([str(source) for source in sources])
        return FileLoader(media.files, media.left_out, batch=batch, vid_stride=vid_stride)
    if len(sources) > 1:
        raise SourceError(
            f"{without_password(live[0])}: a camera, a stream or the screen is looked at alone, found {len(sources)} "
            "sources; name it in a command of its own"
        )
    return _open_live(live[0], vid_stride, buffer)


def refuse_addresses(sources: Iterable[Any]) -> None:
    """Raises SourceError where one of the images that are handed over is a URL."""
    for source in sources:
        if isinstance(source, str) and source.lower().startswith(_WEB):
            raise _not_fetched(source)


def without_password(address: str) -> str:
    """An address as messages and file names may show it."""
    user, at, host = urlsplit(address).netloc.rpartition("@") if "://" in address else ("", "", "")
    return address.replace(f"{user}{at}{host}", f"***@{host}", 1) if at else address


def _is_live(source: str | int | Path) -> bool:
    text = str(source).lower()
    if isinstance(source, int):
        return True
    if exists(Path(source)):
        return text.endswith(".streams") and Path(source).is_file()
    return text.isdecimal() or text.partition(" ")[0] == "screen" or text.startswith((*_STREAMS, *_WEB))


def _open_live(source: str, vid_stride: int, buffer: bool) -> Any:
    is_list = exists(Path(source))
    if source.lower().startswith(_WEB) and not is_list:
        _refuse_file(source)
    try:
        if source.lower().partition(" ")[0] == "screen" and not is_list:
            loader = LoadScreenshots(source)
            loader.source_type = SourceTypes(screenshot=True)
            return loader
        loader = LoadStreams(source, vid_stride=vid_stride, buffer=buffer)
        addresses = Path(source).read_text(encoding="utf-8-sig").split() if is_list else [source]
        loader.sources = [clean_str(without_password(each)).replace(os.sep, "_") for each in addresses]
        loader.source_type = SourceTypes(stream=True)
    except ImportError as error:
        raise unreadable(source, f"{first_line(error)}; run: pip install {error.name}") from error
    except Exception as error:  # of drivers, servers and displays, which raise what they like
        reason = first_line(error).rpartition("... ")[2]  # after the number of the stream
        shown = without_password(source)
        raise unreadable(shown, reason.replace(source, shown)) from None
    return loader


def _refuse_file(address: str) -> None:
    """Raises SourceError where a web address is that of a file; what has no end is a stream."""
    if urlsplit(address.lower()).path.rpartition(".")[-1] in IMG_FORMATS | VID_FORMATS:
        raise _not_fetched(address)
    import requests  # only where there is an address

    try:
        with requests.get(address, stream=True, timeout=_SECONDS) as answer:
            kind, length = answer.headers.get("Content-Type", ""), answer.headers.get("Content-Length")
    except requests.RequestException:
        return  # whoever opens the stream will say what is wrong
    if kind.startswith("image/") or (kind.startswith("video/") and length):
        raise _not_fetched(address)


def _not_fetched(address: str) -> SourceError:
    return SourceError(
        f"{without_password(address)}: files behind a URL are not fetched; download it and name the local file"
    )
