"""What the published benchmarks share: YOLO labels whose class ids are personal objects, and folders of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mocha_pipe.data.coarse import COARSE_NAMES
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.readers.layout import YoloLayout
from mocha_pipe.data.readers.listing import FoundImages, find_images
from mocha_pipe.data.readers.yolo import read_images
from mocha_pipe.data.source import without_errors
from mocha_pipe.data.types import DetectionSource, PersonalBenchmark

_SCENES = "scenes"  # the name of the split that the reader of YOLO layouts is given


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFolder:
    """The folder of a published benchmark, and what its label ids mean."""

    name: str
    """Name of the benchmark on the command line."""
    root: Path
    objects: Mapping[str, str]
    """Personal object -> coarse class, in the order of the label ids."""

    def find(self, folder: str) -> dict[str, Path]:
        """All images of a folder by their names below the root; `images/NAME` stands in for a folder `NAME`.

        Raises:
            DatasetNotFoundError: The folder is not there.
            DatasetError: There is no image in it.
        """
        root = self.root.resolve()
        entries = [entry for entry in (folder, f"images/{folder}") if (root / entry).resolve().is_relative_to(root)]
        entry = next((entry for entry in entries if (root / entry).is_dir()), None)
        if entry is None:
            raise DatasetNotFoundError(
                f"{self.root}: {self.name} has a folder '{folder}', which is not in it; name the folder that holds it "
                "with --data"
            )
        found = find_images(self._layout(entry), _SCENES)
        if found.problems:
            raise DatasetError(f"{found.problems[0].where}: {found.problems[0].message}")
        if not found.images:
            raise DatasetError(
                f"{self.root}: no image of {self.name} in {(root / entry).resolve()}; put its images there"
            )
        return found.images

    def read(self, images: Mapping[str, Path], *, progress: bool) -> DetectionSource:
        """Read headers and label files of some of the images.

        Raises:
            DatasetError: An image cannot be read or a label file breaks a rule.
        """
        found = FoundImages(self.root.resolve(), dict(images), [])
        return without_errors(read_images(self._layout("."), _SCENES, found, progress=progress))

    def benchmark(self, source: DetectionSource) -> PersonalBenchmark:
        """The benchmark over a source, without episodes; its coarse classes are those that some object belongs to."""
        coarse_names = tuple(name for name in COARSE_NAMES if name in self.objects.values())
        return PersonalBenchmark(
            name=self.name,
            source=source,
            coarse_names=coarse_names,
            coarse_of=np.array([coarse_names.index(coarse) for coarse in self.objects.values()], np.int64),
        )

    def _layout(self, entry: str) -> YoloLayout:
        return YoloLayout(
            file=self.root,
            root=self.root.resolve(),
            class_names=tuple(self.objects),
            keypoint_numbers=0,
            entries={_SCENES: entry},
        )
