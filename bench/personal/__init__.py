"""Measurements of the personal detector and of the few-shot stage."""
