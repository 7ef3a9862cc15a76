"""Stage 2: distillation of cached targets into a detector; no teacher in memory, on disk or among the imports.

- `run/train/`: ultralytics' own folder; its results.csv has train/dist_loss and train/emb_loss beside detection's
- `run/student/`: what later stages read: the averaged weights after the last epoch (network/student_files.py), and how
  close regions of different things come to each other (fewshot/strangers.py)
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import select_device, unwrap_model

from mocha_pipe.data.errors import MochaWarning
from mocha_pipe.data.packing.remote import RemoteShard
from mocha_pipe.data.types import DetectionSource, RegionTargets
from mocha_pipe.student.distil.alternation import detector_learns, ends_turn, warn_if_never
from mocha_pipe.student.distil.rates import set_rates
from mocha_pipe.student.distil.ridge_start import start_from_ridge
from mocha_pipe.student.distil.settings import DistillSettings, DistillSetup
from mocha_pipe.student.distil.stream.state import STATE_FILE, StreamKeeper
from mocha_pipe.student.errors import StudentModelError, TrainArgumentError
from mocha_pipe.student.fewshot.episodes import source_regions
from mocha_pipe.student.fewshot.strangers import save_strangers, stranger_closeness
from mocha_pipe.student.network.deep import keep_statistics, last_stage
from mocha_pipe.student.network.distill_model import DISTILLATION_ITEMS, DistillModel
from mocha_pipe.student.network.embedder import RegionEmbedder
from mocha_pipe.student.network.student_files import (
    class_names,
    load_checkpoint,
    load_student,
    read_detector,
    save_student,
)
from mocha_pipe.student.training.arguments import (
    DEEP_ARGUMENTS,
    DEFAULT_TRAIN_ARGUMENTS,
    FROZEN_ARGUMENTS,
    checked_arguments,
    colour_warning,
    num_devices,
)
from mocha_pipe.student.training.dataset import RegionDataset, SourceDataset
from mocha_pipe.student.training.resumable import read_metrics, train_to_end
from mocha_pipe.student.training.source_trainer import SourceTrainer

MANY_LAYERS = 1000  # ultralytics freezes the first so many; no detector has more
_STRANGER_IMAGES = 1000  # at most, drawn from all
_PARTNERS = 16  # of each region; else the few closest strangers of a thousand decide what 30 objects are called


@dataclass(frozen=True, kw_only=True)
class DistillResult:
    """A finished distillation."""

    folder: Path
    """The student folder."""
    metrics: Mapping[str, float]
    """Validation metrics and losses of the last epoch, named as in results.csv."""


class DistillTrainer(SourceTrainer):
    """Trains a DistillModel by the joint loss, on images of a source or of a stream."""

    def __init__(self, setup: DistillSetup, overrides: dict[str, Any]) -> None:
        self.setup = setup
        if setup.kept_names:
            overrides = {**overrides, "freeze": MANY_LAYERS}
        super().__init__((setup.train, setup.val), overrides)
        self.add_callback("on_train_start", DistillTrainer._begin_schedule)
        self.add_callback("on_train_epoch_end", DistillTrainer._end_epoch)
        if setup.shards:
            StreamKeeper(self)

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> DistillModel:
        """A model for this data, with all weights of `weights` that fit; a head for other classes is new.

        A detector that stays as it is keeps its own classes.
        """
        settings = self.setup.settings
        model = DistillModel(
            cfg,
            channels=self.data["channels"],
            num_classes=len(self.setup.kept_names) or self.data["nc"],
            features=settings.features,
            target_dim=self.setup.targets.dim,
            lambda_dist=settings.lambda_dist,
            lambda_emb=settings.lambda_emb,
            objective=settings.objective,
            frozen=bool(self.setup.kept_names),
            verbose=verbose,
        )
        if not self.setup.kept_names:
            self.set_model_names_for_load(model)
        if weights is not None:
            model.load(weights)
            if model.translation.stage is not None and not isinstance(weights, DistillModel):  # its layers are new
                model.translation.stage.load_state_dict(last_stage(model).state_dict())
        return model

    def set_model_attributes(self) -> None:
        """The data's classes as the model's, or those of a detector that stays as it is."""
        super().set_model_attributes()
        if self.setup.kept_names:
            self.model.nc, self.model.names = len(self.setup.kept_names), dict(enumerate(self.setup.kept_names))

    def build_optimizer(self, model: nn.Module, *arguments: Any, **named: Any) -> torch.optim.Optimizer:
        """Ultralytics' optimizer, with the detector's own learning rate."""
        optimizer = super().build_optimizer(model, *arguments, **named)
        if not self.setup.kept_names:
            set_rates(optimizer, unwrap_model(model).model, self.setup.settings.detector_rate)
        return optimizer

    def _setup_train(self) -> None:
        super()._setup_train()
        if steps := self.setup.settings.warmup_steps:
            self.args.warmup_epochs = steps / len(self.train_loader)

    def optimizer_step(self) -> None:
        """One step of the optimizer, and of the average where the student is one."""
        if self.ema and not self.setup.settings.average:
            self.ema.decay = _forgets  # set at each step, because ultralytics makes the average anew after a NaN
        super().optimizer_step()

    def validate(self) -> tuple[dict[str, float] | None, float | None]:
        """Metrics on the validation images and the fitness; a detector that stays as it is needs no measuring again."""
        if not self.setup.kept_names:
            measured: tuple[dict[str, float] | None, float | None] = super().validate()
            return measured
        self.best_fitness = -float(self.loss.detach())
        return {}, self.best_fitness

    def _dataset_of(self, training: bool) -> Callable[..., SourceDataset]:
        """Training images with their targets, or validation images without."""
        if not training:
            return super()._dataset_of(training)
        kind = RegionDataset
        if self.setup.shards:
            from mocha_pipe.student.distil.stream.dataset import StreamDataset

            kind = StreamDataset
        seed, first_row, targets = self.args.seed, self.setup.first_row, self.setup.targets
        return partial(kind, self.setup.train, seed=seed, first_row=first_row, targets=targets)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Ultralytics' own loader, or that of the stream for training images that come as one."""
        if mode != "train" or not self.setup.shards:
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        from mocha_pipe.student.distil.stream.loader import StreamLoader

        return StreamLoader(
            self.build_dataset(dataset_path, mode, batch_size),
            self.setup.shards,
            batch_size=batch_size,
            workers=min(self.args.workers, os.cpu_count() or 1),
            window=self.setup.settings.window,
            seed=self.args.seed,
            pin_memory=self.device.type == "cuda",
        )

    def _model_train(self) -> None:
        """Training mode, and who learns in this epoch."""
        super()._model_train()
        model: DistillModel = unwrap_model(self.model)
        model.detector_learns = detector_learns(self.setup.settings.schedule, self.epoch)
        if not model.detector_learns:
            keep_statistics(model.model)

    def _begin_schedule(self) -> None:
        if self.setup.kept_names:
            self.metrics: dict[str, float] = {}
        if self.setup.settings.features == "deep" and self.start_epoch == 0:
            model: DistillModel = unwrap_model(self.model)
            start_from_ridge(model, map(self.preprocess_batch, self.train_loader))
            self.train_loader.reset()
            if self.ema:
                self.ema.ema.translation.load_state_dict(model.translation.state_dict())
        warn_if_never(self.setup.settings.schedule, self.epochs)

    def _end_epoch(self) -> None:
        if ends_turn(self.setup.settings.schedule, self.epoch):
            self.apply_waiting()

    def label_loss_items(
        self, loss_items: dict[str, Tensor] | None = None, prefix: str = "train"
    ) -> dict[str, float] | list[str]:
        """Names (and values) of the loss terms; validation has no targets, hence no distillation terms."""
        labelled: dict[str, float] | list[str] = super().label_loss_items(loss_items, prefix)
        if prefix == "train":
            return labelled
        absent = {f"{prefix}/{name}" for name in DISTILLATION_ITEMS}
        if isinstance(labelled, list):
            return [name for name in labelled if name not in absent]
        return {name: value for name, value in labelled.items() if name not in absent}


