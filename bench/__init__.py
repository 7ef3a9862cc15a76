"""Measurements: each file compares two ways in one run, as a ratio, and its figures are printed and kept as json."""
