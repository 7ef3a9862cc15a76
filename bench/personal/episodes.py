"""What few-shot episodes cost after the forward passes, on synthetic passes of the miniature benchmark's size."""

from pathlib import Path
from time import perf_counter

import numpy as np

from bench.figures import Figure
from mocha_pipe.data.benchmarks.episodes import draw_episodes
from mocha_pipe.data.types import DetectionSource, ImageRecord, PersonalBenchmark
from mocha_pipe.pipeline.evaluation.results import shot_result, unknown_figures
from mocha_pipe.pipeline.settings.sections import FewshotConfig
from mocha_pipe.student.fewshot.episodes import source_regions
from mocha_pipe.student.network.pool_pass import PoolPass

EPISODES, SHOTS = 100, 5
CLASSES, ALIKE = 8, 3
IMAGES = 384
WIDTHS = {"histogram": 256, "yolo": 448, "mocha": 128, "teacher": 128}
"""Of the embeddings, by method."""
_SIDE = 160  # pixels


def measure(_root: Path, *, episodes: int = EPISODES) -> dict[str, Figure]:
    """Seconds from the passes to all figures of one number of shots, intervals included."""
    benchmark = synthetic_benchmark()
    passes = {method: synthetic_pass(benchmark, width) for method, width in WIDTHS.items()}
    strangers = np.sort(np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32))
    settings = FewshotConfig(episodes=episodes, learner="conditional")
    started = perf_counter()
    drawn = draw_episodes(benchmark, episodes=episodes, shots=SHOTS, reserve=SHOTS, seed=settings.seed)
    shot_result(benchmark, settings, SHOTS, drawn, passes)
    unknown_figures(benchmark, settings, drawn, passes, strangers)
    took = perf_counter() - started
    return {
        "episodes_s": Figure(
            value=took, target=60.0, better="lower",
            note=f"{episodes} episodes of {CLASSES * ALIKE} objects x {SHOTS} shots in {IMAGES} images, {len(WIDTHS)} "
            "methods, after the forward passes: names, mAP, accuracies, confusion, unknown objects, intervals",
        )
    }  # fmt: skip


def synthetic_benchmark() -> PersonalBenchmark:
    """Scenes of two or three objects, two of which have the same class, as in the miniature benchmark."""
    rng = np.random.default_rng(0)
    objects = CLASSES * ALIKE
    records = []
    for image in range(IMAGES):
        main = image % objects
        look_alike = main - main % ALIKE + (main + 1) % ALIKE
        shown = np.array([main, look_alike, (main + 7) % objects][: 2 + image // objects % 2])
        corner = rng.uniform(0, 100, (len(shown), 2))
        xyxy = np.hstack([corner, corner + rng.uniform(25, 60, corner.shape)])
        name = f"{image:05}.png"
        records.append(ImageRecord(path=Path(name), name=name, width=_SIDE, height=_SIDE, xyxy=xyxy, class_ids=shown))
    names = tuple(f"object {personal}" for personal in range(objects))
    return PersonalBenchmark(
        name="synthetic",
        source=DetectionSource(root=Path(), split="test", class_names=names, records=tuple(records)),
        coarse_names=tuple(f"class {coarse}" for coarse in range(CLASSES)),
        coarse_of=np.arange(objects) // ALIKE,
    )


def synthetic_pass(benchmark: PersonalBenchmark, width: int) -> PoolPass:
    """Every object is detected, one in five also under another class. The embeddings mostly tell objects apart."""
    rng = np.random.default_rng(width)
    regions = source_regions(benchmark.source)
    found = np.sort(np.append(np.arange(len(regions.image)), np.arange(0, len(regions.image), 5)))
    again = np.append(False, np.diff(found) == 0)
    centres = rng.standard_normal((len(benchmark.coarse_of), width))
    of_regions, of_detections = (
        (centres[regions.personal[rows]] + 1.5 * rng.standard_normal((len(rows), width))).astype(np.float32)
        for rows in (np.arange(len(regions.image)), found)
    )
    return PoolPass(
        detection_image=regions.image[found],
        detection_xyxy=(regions.xyxy[found] + rng.normal(0, 1.5, (len(found), 4))).astype(np.float32),
        detection_score=rng.uniform(0.1, 1, len(found)).astype(np.float32),
        detection_coarse=(benchmark.coarse_of[regions.personal[found]] + again) % CLASSES,
        detection_embedding=of_detections,
        region_embedding=of_regions,
    )
