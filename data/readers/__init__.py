"""Readers of data set layouts, one to a file.

A reader turns one split into a `DetectionSource`: the records that are fine, and every problem of the others. It raises
only where there is nothing to read (no file, no key, no image). So `open_source` and `data check` share one code path.
"""
