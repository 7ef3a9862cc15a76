"""POD (Barbato et al. 2024, arXiv 2407.01193; not public): 45 objects of 15 kinds, queries in light and in dark."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mocha_pipe.data.benchmarks.episode_files import ImageNames, read_json
from mocha_pipe.data.benchmarks.published import PublishedFolder
from mocha_pipe.data.errors import EpisodeError
from mocha_pipe.data.types import DetectionSource, PersonalBenchmark

_KINDS = (
    "book", "bottle", "can", "clock", "fruit", "glass", "glasses", "mouse", "mug", "pen", "phone", "remote", "scissors",
    "shoe", "toy",
)  # fmt: skip
OBJECTS = {f"{kind}{number}": kind for kind in _KINDS for number in range(1, 4)}
"""Personal object -> coarse class, in the order of the label ids."""

QUERIES = {
    "pod": "val_crop",
    "pod-crop-light": "val_crop_light",
    "pod-crop-dark": "val_crop_dark",
    "pod-val": "val",
    "pod-light": "val_light",
    "pod-dark": "val_dark",
}
"""Name on the command line -> folder of the query images; `pod` asks about those of the reference's evaluation."""


def read_pod(root: Path, *, name: str = "pod", progress: bool = False) -> PersonalBenchmark:
    """Read the folder of POD: support from `train`; the query of every episode is all images of one other folder.

    Layout: `train`, `val`, `val_light`, ... each with `images/` and `labels/` (or `images/train/` and `labels/train/`
    and so on, or label files beside the images); `class_to_images.json`, which lists for each object the stems of its
    support images in `train`. Without that file every image in `train` is support of what it shows.

    Args:
        root: Holds the folders.
        name: Key of `QUERIES`.
        progress: Show a bar when reading takes longer than two seconds.

    Raises:
        DatasetNotFoundError: A folder is not there.
        DatasetError: An image or label file breaks a rule, or there is no image.
        EpisodeError: `class_to_images.json` does.
    """
    folder = PublishedFolder(name=name, root=root, objects=OBJECTS)
    support, queries = folder.find("train"), folder.find(QUERIES[name])
    path = root / "class_to_images.json"
    lists = _read_lists(path, support) if path.is_file() else None
    if lists is not None:
        listed = {image for images in lists.values() for image in images}
        support = {image: file for image, file in support.items() if image in listed}
    source = folder.read({**support, **queries}, progress=progress)
    query = tuple(index for index, record in enumerate(source.records) if record.name in queries)
    return replace(folder.benchmark(source), support=_support(source, support, lists, path), query=query)


def _read_lists(path: Path, images: Iterable[str]) -> dict[str, list[str]]:
    """Object -> names of its support images."""
    content = read_json(path)
    if not isinstance(content, Mapping) or not all(
        isinstance(stems, list) and all(isinstance(stem, str) for stem in stems) for stems in content.values()
    ):
        raise EpisodeError(f"{path}: must be a map of object names to lists of image names; get the file again")
    if wrong := content.keys() ^ OBJECTS.keys():
        what = "unknown" if min(wrong) in content else "missing"
        raise EpisodeError(
            f"{path}: its objects must be the {len(OBJECTS)} of POD (book1, book2 ... toy3), but '{min(wrong)}' is "
            f"{what}; mend that name"
        )
    names, remedy = ImageNames(images), "put that image into train or take out the entry"
    return {
        thing: [names.find(stem, f"{path}: lists '{stem}' for '{thing}'", remedy) for stem in stems]
        for thing, stems in content.items()
    }


def _support(
    source: DetectionSource, images: Iterable[str], lists: Mapping[str, list[str]] | None, path: Path
) -> tuple[tuple[int, ...], ...]:
    """Per object the records that may be its support images."""
    place = {record.name: index for index, record in enumerate(source.records)}
    shown = {name: set(source.records[place[name]].class_ids.tolist()) for name in images}
    support = []
    for number, thing in enumerate(source.class_names):
        names = [name for name in shown if number in shown[name]] if lists is None else lists.get(thing, [])
        if blank := [name for name in names if number not in shown[name]]:
            raise EpisodeError(
                f"{path}: lists {blank[0]} for '{thing}', but its labels have no such object (class id {number}); take "
                "out the entry or mend the labels"
            )
        support.append(tuple(sorted({place[name] for name in names})))
    return tuple(support)
