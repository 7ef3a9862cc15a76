"""Which object a picture shows: every method's embedding of the whole picture, the same episodes for all.

    histogram   colours alone
    yolo        the detector as it was: means of P3-P5
    mocha       the student with the default features, and with the paper's
    teacher     what the student learns from, live

`open`: all objects compete. `class-given`: only those of the class that the picture's object has.

Legend: R pictures, D width of an embedding, E episodes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure
from bench.photos.recipe import EPISODES, FEATURES, IMAGE_SIZE, RESERVE, SHOTS, Study
from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import PersonalBenchmark
from mocha_pipe.pipeline.evaluation.intervals import seed_mean
from mocha_pipe.pipeline.report.tables import interval, plain_table, shots_in_words
from mocha_pipe.pipeline.run.inputs import teacher_config
from mocha_pipe.student.fewshot.bootstrap import mean_interval
from mocha_pipe.student.fewshot.episodes import ask, source_regions
from mocha_pipe.student.fewshot.histogram import colour_histogram
from mocha_pipe.student.fewshot.metrics import recognition_accuracy
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.student_files import load_student
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.loading import load_teacher

if TYPE_CHECKING:
    from rich.table import Table

LEARNERS = {"open": "simpleshot", "class_given": "conditional"}
"""Columns of the table."""
HISTOGRAM, YOLO, TEACHER = "histogram", "yolo", "teacher"
MOCHA = {"deep": "mocha", "fine": "mocha, fine features", "paper": "mocha, paper's features"}
"""Rows by feature set."""
GAP_TARGET = 0.5
_HISTOGRAM_SIDE = 64  # pixels

Accuracies = Mapping[str, Mapping[int, NDArray[np.float64]]]
"""By column and number of shots, (E,) of each episode, 0..100."""


def recognise(study: Study, benchmark: PersonalBenchmark) -> dict[str, list[Accuracies]]:
    """Accuracies of each row: one for each seed of a student, a single one of the others."""
    rows = {HISTOGRAM: [_histograms(benchmark)], YOLO: [_embed(study.detector, benchmark)]}
    for features in FEATURES:
        rows[MOCHA[features]] = [_embed(study.student(features, seed), benchmark) for seed in study.seeds]
    rows[TEACHER] = [_teacher(study.teacher, benchmark)]
    return {name: [accuracies(benchmark, rows_RD) for rows_RD in found] for name, found in rows.items()}


def accuracies(benchmark: PersonalBenchmark, embeddings_RD: NDArray[np.float32]) -> Accuracies:
    """Share of the asked pictures that get the right name."""
    regions = source_regions(benchmark.source)
    found: dict[str, dict[int, NDArray[np.float64]]] = {column: {} for column in LEARNERS}
    for shots in SHOTS:
        drawn = draw_episodes(benchmark, episodes=EPISODES, shots=shots, reserve=RESERVE, seed=0)
        questions = [ask(benchmark, regions, episode) for episode in drawn]
        for column, learner in LEARNERS.items():
            values = []
            for question in questions:
                fitted = question.taught(embeddings_RD, learner)
                names, _ = fitted.predict(embeddings_RD[question.asked], question.asked_coarse)
                values.append(recognition_accuracy(question.truth, names))
            found[column][shots] = np.array(values)
    return found


def gap_figures(rows: Mapping[str, Sequence[Accuracies]]) -> dict[str, Figure]:
    """How much of the way from the detector to the teacher the student went, seed by seed."""
    figures = {}
    for shots in SHOTS:
        yolo, teacher = (float(rows[name][0]["open"][shots].mean()) for name in (YOLO, TEACHER))
        mocha = np.array([each["open"][shots].mean() for each in rows[MOCHA[FEATURES[0]]]])
        closed = seed_mean((mocha - yolo) / (teacher - yolo))
        spread = f"± {closed.high - closed.mean:.2f}; " if np.isfinite(closed.high) else ""
        figures[f"photo_gap_closed_{shots}shot"] = Figure(
            value=closed.mean, target=GAP_TARGET, better="higher",
            note=f"{spread}(mocha - yolo) / (teacher - yolo), accuracies {mocha.mean():.1f}, {yolo:.1f}, "
            f"{teacher:.1f}; {len(mocha)} training seeds",
        )  # fmt: skip
    return figures


def table_of(rows: Mapping[str, Sequence[Accuracies]]) -> dict[str, Any]:  # json
    """Mean and interval of each cell: over seeds where there are several, else over episodes."""

    def cell(found: Sequence[Accuracies], column: str, shots: int) -> dict[str, Any]:
        values = [each[column][shots] for each in found]
        if len(values) == 1:
            return mean_interval(values[0], seed=0).to_json()
        return seed_mean(np.array([episodes.mean() for episodes in values])).to_json()

    return {
        name: {column: {str(shots): cell(found, column, shots) for shots in SHOTS} for column in LEARNERS}
        for name, found in rows.items()
    }


def accuracy_table(table: Mapping[str, Any]) -> "Table":
    """One line per row."""
    columns = [(column, shots) for column in LEARNERS for shots in SHOTS]
    headers = [f"{column.replace('_', '-')}\n{shots_in_words(shots)}" for column, shots in columns]
    drawn = plain_table("accuracy", *headers)
    for name, row in table.items():
        drawn.add_row(name, *(interval(row[column][str(shots)]) for column, shots in columns))
    return drawn


def _embed(student: Path, benchmark: PersonalBenchmark) -> NDArray[np.float32]:  # (R, D)
    """Every picture by a student or by the plain detector, at the students' size."""
    # No score is above 1, so that only the pictures themselves are embedded.
    embedder = RegionEmbedder(load_student(student), image_size=IMAGE_SIZE, confidence=1.0)
    return embedder.embed_pool(benchmark.source, progress=True).region_embedding


def _crops(benchmark: PersonalBenchmark, margin: float, size: int) -> list[NDArray[np.uint8]]:
    """Every box; a picture without a label file is one as a whole."""
    return [
        cut_crop(image, box, margin, size)
        for record in benchmark.source.records
        for image in [read_image(record.path)]
        for box in record.xyxy
    ]


def _histograms(benchmark: PersonalBenchmark) -> NDArray[np.float32]:
    return np.stack([colour_histogram(crop) for crop in _crops(benchmark, 0.0, _HISTOGRAM_SIDE)])


def _teacher(model: str, benchmark: PersonalBenchmark) -> NDArray[np.float32]:
    """The teacher's pooled output, as it is."""
    teacher = load_teacher(teacher_config(TeacherConfig(model=model)))
    crops = _crops(benchmark, teacher.spec.crop_margin, teacher.spec.crop_size)
    names = np.array(benchmark.coarse_names)[benchmark.coarse_of[source_regions(benchmark.source).personal]]
    return teacher.embed(crops, names.tolist()).visual
