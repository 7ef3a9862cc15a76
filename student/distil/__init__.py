"""Stage 2: the trainer that adds the cached targets to a training."""

import mocha_pipe.student.environment  # noqa: F401  (before any file of this room imports ultralytics)
