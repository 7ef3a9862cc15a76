"""The settings of a run, one dataclass per section of the TOML file.

A recipe (recipes.py) gives a whole configuration; loading.py lays the TOML file and then the
command line's flags over it; `RunConfig.resolved` fills in the folders that nobody named.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mocha_pipe.data.benchmarks.opening import PUBLISHED
from mocha_pipe.data.miniature import WorldSize
from mocha_pipe.student.choices import FeatureSet, ObjectiveName, ScheduleName
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig


@dataclass(frozen=True, kw_only=True)
class MiniatureConfig:
    """The procedural world."""

    folder: Path | None = None
    """Where it lies; ROOT/miniature when not given."""
    size: WorldSize = field(default_factory=WorldSize)
    """Numbers of scenes and objects."""
    seed: int = 0
    """Seed of the whole world; its three parts take disjoint streams of it."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The detection data set that both phases read."""

    path: Path | None = None
    """`data.yaml` (whatever `yolo train` accepts), a COCO json, or shards of `data pack` (dataset.json, or the tars as
    `train-{000000..000031}.tar`); the miniature world when not given."""
    url: str = ""
    """Shards behind a URL (`s3://.../train-{000000..000031}.tar`), which `distill` streams in place of that."""
    window: int = 1000
    """Images that each worker of a stream draws the next one from; more mix better and take more memory."""
    train: str = "train"
    """Split whose boxes the teacher embeds and the student learns from."""
    val: str = "val"
    """Split on which the detectors are measured."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The teacher's cache."""

    folder: Path | None = None
    """Where the cache lies; ROOT/cache when not given."""
    url: str | None = None
    """A cache elsewhere (`s3://...`), whose targets `distill` reads in place of the folder's."""
    dim: int | None = None
    """Width of the targets after PCA; when not given 512, the paper's best, or less for a small teacher."""
    reuse: tuple[Path, ...] = ()
    """Other caches of the same teacher; rows with equal keys are copied from them."""
    engine: Literal["local", "ray"] = "local"
    """Who embeds: this process (and others like it, each for itself), or the workers of a Ray cluster."""
    part: str | None = None
    """`2/8`: only the third of eight parts of the shards, counted from 0."""
    retry_failed: bool = False
    """First try again the regions that were set aside."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What both training stages tell ultralytics."""

    folder: Path | None = None
    """Where the run lies; ROOT/base or ROOT/distill when not given."""
    epochs: int = 50
    """Passes over the training split."""
    image_size: int = 640
    """Side of the square that images are letterboxed into, pixels."""
    batch: int = 16
    """Images per step."""
    seed: int = 0
    """Seed of weights and augmentation."""
    device: str = ""
    """As ultralytics names devices: `cpu`, `0`, `0,1`; empty lets it choose."""
    train: dict[str, Any] = field(default_factory=dict)
    """Further arguments of ultralytics' trainer, passed on untouched."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Stage 1 of the paper: a plain ultralytics run that makes the base detector."""

    model: str = "yolov8n.yaml"
    """An ultralytics model: `.yaml` starts from scratch, `.pt` goes on from its weights."""
    epochs: int = 100
    """Passes over the training split."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """Stage 2 of the paper: the detector learns the cached targets beside its own task."""

    student: str | None = None
    """Detector to start from, `.pt` or `.yaml`; the base detector (pretrained first if need be) when not given."""
    features: FeatureSet = "fine"
    """What a region's features are made of: `paper` is the means of P3-P5, `fine` adds patches of strides 2 and 4."""
    objective: Literal[ObjectiveName, "best"] = "paper"
    """What the student's embeddings are asked to have in common with the teacher's (objectives.py); `best` is
    the one that came first on the miniature's validation world (docs/objectives.md)."""
    schedule: ScheduleName = "joint"
    """Whether the detector learns in every epoch, or in every fourth as in the paper (alternation.py)."""
    lambda_dist: float = 1.0
    """Weight of the objective's local loss; L_dist in `paper`."""
    lambda_emb: float = 1.0
    """Weight of the objective's relational loss; L_emb in `paper`."""


