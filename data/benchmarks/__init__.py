"""Readers of personal benchmarks: a folder becomes a `PersonalBenchmark`; opening.py finds the right one.

`perseg`, `pod`, `core50` and `icubworld` read the published ones (data/benchmarks/published.py is what they share),
`yaml_folder` and `photos` read a folder of one's own.
"""
