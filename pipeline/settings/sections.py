"""The settings of a run, one class for each section of the TOML file.

A field is all that there is to a setting. Its type and range are checked wherever a value comes from: Python, a recipe
(recipes.py), the TOML file or a flag (loading.py lays one over the other). Its docstring is what `--help` says. A text
such as "--run" in an annotation is the name of a flag that is not called after its field; a field `url` shares the flag
of another field, and the flag then takes a path or a URL.
"""

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from mocha_pipe.data.config import SETTINGS, AtLeastOne, DeviceName, NotNegative, WorldSize
from mocha_pipe.student.choices import FeatureSet, LearnerName, ObjectiveName, ScheduleName, TargetScale
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig

_FOLDERS = {name: name for name in ("miniature", "cache", "distill", "fewshot", "sweep")} | {"pretrain": "base"}
_OWN_ARGUMENTS = {"epochs": "epochs", "imgsz": "image_size", "batch": "batch", "seed": "seed", "device": "device"}


def _different(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) < max(len(numbers), 1):
        raise ValueError(f"must be one number or several different ones, found {list(numbers)}")
    return numbers


def _is_part(text: str | None) -> str | None:
    index, slash, count = ("0/1" if text is None else text).partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"must be INDEX/COUNT, counted from 0, found {text!r}: eight parts are 0/8, 1/8 ... 7/8")
    return text


