"""Measurements of training."""
