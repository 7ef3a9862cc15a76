"""What `cache pull --targets` sends, against a whole pull."""

import tempfile
from pathlib import Path

from bench.figures import Figure
from bench.synthetic import synthetic_cache, synthetic_table
from mocha_pipe.teacher_cache.sharing import pull

HIDDEN_DIM, VISUAL_DIM, DIM = 4096, 1024, 512
"""Widths of LLaVA-1.5-7B with its own tower, and of the targets."""
IMAGES = 1500


def measure(root: Path, *, images: int = IMAGES) -> dict[str, Figure]:
    """Bytes that travel, by the transfer's own count."""
    table = synthetic_table(images, most=10)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name)
        cache = synthetic_cache(folder / "cache", table, hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM, dim=DIM)
        projection = (cache.path / "projection.safetensors").stat().st_size
        full = pull(str(cache.path), folder / "full").bytes
        part = pull(str(cache.path), folder / "targets", targets_only=True).bytes
    return {
        "pull_targets_vs_full_bytes": Figure(
            value=part / full, target=1 / 9, better="lower",
            note=f"{part / 1e6:.1f} of {full / 1e6:.1f} MB; {len(table)} regions, {HIDDEN_DIM} + {VISUAL_DIM} wide, "
            f"{DIM} targets; the more regions, the nearer to {part / (full - projection):.3f}",
        )
    }  # fmt: skip
