"""What a student is: features of a region, translation, losses, files, and a pass over images. No training loop."""

import mocha_pipe.student.environment  # noqa: F401  (before any file of this room imports ultralytics)
