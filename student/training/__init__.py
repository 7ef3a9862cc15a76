"""Trains an ultralytics detector so that the run stops, resumes and repeats exactly; the losses are elsewhere."""
