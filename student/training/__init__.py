"""Trains an ultralytics detector so that the run stops, resumes and repeats exactly; the losses are elsewhere."""

import mocha_pipe.student.environment  # noqa: F401  (before any file of this room imports ultralytics)
