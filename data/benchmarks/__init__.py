"""Readers of personal benchmarks: a folder becomes a `PersonalBenchmark`; opening.py finds the right one.

`perseg`, `pod`, `pods`, `core50` and `icubworld` read the published ones (published.py is what those in YOLO layout
share), `yaml_folder` and `photos` read a folder of one's own.
"""
