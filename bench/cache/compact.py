"""Bytes of a cache's archive, and what the lossy form does to its rows. The cache is the demo's, made if missing."""

import tempfile
from pathlib import Path

from bench.figures import Figure
from mocha_pipe.pipeline.settings.recipes import demo
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.stages import build_teacher_cache
from mocha_pipe.teacher_cache.sharing import compact, pull
from mocha_pipe.teacher_cache.store.cache import RegionCache


def measure(root: Path, *, config: RunConfig | None = None) -> dict[str, Figure]:
    """Both forms, whole folders against whole folders; the exact one comes back byte by byte."""
    cache = RegionCache.open(build_teacher_cache(config or demo(root / "demo").resolved()).folder)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        exact = compact(cache.path, f"{name}/exact")
        lossy = compact(cache.path, f"{name}/lossy", lossy=True)
        pull(f"{name}/exact", Path(name) / "back")
        for path in cache.path.glob("*/c.*"):
            assert (Path(name) / "back" / path.relative_to(cache.path)).read_bytes() == path.read_bytes()
    by_array = ", ".join(
        f"{array} {lossy.bytes[array] / lossy.raw_bytes[array]:.3f}, nearest neighbour the same for "
        f"{loss.kept_neighbours:.1%}"
        for array, loss in lossy.loss.items()
    )
    cosines = ", ".join(f"{array} {loss.least_cosine:.5f}" for array, loss in lossy.loss.items())
    regions = f"{cache.plan.rows} regions of the miniature"
    return {
        "compact_exact_bytes_vs_raw": Figure(
            value=exact.ratio, better="lower", note=f"exact archive / cache, whole folders; {regions}; arrays alone: "
            + ", ".join(f"{array} {exact.bytes[array] / exact.raw_bytes[array]:.3f}" for array in lossy.loss),
        ),
        "compact_bytes_vs_raw": Figure(
            value=lossy.ratio, target=0.52, better="lower",
            note=f"lossy archive / cache, whole folders; {regions}; arrays alone: {by_array}",
        ),
        "compact_min_cosine": Figure(
            value=min(loss.least_cosine for loss in lossy.loss.values()), target=0.9999, better="higher",
            note=f"least cosine of a row with what it was, lossy archive; {regions}: {cosines}",
        ),
    }  # fmt: skip
