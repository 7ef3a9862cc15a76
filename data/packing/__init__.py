"""Writes a data set as tar shards (pack.py), and opens tar shards that lie behind a URL (remote.py)."""