def _without_own(arguments: dict[str, Any]) -> dict[str, Any]:
    for name in arguments.keys() & _OWN_ARGUMENTS:
        raise ValueError(f"must not hold {name!r}, which has a setting of its own: {_OWN_ARGUMENTS[name]} (--{name})")
    return arguments


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class MiniatureConfig:
    """The procedural world."""

    folder: Path | None = None
    """Where it lies; ROOT/miniature when not given."""
    size: WorldSize = field(default_factory=WorldSize)
    """Numbers of scenes and objects."""
    seed: NotNegative = 0
    """Seed of the whole world; its three parts take disjoint streams of it."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class DataConfig:
    """The detection data set that both phases read."""

    path: Annotated[Path | None, "--data"] = None
    """data.yaml (whatever `yolo train` accepts), a COCO json, or shards of `data pack` (dataset.json, or the tars as
    'train-{000000..000031}.tar'); the miniature world when not given."""
    url: Annotated[str, "--data"] = ""
    """URL of shards (s3://.../train-{000000..000031}.tar), which are streamed."""
    window: AtLeastOne = 1000
    """Images that each worker of a stream draws the next one from; more mix better and take more memory."""
    train: str = "train"
    """Split whose boxes the teacher embeds and the student learns from."""
    val: Annotated[str, "--val"] = "val"
    """Split on which the detectors are measured, or a COCO json of their own images for that."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class CacheConfig:
    """The teacher's cache."""

    folder: Annotated[Path | None, "--cache"] = None
    """Folder of the teacher cache; ROOT/cache when not given."""
    url: Annotated[str, "--cache"] = ""
    """URL of a cache (s3://...), whose targets are fetched."""
    dim: AtLeastOne | None = None
    """Width of the targets after PCA; when not given 512, the paper's best, or less for a small teacher."""
    reuse: tuple[Path, ...] = ()
    """Cache of the same teacher, from which rows with equal keys are copied; repeatable."""
    engine: Literal["local", "ray"] = "local"
    """Who embeds: this process (and others like it, each for itself), or the workers of a Ray cluster."""
    part: Annotated[str | None, AfterValidator(_is_part)] = None
    """INDEX/COUNT: only this part of the shards; 2/8 is the third of eight, counted from 0."""
    retry_failed: bool = False
    """First try again the regions that were set aside."""

    @property
    def part_numbers(self) -> tuple[int, int] | None:
        """Index and count of `part`."""
        if self.part is None:
            return None
        index, _, count = self.part.partition("/")
        return int(index), int(count)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class TrainingConfig:
    """What both training stages tell ultralytics."""

    folder: Annotated[Path | None, "--run"] = None
    """Folder of the training run; ROOT/base or ROOT/distill when not given."""
    epochs: AtLeastOne = 50
    """Passes over the training split."""
    image_size: Annotated[int, Field(ge=32), "--imgsz"] = 640
    """Side of the square that images are letterboxed into, pixels."""
    batch: AtLeastOne = 16
    """Images per step."""
    seed: NotNegative = 0
    """Seed of weights and augmentation; equal seeds repeat a run."""
    device: DeviceName = "auto"
    """cpu, mps, cuda, cuda:1 or 1, several as 0,1; `auto` is CUDA where there is one, else the CPU."""
    train: Annotated[dict[str, Any], AfterValidator(_without_own), "--set"] = field(default_factory=dict)
    """Any other argument of `yolo train`, passed on untouched; repeatable."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PretrainConfig(TrainingConfig):
    """Stage 1 of the paper: a plain ultralytics run that makes the base detector."""

    model: str = "yolov8n.yaml"
    """An ultralytics model: .yaml starts from scratch, .pt goes on from its weights."""
    epochs: AtLeastOne = 100
    """Passes over the training split."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class DistillConfig(TrainingConfig):
    """Stage 2 of the paper: the detector learns the cached targets beside its own task."""

    student: str | None = None
    """Detector to start from, .pt or .yaml; the base detector (pretrained first if need be) when not given."""
    features: FeatureSet = "deep"
    """What a region's features are made of: maxima of the end of the backbone and of a last stage of the student's own
    (`deep`, for photographs), the means of the head's inputs (`paper`), these and patches of strides 2 and 4 (`fine`,
    for the miniature world), or the head's inputs as the paper's authors pool and translate them (`reference`)."""
    objective: Literal[ObjectiveName, "best"] = "paper"
    """What the student's embeddings are asked to have in common with the teacher's (docs/objectives.md); `best` is the
    one that came first on the miniature's validation world."""
    schedule: ScheduleName | None = None
    """Whether the detector learns in every epoch (`joint`), in every fourth as in the paper (`alternate`), or stays as
    it is (`frozen`); when not given `frozen` for trained weights that --student names, else `joint`."""
    detector_rate: Annotated[float | None, Field(gt=0)] = None
    """The detector's learning rate as a share of lr0, at which the new parts learn; when not given 0.1 as in the paper,
    or 1 where it starts from a .yaml."""
    lambda_dist: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the objective's local loss; L_dist in `paper`."""
    lambda_emb: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the objective's relational loss; L_emb in `paper`."""
    target_scale: TargetScale = "whitened"
    """Targets of equal variance (`whitened`), or on the curve that the paper's authors fitted to their teacher
    (`reference`)."""
    average: bool = True
    """Whether the student is the moving average of the weights, or the weights of the last step."""
    warmup_steps: AtLeastOne | None = None
    """Steps in which the rates rise from 0; when not given as `warmup_epochs` of `yolo train` says."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class FewshotConfig:
    """Stage 3 of the paper: prototypes from a few images of each personal object."""

    benchmark: Path | None = None
    """Folder of the personal benchmark, or with --data (benchmark_data) the name of a published one; the miniature's
    when not given."""
    benchmark_data: Annotated[Path | None, "--data"] = None
    """Folder of a published benchmark: perseg, pod, core50 ..."""
    folder: Annotated[Path | None, "--out"] = None
    """Folder for report.json and report.html; ROOT/fewshot when not given."""
    run: Path | None = None
    """Folder of the distillation to evaluate; the last one completed under ROOT when not given."""
    base: str | None = None
    """Weights of the base detector (.pt); those that the distillation started from when not given."""
    shots: Annotated[tuple[AtLeastOne, ...], AfterValidator(_different)] = (1,)
    """Images per personal object; one result for each number, all on the same episodes."""
    episodes: AtLeastOne = 100
    """Draws of support and query."""
    queries: AtLeastOne | None = None
    """Query images per episode; all images outside the support when not given."""
    seed: NotNegative = 0
    """Seed of the episodes, of the bootstrap and of what --head-epochs trains."""
    learner: LearnerName | None = None
    """Prototype learner; when not given `simpleshot` for features `deep`, else the reference's `conditional`. The
    detector's class matters to that one alone."""
    confidence: Annotated[float | None, Field(ge=0, le=1)] = None
    """Least score of a detection that is evaluated; when not given the reference's for a published benchmark, 0.1 for
    others."""
    head_epochs: NotNegative | None = None
    """Passes in which the classification branches of student and base detector first learn the benchmark's coarse
    classes, on images that no episode is about; when not given the reference's 10 for core50 and icubworld, else 0."""
    false_accept_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of strangers that may get a name, which sets the threshold above which the student gives one."""
    teacher: bool = True
    """Whether the live teacher is run as the oracle row."""
    device: DeviceName = "auto"
    """cpu, mps, cuda, cuda:1 or 1; `auto` is CUDA where there is one, else the CPU."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class SweepConfig:
    """Students that differ in a few settings of [distill], compared by the few-shot figures that [fewshot] asks for."""

    seeds: Annotated[tuple[NotNegative, ...], AfterValidator(_different)] = (0, 1, 2)
    """Training seeds of the distillations; each variant is trained once with each."""
    shots: Annotated[tuple[AtLeastOne, ...], AfterValidator(_different)] = (1, 5)
    """Images per personal object, in place of [fewshot]'s; the table is sorted by accuracy at the first number."""
    benchmark: Path | None = None
    """Folder of the personal benchmark to measure on; when not given ROOT/validation, which a sweep on the miniature
    world makes."""
    folder: Annotated[Path | None, "--out"] = None
    """Folder for the runs and sweep.json; ROOT/sweep when not given."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class RunConfig:
    """Everything that a run is made from."""

    root: Path = Path("work")
    """Folder for whatever has no folder of its own."""
    miniature: MiniatureConfig = MiniatureConfig()
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig(model="miniature")
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
        folders = {
            section: replace(getattr(self, section), folder=getattr(self, section).folder or self.root / folder)
            for section, folder in _FOLDERS.items()
        }
        folders["distill"] = _with_schedule(folders["distill"])
        data = replace(self.data, path=self.data.path or self.miniature_folder / "data.yaml")
        benchmark = self.fewshot.benchmark or self.miniature_folder / "benchmark"
        fewshot = replace(folders.pop("fewshot"), benchmark=benchmark, **_reference_settings(self.fewshot))
        return replace(self, data=data, fewshot=fewshot, **folders)


def _with_schedule(settings: DistillConfig) -> DistillConfig:
    """The settings with what follows from the student where it was not given."""
    suffix = Path(settings.student or "").suffix.lower()
    schedule: ScheduleName = "frozen" if suffix == ".pt" else "joint"
    return replace(
        settings, schedule=settings.schedule or schedule,
        detector_rate=settings.detector_rate or (1.0 if suffix in (".yaml", ".yml") else 0.1),
    )  # fmt: skip


def _reference_settings(settings: FewshotConfig) -> dict[str, Any]:
    """What the reference evaluates a published benchmark with, where nothing else was given."""
    from mocha_pipe.data.benchmarks.opening import PUBLISHED

    published = PUBLISHED.get(str(settings.benchmark)) if settings.benchmark_data else None
    reference = {
        "confidence": published.confidence if published else 0.1,
        "head_epochs": published.head_epochs if published else 0,
    }
    return {name: value for name, value in reference.items() if getattr(settings, name) is None}
