"""Distillation from tar shards behind a URL."""
