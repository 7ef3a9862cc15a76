"""When the detector learns: in every epoch, in every fourth one as in MOCHA (arXiv 2509.14001, section 4), or never.

- `joint`: detector and translation module learn together in every epoch
- `alternate`: for three epochs the translation module learns alone while the detector stays as it is; in the fourth
  both learn by the whole loss; and so on
- `frozen`: a trained detector stays as it is, and the student's file holds its very weights. The boxes only say where
  things are, so that the data's classes need not be the detector's. Nothing computes a detection loss

In an epoch without learning the detector runs forward only, its batch normalisation in evaluation mode. Neither
parameters nor statistics change by a bit, and the epoch takes a third of the time. By `alternate` the detection losses
are still computed, for the table of epochs.

The detector stays as it is because the loss has no graph to it, so that the gradient of its parameters is None.
Optimizers skip such parameters, momentum and weight decay included, which they would not for a gradient of zeros.
(`requires_grad` would not do: ultralytics' `freeze` and the wrap for several processes rely on it.) No gradient of the
detector may wait for a later optimizer step when its turn ends, so the epoch before a change ends with a step.

The averaged weights go on being averaged. They approach the weights that the translation module now learns for; an
average that stood still would keep the detector apart from its translation module.
"""

from ultralytics.utils import LOGGER, RANK

from mocha_pipe.student.choices import ScheduleName

PERIOD = 4
"""Epochs of `alternate` from one in which the detector learns to the next; the first is the fourth."""


def detector_learns(schedule: ScheduleName, epoch: int) -> bool:
    """Whether the detector learns in an epoch, counted from 0."""
    return schedule == "joint" or (schedule == "alternate" and (epoch + 1) % PERIOD == 0)


def ends_turn(schedule: ScheduleName, epoch: int) -> bool:
    """Whether the detector's learning begins or ends right after an epoch, counted from 0."""
    return detector_learns(schedule, epoch) != detector_learns(schedule, epoch + 1)


def warn_if_never(schedule: ScheduleName, num_epochs: int) -> None:
    """Say so where a run by `alternate` is too short for the detector to learn at all."""
    if RANK in {-1, 0} and schedule == "alternate" and num_epochs < PERIOD:
        LOGGER.warning(
            f"The detector is never trained: by --schedule alternate it learns in every {PERIOD}th epoch, and the run "
            f"has {num_epochs}; train longer (--epochs), or pass --schedule joint or frozen."
        )