@dataclass(frozen=True, kw_only=True)
class FewshotConfig:
    """Stage 3 of the paper: prototypes from a few images of each personal object."""

    benchmark: Path | None = None
    """Folder of the personal benchmark, or with `benchmark_data` a published one's name; the miniature's when not
    given."""
    benchmark_data: Path | None = None
    """Folder of the published benchmark."""
    folder: Path | None = None
    """Where report.json and report.html go; ROOT/fewshot when not given."""
    run: Path | None = None
    """Folder of the distillation to evaluate; the last one completed under ROOT when not given."""
    base: str | None = None
    """Weights of the base detector; those that the distillation started from when not given."""
    shots: tuple[int, ...] = (1,)
    """Images per personal object; one result for each number, all on the same episodes."""
    episodes: int = 100
    """Draws of support and query."""
    queries: int | None = None
    """Query images per episode; all images outside the support when not given."""
    seed: int = 0
    """Seed of the episodes, of the bootstrap and of what `head_epochs` trains."""
    learner: str = "conditional"
    """Prototype learner: `conditional` (the reference's), `gallery`, `protonet` or `simpleshot`."""
    confidence: float | None = None
    """Least score of a detection that is evaluated; when not given the reference's for a published benchmark, 0.1 for
    others."""
    head_epochs: int | None = None
    """Passes in which the classification branches of student and base detector first learn the benchmark's coarse
    classes, on images that no episode is about; when not given the reference's 10 for core50 and icubworld, else 0."""
    false_accept_rate: float = 0.05
    """Of the threshold above which the student gives a name: share of strangers that may get one."""
    teacher: bool = True
    """Also run the live teacher as the oracle row."""
    device: str = ""
    """As ultralytics names devices; empty lets it choose."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Students that differ in a few settings of [distill], compared by the few-shot figures that [fewshot] asks for."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of the distillations; each variant is trained once with each."""
    shots: tuple[int, ...] = (1, 5)
    """Images per personal object, in place of [fewshot]'s; the table is sorted by accuracy at the first number."""
    benchmark: Path | None = None
    """Folder of the personal benchmark to measure on; ROOT/validation, which a sweep makes where the data set is the
    miniature world, when not given."""
    folder: Path | None = None
    """Where the runs and sweep.json go; ROOT/sweep when not given."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run is made from."""

    root: Path = Path("work")
    """Folder for whatever was not given a folder of its own."""
    miniature: MiniatureConfig = MiniatureConfig()
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = field(default_factory=lambda: TeacherConfig(model="miniature"))
    cache: CacheConfig = CacheConfig()
    pretrain: PretrainConfig = PretrainConfig()
    distill: DistillConfig = DistillConfig()
    fewshot: FewshotConfig = FewshotConfig()
    sweep: SweepConfig = SweepConfig()

    @property
    def miniature_folder(self) -> Path:
        """Where the procedural world lies."""
        return self.miniature.folder or self.root / "miniature"

    @property
    def validation_folder(self) -> Path:
        """Where the personal benchmark lies on which settings are chosen."""
        return self.root / "validation"

    @property
    def uses_miniature(self) -> bool:
        """Whether the data set is the procedural world under this root."""
        if self.data.url:
            return False
        return self.data.path is None or self.data.path.resolve() == (self.miniature_folder / "data.yaml").resolve()

    def resolved(self) -> "RunConfig":
        """The same configuration with every folder that nobody named filled in."""
        return replace(
            self,
            miniature=replace(self.miniature, folder=self.miniature_folder),
            data=replace(self.data, path=self.data.path or self.miniature_folder / "data.yaml"),
            cache=replace(self.cache, folder=self.cache.folder or self.root / "cache"),
            pretrain=replace(self.pretrain, folder=self.pretrain.folder or self.root / "base"),
            distill=replace(self.distill, folder=self.distill.folder or self.root / "distill"),
            fewshot=replace(
                self.fewshot,
                benchmark=self.fewshot.benchmark or self.miniature_folder / "benchmark",
                folder=self.fewshot.folder or self.root / "fewshot",
                **_reference_settings(self.fewshot),
            ),
            sweep=replace(self.sweep, folder=self.sweep.folder or self.root / "sweep"),
        )


def _reference_settings(settings: FewshotConfig) -> dict[str, Any]:
    """What the reference evaluates a published benchmark with, where nothing else was given."""
    published = PUBLISHED.get(str(settings.benchmark)) if settings.benchmark_data else None
    confidence, head_epochs = settings.confidence, settings.head_epochs
    if confidence is None:
        confidence = published.confidence if published else 0.1
    if head_epochs is None:
        head_epochs = published.head_epochs if published else 0
    return {"confidence": confidence, "head_epochs": head_epochs}
