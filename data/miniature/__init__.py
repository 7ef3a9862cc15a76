"""A procedural world of small scenes: the embedded data set of the demo, the tests and the benchmarks. Synthetic."""

from mocha_pipe.data.config import WorldSize
from mocha_pipe.data.miniature.world import make_miniature, make_validation

__all__ = ["WorldSize", "make_miniature", "make_validation"]
