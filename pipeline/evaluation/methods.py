"""The rows of the few-shot table: what each method detects in all scenes of the benchmark, and its embeddings.

`histogram`, `mocha` and `teacher` name the student's detections, so that they differ in the embedding alone; `yolo` is
the base detector with its own detections and the means of what enters its own head.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, PersonalBenchmark
from mocha_pipe.pipeline.errors import ConfigError, StageMissingError
from mocha_pipe.pipeline.evaluation.coarse import with_coarse_classes
from mocha_pipe.pipeline.evaluation.heads import tune_heads
from mocha_pipe.pipeline.markers import Completion
from mocha_pipe.pipeline.run.devices import torch_device
from mocha_pipe.pipeline.run.inputs import teacher_config, teacher_of_cache
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.choices import default_learner
from mocha_pipe.student.fewshot.histogram import colour_histogram
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.student.network.student_files import DETECTOR_FILE, Student, load_student, student_features
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.projecting.whitening import whiten
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.teachers.loading import load_teacher

_HISTOGRAM_SIDE = 64  # pixels; the histogram of a crop hardly depends on it

Describe = Callable[[Sequence[NDArray[np.uint8]], Sequence[str]], NDArray[np.float32]]
"""Crops (h, w, 3) and the coarse name of each -> (n, D) embeddings."""


def pool_passes(
    settings: FewshotConfig, run: Completion, benchmark: PersonalBenchmark
) -> tuple[PersonalBenchmark, dict[str, PoolPass], list[str]]:
    """One pass over the scenes per method, in the order of the table; notes on what was done and what is left out.

    The benchmark comes back with the student's classes as its coarse classes, and those of the passes are the same.

    Raises:
        DatasetError: the student or the base detector does not know all coarse classes of the benchmark.
        ConfigError, StageMissingError: there is no base detector to compare with.
    """
    folder, weights = run.path("student"), base_weights(settings, run)
    student = load_student(folder)
    base = replace(load_student(weights), image_size=student.image_size)
    own = "" if settings.benchmark_data else "mend its coarse classes in data.yaml or coarse.yaml, or "
    remedy = f"{own}name another benchmark with --benchmark, or student with --run"
    in_students = with_coarse_classes(benchmark, student.class_names, "student", remedy)
    with_coarse_classes(
        benchmark, base.class_names, "base detector", "name one trained on them with --base (see mocha-pipe pretrain)"
    )
    benchmark = in_students
    (student, base), notes = tune_heads(settings, {"mocha": (student, folder / DETECTOR_FILE), "yolo": (base, weights)})
    mocha = pool_pass(student, benchmark.source, settings)
    passes = {
        "histogram": _described(
            mocha, benchmark, _histograms, margin=0.0, size=_HISTOGRAM_SIDE, title="colour histograms"
        ),
        "yolo": _in_classes(pool_pass(base, benchmark.source, settings), base.class_names, student.class_names),
        "mocha": mocha,
    }
    if settings.teacher:
        try:
            describe, spec = _load_oracle(run.path("cache"))
        except (MochaError, ImportError) as error:
            notes.append(f"The row 'teacher' is left out: {error}")
        else:
            passes["teacher"] = _described(
                mocha, benchmark, describe, margin=spec.crop_margin, size=spec.crop_size, title="live teacher"
            )
    return benchmark, passes, notes


def pool_pass(student: Student, source: DetectionSource, settings: FewshotConfig) -> PoolPass:
    """A student's own detections and embeddings."""
    assert settings.confidence is not None, "the configuration is resolved"
    embedder = RegionEmbedder(
        student, image_size=student.image_size, confidence=settings.confidence, device=torch_device(settings.device)
    )
    return embedder.embed_pool(source, progress=True)


def _described(
    pool: PoolPass, benchmark: PersonalBenchmark, describe: Describe, *, margin: float, size: int, title: str
) -> PoolPass:
    """The same detections and true boxes with embeddings of their crops; each scene is decoded once."""
    coarse_names = np.array(benchmark.coarse_names)
    detections, regions = [], []
    for index, record in enumerate(tqdm(benchmark.source.records, desc=title, unit="image")):
        first, last = np.searchsorted(pool.detection_image, [index, index + 1])
        boxes = np.concatenate([pool.detection_xyxy[first:last], record.xyxy])
        coarse = np.concatenate([pool.detection_coarse[first:last], benchmark.coarse_of[record.class_ids]])
        if not len(boxes):
            continue
        image = read_image(record.path)
        rows = describe([cut_crop(image, box, margin, size) for box in boxes], coarse_names[coarse].tolist())
        detections.append(rows[: last - first])
        regions.append(rows[last - first :])
    return pool.with_embeddings(np.concatenate(detections), np.concatenate(regions))


def _histograms(crops: Sequence[NDArray[np.uint8]], _names: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([colour_histogram(crop) for crop in crops])


def _load_oracle(cache_folder: Path) -> tuple[Describe, TeacherSpec]:
    """The teacher that made a cache, behind the cache's projection.

    Raises:
        MochaError: cache or teacher cannot be loaded, or the teacher is another one.
    """
    cache = RegionCache.open(cache_folder)
    projection, config = cache.projection(), teacher_of_cache(cache, None)
    teacher = load_teacher(teacher_config(config))
    differences = cache.spec.exact.differences(teacher.spec)
    if differences:
        raise ConfigError(
            f"the teacher {config.model} is not the one that made {cache_folder} ({'; '.join(differences)})"
        )

    def describe(crops: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> NDArray[np.float32]:
        embeddings = teacher.embed(crops, names)
        return whiten(projection, embeddings.hidden, embeddings.visual)

    return describe, cache.spec


def with_learner(settings: FewshotConfig, student: Path) -> FewshotConfig:
    """The settings with the learner of a student's folder, where no other was given."""
    return replace(settings, learner=settings.learner or default_learner(student_features(student)))


def base_weights(settings: FewshotConfig, run: Completion) -> Path:
    """Weights of the detector that the student is compared with.

    Raises:
        ConfigError, StageMissingError: there is none, or it is gone.
    """
    if not (settings.base or run.outputs["base"]):
        raise ConfigError(
            f"{run.folder} was distilled from random weights, so there is no base detector to compare with: "
            "name one with --base weights.pt"
        )
    weights = Path(settings.base) if settings.base else run.path("base")
    if not weights.is_file():
        raise StageMissingError(f"the base detector {weights} is not there: name its weights with --base weights.pt")
    return weights


def _in_classes(pool: PoolPass, own: Sequence[str], wanted: Sequence[str]) -> PoolPass:
    """The pass with class ids of another list, matched by name; a class that the list lacks gets an id behind it."""
    ids = {name.casefold(): number for number, name in enumerate(wanted)}
    table = np.array([ids.get(name.casefold(), len(wanted) + number) for number, name in enumerate(own)], np.int64)
    return replace(pool, detection_coarse=table[pool.detection_coarse])
