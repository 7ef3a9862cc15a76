"""When the detector learns: in every epoch, or in every fourth one as in MOCHA (arXiv 2509.14001, section 4).

- `joint`: detector and translation module learn together, all the time
- `alternate`: for three epochs the translation module learns alone, from a detector that holds still; the fourth
  trains both by the whole loss; and so on

A detector that holds still is run forward only, its batch normalisation in evaluation mode: neither parameters nor
statistics change by a bit, and the epoch costs less. Its detection losses are still computed, for the table of epochs.

What holds it is the missing graph, not `requires_grad`. That belongs to ultralytics' `freeze`, whose layers stay frozen
in the fourth epoch too, and to the wrap for several processes, which looks at it once. Without a graph a parameter's
gradient is None, which optimizers skip, momentum and weight decay included; a gradient of zeros they would not. So none
may wait for a later optimizer step where the detector's turn ends: an epoch before a change ends with a step.

The averaged weights go on being averaged. They approach the weights that hold still, for which the translation module
is learning meanwhile; an average that waited would part the student's two halves.
"""

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

from torch import nn
from ultralytics.utils import LOGGER, RANK

from mocha_pipe.student.choices import ScheduleName

PERIOD = 4
"""Epochs of `alternate` from one in which the detector learns to the next; the first is the fourth."""


def detector_learns(schedule: ScheduleName, epoch: int) -> bool:
    """Whether the detector learns in an epoch, counted from 0."""
    return schedule == "joint" or (epoch + 1) % PERIOD == 0


def ends_turn(schedule: ScheduleName, epoch: int) -> bool:
    """Whether the detector's learning begins or ends right after an epoch, counted from 0."""
    return detector_learns(schedule, epoch) != detector_learns(schedule, epoch + 1)


def keep_statistics(detector: nn.Module) -> None:
    """Put the batch normalisation of a model in training mode in evaluation mode, until its mode is set anew."""
    for part in detector.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def warn_if_never(schedule: ScheduleName, num_epochs: int) -> None:
    """Say so where a run is too short for the detector to learn at all."""
    if RANK in {-1, 0} and not any(detector_learns(schedule, epoch) for epoch in range(num_epochs)):
        LOGGER.warning(
            f"The detector is never trained: by --schedule {schedule} it learns in every {PERIOD}th epoch, and the run "
            f"has {num_epochs}; train longer (--epochs), or pass --schedule joint."
        )
