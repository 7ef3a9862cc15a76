"""Episode files of published benchmarks: a JSON list of `{"train": [image names], "val": [image names]}`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mocha_pipe.data.errors import EpisodeError
from mocha_pipe.data.images import IMAGE_SUFFIXES
from mocha_pipe.data.parsing import parse_json
from mocha_pipe.data.types import DetectionSource, PublishedEpisode

_SHAPE = 'a list of {"train": [image names], "val": [image names]}'


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeFile:
    """An episode file, with the names of the images that its entries stand for."""

    path: Path
    episodes: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """Support images and query images, per episode."""

    @property
    def images(self) -> frozenset[str]:
        """Every image that some episode names."""
        return frozenset(name for episode in self.episodes for names in episode for name in names)

    def placed(self, source: DetectionSource, shots: int | None = None) -> tuple[int, tuple[PublishedEpisode, ...]]:
        """Number of shots of the episodes, and the episodes with their images as indexes of a source's records.

        Args:
            source: Holds every image that is named.
            shots: Support images of each object; where None, as many as every episode has for every object.

        Raises:
            EpisodeError: An object has too few support images.
        """
        place = {record.name: index for index, record in enumerate(source.records)}
        episodes = tuple(
            PublishedEpisode(train=tuple(place[name] for name in train), val=tuple(place[name] for name in val))
            for train, val in self.episodes
        )
        shown = [set(record.class_ids.tolist()) for record in source.records]
        counts = [  # of support images, by episode and object
            [sum(number in shown[image] for image in episode.train) for number in range(len(source.class_names))]
            for episode in episodes
        ]
        shots = max(1, min(map(min, counts))) if shots is None else shots
        for index, count in enumerate(counts):
            for name, found in zip(source.class_names, count, strict=True):
                if found < shots:
                    raise EpisodeError(
                        f"{self.path}: every object must be in {shots} of the images in 'train', but episode {index} "
                        f"has {found} of '{name}'; get the file again, or move it away to draw episodes in its place"
                    )
        return shots, episodes


def read_episode_file(path: Path, images: Iterable[str]) -> EpisodeFile:
    """Read an episode file whose names stand for some of the given images.

    An entry may leave out folders and suffix of an image, or begin with folders of its author's machine.

    Raises:
        EpisodeError: The file has another form, an entry stands for no image or several, or an image is both support
            and query of an episode.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        kind = "an empty list" if content == [] else f"a {type(content).__name__}"
        raise EpisodeError(f"{path}: must be {_SHAPE}, found {kind}; get the file again")
    names = ImageNames(images)
    episodes = []
    for number, entry in enumerate(content):
        train, val = (_resolved(path, number, entry, key, names) for key in ("train", "val"))
        if both := sorted(set(train) & set(val)):
            raise EpisodeError(
                f"{path}: an image that teaches must not be asked about, but episode {number} has {both[0]} in 'train' "
                "and in 'val'; take it out of one"
            )
        episodes.append((train, val))
    return EpisodeFile(path=path, episodes=tuple(episodes))


def read_json(path: Path) -> Any:
    """Content of a JSON file that a benchmark was published with.

    Raises:
        EpisodeError: It is not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise EpisodeError(f"{path}: must be JSON, found {error}; get the file again") from None


class ImageNames:
    """Finds images by names that may lack the suffix, lack folders, or have more folders before them."""

    def __init__(self, images: Iterable[str]) -> None:
        self._by_tail: dict[str, str | None] = {}
        for name in images:
            for tail in _tails(name):
                self._by_tail[tail] = None if tail in self._by_tail else name

    def find(self, entry: str, listed: str, remedy: str) -> str:
        """The image that an entry stands for.

        Raises:
            EpisodeError: There is none, or there are several: `listed` (which says where the entry is), and the remedy.
        """
        tail = next((tail for tail in _tails(entry) if tail in self._by_tail), None)
        if tail is None or (name := self._by_tail[tail]) is None:
            what = "is no image there" if tail is None else "stands for several images"
            raise EpisodeError(f"{listed}, which {what}; {remedy}")
        return name


def _tails(name: str) -> Iterator[str]:
    """A name without its suffix, then without its first folder, and so on."""
    path = PurePosixPath(name)
    parts = (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).parts
    return ("/".join(parts[first:]) for first in range(len(parts)))


def _resolved(path: Path, number: int, entry: Any, key: str, names: ImageNames) -> tuple[str, ...]:
    listed = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise EpisodeError(
            f"{path}: must be {_SHAPE}, but episode {number} has no list of names under '{key}'; get the file again"
        )
    remedy = "get images and file of one version, or move the file away to draw episodes in its place"
    found = (names.find(name, f"{path}: episode {number} has '{name}' in '{key}'", remedy) for name in listed)
    return tuple(dict.fromkeys(found))
