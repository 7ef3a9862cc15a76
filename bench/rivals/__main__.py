"""The personal detector beside its rivals, on the same boxes, episodes and images. `make bench-rivals`.

    mocha            the distilled student with conditional prototypes: the product
    student gallery  the student's embeddings; of all photos the one that looks most alike names a box
    base gallery     the same with the base detector's own features, the means of P3-P5
    CLIP gallery     the same with the image encoder of the cache's teacher over crops: detector + CLIP, as is usual
    YOLOE            ultralytics' visual prompts; without weights only their mechanics and speed

Accuracy is that of names for the true boxes. All see images at the size that the student was trained at.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from bench.rivals.contestants import (
    BASE_GALLERY,
    CLIP_GALLERY,
    LEARNERS,
    OURS,
    STUDENT_GALLERY,
    YOLOE,
    Race,
    look,
    run_race,
)
from bench.rivals.yoloe import MODEL, PromptedDetector, accuracies, one_box
from bench.runs import in_a_process
from bench.teachers.visual_alone import num_visual_weights
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.data.errors import MochaError
from mocha_pipe.data.files import write_json
from mocha_pipe.data.images import read_image
from mocha_pipe.data.types import DetectionSource, PersonalBenchmark
from mocha_pipe.pipeline.cli.console import print_table
from mocha_pipe.pipeline.evaluation.coarse import with_coarse_classes
from mocha_pipe.pipeline.evaluation.fewshot import drawn_episodes
from mocha_pipe.pipeline.evaluation.methods import base_weights, pool_passes
from mocha_pipe.pipeline.markers import Completion, read_completion, versions
from mocha_pipe.pipeline.report.tables import interval, plain_table, shots_in_words
from mocha_pipe.pipeline.run.devices import torch_device
from mocha_pipe.pipeline.run.inputs import DISTILL, last_distillation, teacher_config, teacher_of_cache
from mocha_pipe.pipeline.settings.recipes import demo
from mocha_pipe.pipeline.settings.sections import FewshotConfig, RunConfig
from mocha_pipe.student.fewshot.bootstrap import mean_interval
from mocha_pipe.student.fewshot.episodes import Question, ask, source_regions
from mocha_pipe.student.fewshot.metrics import recognition_accuracy
from mocha_pipe.student.network.student_files import DETECTOR_FILE, TRANSLATION_FILE, load_student
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.teachers.config import TeacherConfig
from mocha_pipe.teacher_cache.teachers.llava.teacher import LlavaTeacher

if TYPE_CHECKING:
    from rich.table import Table

IMAGES, ROUNDS = 24, 3
"""Of the timing."""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def rivals(
    root: Annotated[Path, typer.Option(help="Folder of a finished demo, or of any distillation.")] = Path("work/demo"),
    out: Annotated[Path, typer.Option(help="File of the figures.")] = Path("work/rivals.json"),
    yoloe: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Weights, such as yoloe-v8s-seg.pt.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Draws of support and query.")] = 40,
    benchmark: Annotated[
        Path | None, typer.Option(help="Folder, or with --data the name of a published one [default: miniature's].")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of a published benchmark.")] = None,
) -> None:
    """Measure all rivals, print and keep the figures."""
    config = demo(root)
    fewshot = replace(config.fewshot, episodes=episodes, benchmark=benchmark, benchmark_data=data)
    report = measure(replace(config, fewshot=fewshot).resolved(), yoloe)
    write_json(out, report)
    print_table(rivals_table(report))
    typer.echo("\n".join(legend(report)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Features:
    """Embeddings of the benchmark's regions by rival, for those rivals that have any. Legend: R regions, D width."""

    embeddings: Mapping[str, NDArray[np.float32]]  # (R, D)
    bytes: Mapping[str, int]
    """Size of what a device needs."""
    teacher: TeacherConfig | None
    """The teacher whose image encoder plays CLIP; None if it cannot be loaded."""
    notes: list[str]