def distill(
    settings: DistillSettings,
    *,
    model: str,
    train: DetectionSource,
    val: DetectionSource,
    targets: RegionTargets,
    first_row: NDArray[np.int64],
    run: Path,
    shards: Sequence[RemoteShard] = (),
    resume: bool = False,
    meta: Mapping[str, Any] | None = None,
) -> DistillResult:
    """Trains a detector and a translation module on L_det + lambda_dist L_dist + lambda_emb L_emb (MOCHA, section 3).

    The student is the averaged model after the last epoch (or its weights themselves, by `average`), not ultralytics'
    best one: detection may peak while the embedding still has most of its way to go.

    Args:
        settings: losses, features and ultralytics' arguments.
        model: a `.pt` file or a `.yaml`, as in `pretrain`.
        train: images with boxes that have targets.
        val: images on which detection is validated.
        targets: by row of the region table.
        first_row: (training images + 1,) rows of each training image.
        run: folder of the run.
        shards: tars that the training images are streamed from.
        resume: go on with a stopped run, and keep what a finished one trained; otherwise start anew.
        meta: json-able facts to keep in student.json, such as digests of the inputs.

    Raises:
        StudentModelNotFoundError, StudentModelError: the model cannot be read, is no detector, or has no weights to
            keep as they are.
        TrainArgumentError: an argument is unknown, has a wrong value, or is set by the pipeline.
        RegionTargetError: targets, boxes and classes do not belong together.
    """
    kept = _kept_detector(model) if settings.schedule == "frozen" else None
    setup = DistillSetup(
        train=train, val=val, targets=targets, first_row=first_row, settings=settings, shards=shards,
        kept_names=class_names(kept[0]) if kept else (),
    )  # fmt: skip
    arguments = {
        **DEFAULT_TRAIN_ARGUMENTS,
        **(DEEP_ARGUMENTS if settings.features == "deep" else {}),
        **(FROZEN_ARGUMENTS if kept else {}),
        **checked_arguments(settings.train_arguments),
    }
    if told := colour_warning(arguments):
        warnings.warn(told, MochaWarning, stacklevel=2)
    if shards and num_devices(arguments) > 1:
        raise TrainArgumentError(
            f"A stream is trained from on one device, found device={arguments['device']!r}; name one of them, "
            "or train from local shards."
        )
    if not resume:
        (run / "train" / "weights" / STATE_FILE).unlink(missing_ok=True)
    folder = train_to_end(partial(DistillTrainer, setup), model=model, run=run, arguments=arguments, resume=resume)
    checkpoint = load_checkpoint(folder / "weights" / "last.pt")
    student_folder = save_student(
        checkpoint["model"].float(),
        run / "student",
        kept=kept,
        image_size=int(np.max(checkpoint["train_args"]["imgsz"])),
        meta=meta or {},
    )
    _measure_strangers(student_folder, val, select_device(arguments.get("device", ""), verbose=False))
    return DistillResult(folder=student_folder, metrics=read_metrics(checkpoint))


