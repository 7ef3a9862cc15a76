"""Measurements of the teacher cache."""