def measure(
    config: RunConfig, yoloe: Path | None, *, images: int = IMAGES, rounds: int = ROUNDS
) -> dict[str, Any]:  # json
    """Accuracy, speed and size of every rival.

    Args:
        config: resolved; its [fewshot] names benchmark, shots and episodes.
        yoloe: weights of a YOLOE; without them it has no accuracy.
        images: number of query images of the first episode that are timed.
        rounds: how often each is timed.

    Raises:
        StageMissingError: no distillation was completed under the root.
        ConfigError: the weights are no YOLOE's, or there is no base detector.
        DatasetError, DatasetNotFoundError: no benchmark, or one with classes that the detectors do not know.
        EpisodeError: the benchmark has too few images for so many shots.
    """
    settings = config.fewshot
    run = read_completion(settings.run or last_distillation(config.root), stage=DISTILL, command="mocha-pipe distill")
    student, base = run.folder / run.outputs["student"], base_weights(settings, run)
    image_size = load_student(student).image_size
    prompted = PromptedDetector(yoloe, image_size=image_size, device=torch_device(settings.device))
    assert settings.benchmark is not None, "the configuration is resolved"
    opened = open_benchmark(settings.benchmark, settings.benchmark_data, progress=True)
    in_bases = with_coarse_classes(opened, load_student(base).class_names, "base detector", "pretrain it on them")
    benchmark, features = _features(settings, run, opened)
    first = drawn_episodes(benchmark, settings, min(settings.shots))[0]
    records, regions = benchmark.source.records, source_regions(benchmark.source)
    ours = {OURS: benchmark.coarse_of, STUDENT_GALLERY: benchmark.coarse_of}
    race = Race(
        student=student, base=base, teacher=features.teacher, yoloe=yoloe, image_size=image_size, rounds=rounds,
        lessons=[one_box(records[regions.image[row]], regions.xyxy[row]) for row in first.support[:, 0]],
        coarse_of={**ours, BASE_GALLERY: in_bases.coarse_of},
        images=[records[image] for image in first.query[:images]],
    )  # fmt: skip
    speeds = in_a_process("rivals", run_race, race)
    accuracy = _accuracies(benchmark, settings, features.embeddings, prompted if yoloe else None)
    sizes = {**features.bytes, YOLOE: prompted.bytes}
    rows = {
        name: {"accuracy": accuracy.get(name), "ms": asdict(speed), "megabytes": round(sizes[name] / 1e6, 2)}
        for name, speed in speeds.items()
    }
    return {
        "benchmark": str(settings.benchmark), "objects": len(first.support), "image_size": image_size,
        "episodes": settings.episodes, "seed": settings.seed, "yoloe": str(yoloe) if yoloe else None,
        "rivals": rows, "notes": features.notes, "inputs": run.inputs, "versions": versions(),
    }  # fmt: skip


def _features(
    settings: FewshotConfig, run: Completion, opened: PersonalBenchmark
) -> tuple[PersonalBenchmark, _Features]:
    """The benchmark with the student's classes, and its regions as each rival sees them."""
    benchmark, passes, _ = pool_passes(replace(settings, teacher=False), run, opened)
    student, base = run.folder / run.outputs["student"], base_weights(settings, run)
    of_student = passes["mocha"].region_embedding
    embeddings = {OURS: of_student, STUDENT_GALLERY: of_student, BASE_GALLERY: passes["yolo"].region_embedding}
    own = sum((student / name).stat().st_size for name in (DETECTOR_FILE, TRANSLATION_FILE))
    sizes = {OURS: own, STUDENT_GALLERY: own, BASE_GALLERY: base.stat().st_size}
    config, notes = None, []
    try:
        config = teacher_config(teacher_of_cache(RegionCache.open(run.path("cache")), None))
        teacher = LlavaTeacher.load(config)
    except MochaError as error:
        config = None
        notes.append(f"the row '{CLIP_GALLERY}' is left out: {error}")
    else:
        embeddings[CLIP_GALLERY] = _crop_embeddings(teacher, benchmark.source)
        sizes[CLIP_GALLERY] = base.stat().st_size + 2 * num_visual_weights(teacher)  # float16, as the detectors' files
    return benchmark, _Features(embeddings=embeddings, bytes=sizes, teacher=config, notes=notes)


