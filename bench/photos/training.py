"""Regions, cache and students, by the product's own stages: what is complete is skipped, what was stopped goes on."""

from dataclasses import replace

import typer

from bench.photos.recipe import BATCH, FEATURES, IMAGE_SIZE, REGIONS, Study
from mocha_pipe.pipeline.distillation import distill_from
from mocha_pipe.pipeline.stages import build_teacher_cache, distill_inputs
from mocha_pipe.pipeline.unlabelled import make_regions


def train_students(study: Study) -> None:
    """One cache, and a student for each feature set and seed; the detector stays as it is."""
    make_regions([study.objects], study.regions, REGIONS, progress=True)
    config = study.config()
    build_teacher_cache(config)
    inputs = distill_inputs(config)
    for seed in study.seeds:
        for features in FEATURES:
            typer.echo(f"{features}, seed {seed} ...", err=True)
            distill = replace(
                config.distill, features=features, seed=seed, folder=study.run_folder(features, seed),
                epochs=study.epochs, image_size=IMAGE_SIZE, batch=BATCH,
            )  # fmt: skip
            distill_from(inputs, replace(config, distill=distill), flag="--root")
