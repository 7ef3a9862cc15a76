"""Tar shards on disk: the names and the index of a packed data set (layout.py), and images read in place (tars.py)."""