def _crop_embeddings(teacher: LlavaTeacher, source: DetectionSource) -> NDArray[np.float32]:  # (R, D)
    """Every region by the teacher's image encoder."""
    shown = [record for record in source.records if len(record.xyxy)]
    return np.concatenate(
        [look(teacher, read_image(record.path), record.xyxy) for record in tqdm(shown, desc="CLIP", unit="image")]
    )


def _accuracies(
    benchmark: PersonalBenchmark,
    settings: FewshotConfig,
    embeddings: Mapping[str, NDArray[np.float32]],
    prompted: PromptedDetector | None,
) -> dict[str, dict[str, Any]]:
    """By rival and number of shots; 0..100 with intervals."""
    regions = source_regions(benchmark.source)
    found: dict[str, dict[str, Any]] = {}
    for shots in settings.shots:
        questions = [ask(benchmark, regions, episode) for episode in drawn_episodes(benchmark, settings, shots)]
        by_rival = {
            name: np.array([region_accuracy(question, rows_RD, LEARNERS[name]) for question in questions])
            for name, rows_RD in embeddings.items()
        }
        if prompted:
            by_rival[YOLOE] = accuracies(prompted, benchmark.source, questions)
        for name, values_E in by_rival.items():
            found.setdefault(name, {})[str(shots)] = mean_interval(values_E, seed=settings.seed).to_json()
    return found


def region_accuracy(question: Question, embeddings_RD: NDArray[np.float32], learner: str) -> float:
    """Share of the asked regions that get the right name from their embedding, 0..100."""
    names, _ = question.taught(embeddings_RD, learner).predict(embeddings_RD[question.asked], question.asked_coarse)
    return recognition_accuracy(question.truth, names)


def rivals_table(report: Mapping[str, Any]) -> "Table":
    """One row per rival."""
    shots = list(report["rivals"][OURS]["accuracy"])
    headers = [f"accuracy\n{shots_in_words(int(number))}" for number in shots]
    title = f"{report['objects']} objects of {report['benchmark']}, {report['episodes']} episodes"
    table = plain_table("", *headers, "ms to\nenrol", "ms per\nimage", "MB", title=title)
    table.padding = (0, 1, 0, 0)  # two accuracies with intervals fill most of 80 columns
    for name, row in report["rivals"].items():
        accuracy = row["accuracy"]
        cells = [interval(accuracy[number]) for number in shots] if accuracy else ["no weights given"] * len(shots)
        speeds = (f"{row['ms'][what]:.1f}" for what in ("enrol", "find"))
        table.add_row(name, *cells, *speeds, f"{row['megabytes']:.1f}", style="bold" if name == OURS else None)
    return table


def legend(report: Mapping[str, Any]) -> list[str]:
    """Lines that explain the table's columns and some of its rows."""
    yoloe = f"{report['yoloe']}; several photos of an object are the mean of their prompt embeddings"
    if not report["yoloe"]:
        yoloe = f"{MODEL} with random weights, for mechanics and speed only; give weights with --yoloe"
    return [
        "accuracy: true boxes with the right name, 0-100 [95 % interval over episodes]",
        f"{OURS} also uses the box's true class; {YOLOE}'s name is that of its best box there",
        f"ms: medians on one CPU thread, from image file to names at {report['image_size']} px",
        f"MB: what a device needs; {CLIP_GALLERY} is the base detector and the encoder in float16",
        f"{YOLOE}: {yoloe}",
        *(f"note: {note}" for note in report["notes"]),
    ]


if __name__ == "__main__":
    app()
