"""The few-shot stage: every method looks at all scenes once, episodes are drawn from that, two reports tell of them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mocha_pipe.data.benchmarks.episodes import Episode, draw_episodes
from mocha_pipe.data.benchmarks.opening import open_benchmark, open_training
from mocha_pipe.data.boxes import box_iou
from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import file_digest, write_json
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.evaluation.methods import base_weights, pool_passes, with_learner
from mocha_pipe.pipeline.evaluation.results import STUDENT, shot_result, unknown_figures
from mocha_pipe.pipeline.markers import COMPLETE, Completion, Identity, is_complete, read_json, versions
from mocha_pipe.pipeline.report.page import NamedBox, Scene, read_curves, write_html
from mocha_pipe.pipeline.run.datasets import named
from mocha_pipe.pipeline.run.inputs import BASE, CACHE, DISTILL, FEWSHOT, WORLD
from mocha_pipe.pipeline.settings.sections import FewshotConfig, RunConfig
from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.fewshot.episodes import name_detections, source_regions
from mocha_pipe.student.fewshot.strangers import STRANGERS_FILE, load_strangers
from mocha_pipe.student.network.pool_pass import PoolPass
from mocha_pipe.student.network.student_files import DETECTOR_FILE, TRANSLATION_FILE
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.projection import Projection

_NUM_SCENES = 12
_MATCH_IOU = 0.5


def fewshot_identity(config: RunConfig, run: Completion) -> Identity:
    """What the reports are made from.

    Raises:
        ConfigError, StageMissingError: there is no base detector to compare with.
        DatasetNotFoundError: there is no benchmark.
    """
    settings, benchmark = config.fewshot, named(config.fewshot.benchmark)
    names = (
        "shots", "episodes", "queries", "seed", "learner", "confidence", "head_epochs", "false_accept_rate", "teacher",
    )  # fmt: skip
    inputs = {
        **student_digests(run.path("student")),
        "base": file_digest(base_weights(settings, run)),
        "benchmark": open_benchmark(benchmark, settings.benchmark_data).fingerprint(),
        "cache": run.inputs["cache"],
    }
    strangers = run.path("student") / STRANGERS_FILE
    if strangers.is_file():
        inputs["strangers"] = file_digest(strangers)
    if settings.head_epochs:
        inputs["head"] = open_training(benchmark, settings.benchmark_data).fingerprint()
    settings = with_learner(settings, run.path("student"))
    return Identity(stage=FEWSHOT, config={name: getattr(settings, name) for name in names}, inputs=inputs)


def student_digests(folder: Path) -> dict[str, str]:
    """Digests of the files that a student's detections and embeddings follow from."""
    files = {"student": DETECTOR_FILE, "translation": TRANSLATION_FILE}
    return {name: file_digest(folder / file) for name, file in files.items()}


def evaluate(config: RunConfig, run: Completion, inputs: Mapping[str, str]) -> Mapping[str, Any]:
    """Write report.json and report.html of a completed distillation, made from these inputs; the outputs of the stage.

    Raises:
        DatasetError: student or base detector does not know all coarse classes of the benchmark.
        EpisodeError: the benchmark has too few images for so many shots.
    """
    started = time.perf_counter()
    settings = with_learner(config.fewshot, run.path("student"))
    folder, place = named(settings.folder), named(settings.benchmark)
    benchmark = open_benchmark(place, settings.benchmark_data, progress=True)
    synthetic = not settings.benchmark_data and is_complete(place.resolve().parent, stage=WORLD)
    if synthetic:
        benchmark = replace(benchmark, name=WORLD)
    episodes = {shots: drawn_episodes(benchmark, settings, shots) for shots in settings.shots}
    benchmark, passes, remarks = pool_passes(settings, run, benchmark)
    results, left_out = _results(benchmark, settings, episodes, passes, run.path("student"))
    notes = [*benchmark.notes, *_episode_notes(benchmark, settings), *remarks, *left_out]
    markers = _earlier_markers(config, run)
    base = markers.get(BASE, {}).get("outputs", {})
    detection = {"base": base.get("map50_95"), "student": run.outputs["map50_95"]}
    seconds = {stage: marker["seconds"] for stage, marker in markers.items() if "seconds" in marker}
    report: dict[str, Any] = {
        "results": results,
        "detection": {name: value for name, value in detection.items() if value is not None},
        "seconds": {**seconds, DISTILL: run.seconds, FEWSHOT: round(time.perf_counter() - started, 2)},
        "versions": versions(),
        "inputs": {**run.inputs, **inputs},
    }
    scenes = _scenes(benchmark, episodes[settings.shots[0]][0], passes[STUDENT], named(settings.learner))
    write_json(folder / "report.json", report)
    write_html(
        folder / "report.html", report, projection=_projection(run.path("cache")), curves=_curves(run), scenes=scenes,
        synthetic=synthetic, notes=notes,
    )  # fmt: skip
    return {"report": "report.json", "page": "report.html", "benchmark": benchmark.name, "notes": notes}