def _forgets(_updates: int) -> float:
    """The decay of an average that is its newest member."""
    return 0.0


def _kept_detector(model: str) -> tuple[DetectionModel, int]:
    """What `read_detector` gives of a checkpoint."""
    if not model.endswith(".pt"):
        raise StudentModelError(
            f"--schedule frozen keeps a trained detector as it is, found {model}, which has no weights yet: name a .pt "
            "with --student, or pass --schedule joint."
        )
    return read_detector(Path(model))


def _measure_strangers(folder: Path, val: DetectionSource, device: torch.device) -> None:
    """Keeps with a student how close regions of validation images come that are different things of one class."""
    readable = [record for record in val.records if record.readable]
    few = min(len(readable), _STRANGER_IMAGES)
    drawn = np.sort(np.random.default_rng(0).choice(len(readable), few, replace=False))
    source = replace(val, records=tuple(readable[index] for index in drawn))
    student = load_student(folder)
    # No score is above 1, so that the true boxes alone are embedded.
    embedder = RegionEmbedder(student, image_size=student.image_size, confidence=1.0, device=device)
    regions = source_regions(source)
    embeddings = embedder.embed_pool(source, progress=True).region_embedding
    closeness = stranger_closeness(embeddings, regions.personal, regions.image, partners=_PARTNERS)
    save_strangers(folder, closeness)
