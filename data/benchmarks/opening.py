"""Opens a personal benchmark: a published one by its name, or a folder of one's own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mocha_pipe.data.benchmarks.handheld import CORE50, ICUBWORLD, read_handheld, read_handheld_training
from mocha_pipe.data.benchmarks.perseg import read_perseg
from mocha_pipe.data.benchmarks.photos import object_folders, read_photos
from mocha_pipe.data.benchmarks.pod import QUERIES, read_pod
from mocha_pipe.data.benchmarks.pods import read_pods
from mocha_pipe.data.benchmarks.yaml_folder import read_yaml_folder
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.types import PersonalBenchmark


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedBenchmark:
    """A benchmark that has a name."""

    read: Callable[..., PersonalBenchmark]
    """Takes its folder, and `progress`."""
    confidence: float
    """Least score of a detection in the reference's evaluation."""
    head_epochs: int = 0
    """Epochs in which the classification branch of a detector learns the coarse classes, before the reference's
    evaluation."""
    read_training: Callable[..., PersonalBenchmark] | None = None
    """As `read`, of the images that the branch learns from; None where every image belongs to the episodes."""


PUBLISHED = {
    "perseg": PublishedBenchmark(read=read_perseg, confidence=0.1),
    **{name: PublishedBenchmark(read=partial(read_pod, name=name), confidence=0.1) for name in QUERIES},
    "pods": PublishedBenchmark(read=read_pods, confidence=0.1),
    **{
        name: PublishedBenchmark(
            read=partial(read_handheld, name=name, objects=objects), confidence=0.001, head_epochs=10,
            read_training=partial(read_handheld_training, name=name, objects=objects),
        )
        for name, objects in (("core50", CORE50), ("icubworld", ICUBWORLD))
    },
}  # fmt: skip
"""Published benchmarks by name."""


def open_benchmark(place: Path | str, data: Path | None = None, *, progress: bool = False) -> PersonalBenchmark:
    """Open a benchmark.

    Args:
        place: Key of `PUBLISHED` where `data` is given; else a folder, either with a data.yaml
            (data/benchmarks/yaml_folder.py) or with one subfolder of photographs per object (photos.py).
        data: The published benchmark's folder.
        progress: Show a bar when reading takes longer than two seconds.

    Raises:
        DatasetNotFoundError: There is no such folder.
        DatasetError: There is no benchmark of this name, or the folder breaks a rule of its layout.
        EpisodeError: A file of published episodes does.
    """
    known = ", ".join(PUBLISHED)
    if data is not None:
        if str(place) not in PUBLISHED:
            raise DatasetError(
                f"--data is the folder of a published benchmark ({known}), but --benchmark is {place}; name one of "
                "them, or leave out --data where --benchmark is a folder itself"
            )
        if not data.is_dir():
            raise DatasetNotFoundError(f"{data}: no such folder; name the one that holds {place} with --data")
        return PUBLISHED[str(place)].read(data, progress=progress)
    folder = Path(place)
    if (folder / "data.yaml").is_file():
        return read_yaml_folder(folder, progress=progress)
    if folder.is_dir():
        if object_folders(folder):
            return read_photos(folder, progress=progress)
        raise DatasetError(
            f"{folder}: a benchmark holds one subfolder of photographs per object, or a data.yaml, found neither; put "
            "them there or name another folder"
        )
    if str(place) in PUBLISHED:
        raise DatasetError(f"the benchmark {place} needs to know where it lies; name its folder with --data")
    raise DatasetNotFoundError(
        f"{folder}: no such benchmark; name a folder, or one of {known} and its folder with --data, or make the "
        "miniature one: mocha-pipe data miniature"
    )


def open_training(place: Path | str, data: Path | None, *, progress: bool = False) -> PersonalBenchmark:
    """Open the images of a published benchmark that a detector may learn its coarse classes from; as `open_benchmark`.

    Raises:
        DatasetNotFoundError: There is no such folder.
        DatasetError: The benchmark has none, or an image or label file breaks a rule.
    """
    read = PUBLISHED[str(place)].read_training if data and str(place) in PUBLISHED else None
    if data is None or read is None:
        having = " and ".join(name for name, known in PUBLISHED.items() if known.read_training)
        raise DatasetError(
            f"--head-epochs needs images that no episode is about, which {having} have, but --benchmark is {place}; "
            "leave it out"
        )
    return read(data, progress=progress)
