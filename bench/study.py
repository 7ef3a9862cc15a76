"""What distillation brings on the miniature benchmark, over training seeds. `make study`; leaves work/study.json.

    default      the demo's recipe
    paper        as the paper's authors train (recipes.reference), for as long and at the size of the miniature's scenes
    plain        no distillation: as many more epochs by the detection loss alone
    attributes   the default without a teacher: what an object is made of as its target (controls.py)
    instances    the default without a teacher: which object it is, by a contrastive loss (controls.py)

STUDY/<recipe>/seed-<n>           a distillation like any other (stages.py): resumed if stopped, skipped if complete
STUDY/<recipe>/seed-<n>/fewshot   its few-shot report; the episodes are the same for every run
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from numpy.typing import NDArray

from bench.casts import SEEDS, cast_figures
from bench.controls import Control, control_targets
from bench.figures import Figure, exit_code, keep, show
from mocha_pipe.data.images import read_image
from mocha_pipe.pipeline.distillation import DistillInputs, distill_from
from mocha_pipe.pipeline.evaluation.intervals import seed_mean
from mocha_pipe.pipeline.markers import read_json
from mocha_pipe.pipeline.report.tables import shots_in_words
from mocha_pipe.pipeline.run.datasets import named
from mocha_pipe.pipeline.run.inputs import teacher_config
from mocha_pipe.pipeline.settings.recipes import demo, reference
from mocha_pipe.pipeline.settings.sections import DistillConfig, RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_inputs, evaluate_fewshot
from mocha_pipe.student.fewshot.bootstrap import Interval
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.projecting.whitening import whiten
from mocha_pipe.teacher_cache.store.projection import Projection
from mocha_pipe.teacher_cache.teachers.base import Teacher
from mocha_pipe.teacher_cache.teachers.loading import load_teacher


def _as_the_authors_do(config: RunConfig) -> DistillConfig:
    own, theirs = config.distill, reference(config).distill
    train = {**theirs.train, "nbs": own.batch, "plots": False, "val": False}
    return replace(theirs, epochs=own.epochs, batch=own.batch, image_size=own.image_size, train=train)


RECIPES: Mapping[str, Callable[[RunConfig], DistillConfig]] = {
    "default": lambda config: config.distill,
    "paper": _as_the_authors_do,
    "plain": lambda config: replace(config.distill, lambda_dist=0.0, lambda_emb=0.0),
    "attributes": lambda config: config.distill,
    "instances": lambda config: replace(config.distill, objective="contrastive", lambda_dist=0.0),
}
CONTROLS = get_args(Control)
_MIRRORED_IMAGES = 400


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """One student on the benchmark; 0..100 unless a field says otherwise."""

    gain_1shot: float
    """mAP50-95 at 1 shot over the base detector."""
    accuracy: Mapping[int, float]
    """By number of shots."""
    teacher_accuracy: Mapping[int, float]
    """Of the live teacher on the same detections."""
    detection: float
    """mAP50-95 of the coarse classes."""
    unknown_auroc: float
    """Taught objects against held-out look-alikes, at the largest number of shots; 0..1."""


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


@app.command()
def study(
    root: Annotated[Path, typer.Option(help="Folder of the world, the cache and the runs.")] = Path("work/study"),
    out: Annotated[Path, typer.Option(help="File of the figures.")] = Path("work/study.json"),
    seeds: Annotated[str, typer.Option(help="Training seeds, by commas.")] = "0,1,2",
) -> None:
    """Train what is missing, print and keep the figures; exit code 1 when one misses its target."""
    figures = measure(demo(root).resolved(), [int(seed) for seed in seeds.split(",")])
    keep(out, figures)
    show(figures)
    sys.exit(exit_code(figures))


def measure(config: RunConfig, seeds: Sequence[int]) -> dict[str, Figure]:
    """The figures of every recipe, trained with every seed on one cache and one base detector."""
    build_teacher_cache(config)
    inputs = distill_inputs(config)
    world = config.miniature
    dim = inputs.targets.dim
    planned = {name: control_targets(name, world.size, world.seed, inputs.table, dim) for name in CONTROLS}
    found: dict[str, dict[int, RunFigures]] = {recipe: {} for recipe in RECIPES}
    for seed in seeds:
        for recipe in RECIPES:
            typer.echo(f"{recipe}, seed {seed} ...", err=True)
            own = replace(inputs, targets=planned[recipe]) if recipe in planned else inputs
            found[recipe][seed] = _measured(config, own, recipe, seed)
    return {
        **recipe_figures(found),
        **cast_figures(config, _folder(config, "default", seeds[0]), SEEDS),
        "teacher_mirror_cosine": _mirror_figure(config, inputs),
    }


def _folder(config: RunConfig, recipe: str, seed: int) -> Path:
    return config.root / recipe / f"seed-{seed}"


def _measured(config: RunConfig, inputs: DistillInputs, recipe: str, seed: int) -> RunFigures:
    distill = replace(RECIPES[recipe](config), seed=seed, folder=_folder(config, recipe, seed))
    return run_figures(replace(config, distill=distill), inputs)


def run_figures(config: RunConfig, inputs: DistillInputs) -> RunFigures:
    """The figures of one run. What is complete on disk is neither trained nor evaluated again.

    Args:
        config: resolved; `[distill]` says how to train, and where.
        inputs: what the run starts from.
    """
    folder = named(config.distill.folder)
    run = distill_from(inputs, config, flag="--root")
    fewshot = replace(config.fewshot, run=folder, folder=folder / "fewshot")
    evaluated = evaluate_fewshot(replace(config, fewshot=fewshot))
    results = read_json(evaluated.folder / evaluated.outputs["report"])["results"]

    def mean(result: Mapping[str, Any], method: str, metric: str) -> float:
        return float(result["methods"][method][metric]["mean"])

    one = next(result for result in results if result["shots"] == 1)
    most = max(results, key=lambda result: int(result["shots"]))
    return RunFigures(
        gain_1shot=mean(one, "mocha", "map50_95") - mean(one, "yolo", "map50_95"),
        accuracy={result["shots"]: mean(result, "mocha", "accuracy") for result in results},
        teacher_accuracy={result["shots"]: mean(result, "teacher", "accuracy") for result in results},
        detection=run.outputs["map50_95"],
        unknown_auroc=float(most["unknown"]["methods"]["mocha"]["auroc"]["mean"]),
    )


def recipe_figures(found: Mapping[str, Mapping[int, RunFigures]]) -> dict[str, Figure]:
    """Means over seeds with their t intervals; differences between recipes are taken seed by seed.

    Args:
        found: by recipe and seed; the same seeds for each recipe.
    """
    default, paper, plain = (list(found[recipe].values()) for recipe in ("default", "paper", "plain"))

    def figure(values: Sequence[float], target: float | None, what: str) -> Figure:
        mean = seed_mean(np.array(values))
        return Figure(value=mean.mean, target=target, better="higher", note=f"{interval_words(mean)}{what}")

    figures = {
        "gain_1shot": figure([run.gain_1shot for run in default], 35, "mAP50-95 of the student over its base detector"),
        "gain_1shot_vs_paper_recipe": figure(
            [ours.gain_1shot - theirs.gain_1shot for ours, theirs in zip(default, paper, strict=True)],
            0,
            "the same over a student by the paper's recipe",
        ),
        "base_map_delta": figure(
            [ours.detection - theirs.detection for ours, theirs in zip(default, plain, strict=True)],
            -0.5,
            "coarse mAP50-95 against as many more epochs without distillation",
        ),
    }
    for control in CONTROLS:
        figures[f"gain_1shot_vs_{control}"] = figure(
            [ours.gain_1shot - other.gain_1shot for ours, other in zip(default, found[control].values(), strict=True)],
            None,
            f"the same over a student that learns {control} without a teacher",
        )
    for shots in default[0].accuracy:
        figures[f"mocha_vs_teacher_{shots}shot"] = figure(
            [run.accuracy[shots] / run.teacher_accuracy[shots] for run in default], 0.95, "share of teacher's accuracy"
        )
    figures["unknown_auroc"] = figure(
        [run.unknown_auroc for run in default],
        0.95,
        f"taught objects against held-out look-alikes of their class, {shots_in_words(max(default[0].accuracy))}",
    )
    return figures


def mirror_cosine(
    teacher: Teacher, projection: Projection, crops: Sequence[NDArray[np.uint8]], class_names: Sequence[str]
) -> float:
    """Mean cosine between the target of a crop and that of its mirror image.

    Args:
        teacher: embeds both.
        projection: of the cache whose targets are meant.
        crops: as for `Teacher.embed`.
        class_names: one name per crop.
    """
    flipped = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
    embeddings = [teacher.embed(views, class_names) for views in (crops, flipped)]
    left_nD, right_nD = (whiten(projection, found.hidden, found.visual) for found in embeddings)
    norms_n = np.linalg.norm(left_nD, axis=1) * np.linalg.norm(right_nD, axis=1)
    return float(((left_nD * right_nD).sum(axis=1) / norms_n).mean())


def _mirror_figure(config: RunConfig, inputs: DistillInputs) -> Figure:
    teacher = load_teacher(teacher_config(config.teacher))
    crops, names = [], []
    for record in inputs.train.records[:_MIRRORED_IMAGES]:
        image = read_image(record.path)
        crops += [cut_crop(image, xyxy, config.teacher.crop_margin, teacher.spec.crop_size) for xyxy in record.xyxy]
        names += [inputs.train.class_names[class_id] for class_id in record.class_ids]
    cosine = mirror_cosine(teacher, inputs.cache.projection(), crops, names)
    return Figure(value=cosine, better="higher", note=f"targets of {len(crops)} crops and of their mirror images")


def interval_words(mean: Interval) -> str:
    """Half its width, for the beginning of a note; empty for a single seed."""
    return "" if math.isinf(mean.high) else f"± {mean.high - mean.mean:.2f}; "


if __name__ == "__main__":
    app()