def _results(
    benchmark: PersonalBenchmark,
    settings: FewshotConfig,
    episodes: Mapping[int, Sequence[Episode]],
    passes: Mapping[str, PoolPass],
    student: Path,
) -> tuple[list[dict[str, Any]], list[str]]:
    """One result for each number of shots, and a note on each thing that is left out."""
    strangers, notes = None, []
    try:
        strangers = load_strangers(student)
    except StudentModelError as error:
        notes.append(f"What the student's threshold accepts is left out: {error}")
    results = []
    for shots, drawn in episodes.items():
        result = shot_result(benchmark, settings, shots, drawn, passes)
        unknown, remarks = unknown_figures(benchmark, settings, drawn, passes, strangers)
        results.append({**result, "unknown": unknown} if unknown else result)
        notes += remarks
    return results, list(dict.fromkeys(notes))


def _episode_notes(benchmark: PersonalBenchmark, settings: FewshotConfig) -> list[str]:
    """Which results are on published episodes and which on ours; nothing where the benchmark has none."""
    known = benchmark.published
    origin = {True: f"those published with {benchmark.name}", False: f"drawn with seed {settings.seed}"}
    return [f"{shots}-shot episodes are {origin[shots in known]}" for shots in settings.shots if known]


def drawn_episodes(benchmark: PersonalBenchmark, settings: FewshotConfig, shots: int) -> tuple[Episode, ...]:
    """The episodes that [fewshot] asks for; where we draw them, all numbers of shots share their query images."""
    return draw_episodes(
        benchmark, episodes=settings.episodes, shots=shots, reserve=max(settings.shots), seed=settings.seed,
        query_images=settings.queries,
    )  # fmt: skip


def _scenes(benchmark: PersonalBenchmark, episode: Episode, pool: PoolPass, learner: str) -> list[Scene]:
    """Query scenes spread evenly over the episode's, with the names given to their clearest detections."""
    named = name_detections(benchmark, episode, pool, learner=learner)
    regions = source_regions(benchmark.source)
    names = benchmark.source.class_names
    chosen = episode.query[np.linspace(0, len(episode.query) - 1, min(_NUM_SCENES, len(episode.query))).astype(int)]
    scenes = []
    for image in chosen:
        here = np.flatnonzero(named.image == image)
        # Detections far below the scene's best would only cover the picture.
        here = here[named.score[here] >= 0.25 * named.score[here].max(initial=0)]
        truth = np.flatnonzero(regions.image == image)
        overlap = box_iou(named.xyxy[here], regions.xyxy[truth])
        boxes = []
        for row, shares in zip(here, overlap, strict=True):
            hit = len(truth) > 0 and shares.max() >= _MATCH_IOU
            under = names[regions.personal[truth[shares.argmax()]]] if hit else None
            left, top, right, bottom = named.xyxy[row].tolist()
            boxes.append(NamedBox(xyxy=(left, top, right, bottom), name=names[named.personal[row]], truth=under))
        record = benchmark.source.records[image]
        scenes.append(Scene(title=Path(record.name).stem, image=read_image(record.path), boxes=tuple(boxes)))
    return scenes


def _curves(run: Completion) -> dict[str, dict[str, list[float]]]:
    """Columns of results.csv of the base detector's run and of the distillation, where they are there."""
    files = {"base detector": run.path("base_run") / "train/results.csv"} if run.outputs["base_run"] else {}
    files["distillation"] = run.path("curves")
    return {name: columns for name, file in files.items() if (columns := read_curves(file))}


def _projection(cache: Path) -> Projection | None:
    """The projection of a cache, which may be gone by now."""
    try:
        return RegionCache.open(cache).projection()
    except MochaError:
        return None


def _earlier_markers(config: RunConfig, run: Completion) -> dict[str, dict[str, Any]]:
    """The completion markers of the stages behind a distillation, by stage; empty where one is gone."""
    folders = {WORLD: config.miniature_folder, CACHE: run.path("cache")}
    if run.outputs["base_run"]:
        folders[BASE] = run.path("base_run")
    return {stage: read_json(folder / COMPLETE) for stage, folder in folders.items()}
