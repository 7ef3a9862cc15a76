"""Errors of phase 2 that a user can mend."""

from mocha_pipe.data.errors import MochaError


class StudentModelError(MochaError, ValueError):
    """A model file is not one that can be trained or read."""


class StudentModelNotFoundError(MochaError, FileNotFoundError):
    """A model, or a file of a student folder, is not where it was said to be."""


class TrainingProcessError(MochaError, RuntimeError):
    """A process of a distributed training failed."""


class TrainArgumentError(MochaError, ValueError):
    """A training argument is unknown, or belongs to the pipeline."""


class RegionTargetError(MochaError, ValueError):
    """The targets do not belong to the images that are trained on."""
