"""Every number that the study of photographs is made with, and its settings as the product takes them."""

from dataclasses import dataclass, replace
from pathlib import Path

from mocha_pipe.data.unlabelled.mixing import RegionChoice
from mocha_pipe.pipeline.settings.sections import CacheConfig, DataConfig, DistillConfig, RunConfig
from mocha_pipe.student.choices import FeatureSet
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

REGIONS = RegionChoice(whole=True, crops=1, val_share=0.2)
DIM = 256
"""Width of the targets."""
FEATURES: tuple[FeatureSet, ...] = ("deep", "paper")
"""What students are made with; the first is the default."""
EPOCHS, IMAGE_SIZE, BATCH = 3, 320, 16
"""Of the students."""

SHOTS, EPISODES, RESERVE = (1, 3), 50, 3
"""Of the episodes; so many pictures of each object are never asked about."""

CONFIDENCE = 0.1
"""Of detections, when objects are learnt and when they are looked for."""
FALSE_ACCEPT_RATE = 0.05

JOINT_EPOCHS, JOINT_IMAGE_SIZE = 2, 320
"""Of the distillation in which the detector learns too."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the study runs on, and where its results lie."""

    root: Path
    subjects: Path
    """Personal objects, a folder of pictures each."""
    objects: Path
    """Pictures of other things, which the students are distilled on."""
    detector: Path
    teacher: str
    """Hub id or folder."""
    seeds: tuple[int, ...]
    epochs: int = EPOCHS

    @property
    def regions(self) -> Path:
        """Data set of the regions of `objects`."""
        return self.root / "regions"

    def config(self) -> RunConfig:
        """Settings of cache and distillation on `objects`."""
        return replace(
            self.config_of(self.regions / "data.yaml", "cache"),
            distill=DistillConfig(student=str(self.detector), schedule="frozen"),
        ).resolved()

    def config_of(self, data: Path, cache: str) -> RunConfig:
        """Settings of the cache, called so, of a data set."""
        return RunConfig(
            root=self.root,
            data=DataConfig(path=data),
            teacher=TeacherConfig(model=self.teacher),
            cache=CacheConfig(folder=self.root / cache, dim=DIM),
        )

    def run_folder(self, features: FeatureSet, seed: int) -> Path:
        """Where a student is distilled."""
        return self.root / features / f"seed-{seed}"

    def student(self, features: FeatureSet, seed: int) -> Path:
        """The folder of a distilled student."""
        return self.run_folder(features, seed) / "student"
