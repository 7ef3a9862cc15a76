"""`cache verify` of a gigabyte against reading the same files once, both warm."""

import statistics
import tempfile
from pathlib import Path

from bench.figures import Figure
from bench.synthetic import synthetic_cache, synthetic_table
from bench.timing import seconds
from mocha_pipe.teacher_cache.checking.verify import verify_cache

HIDDEN_DIM, VISUAL_DIM, DIM = 4096, 1024, 512
IMAGES, MOST = 10_600, 15
"""85,000 regions."""
ROUNDS = 5
_BUFFER = 2**20


def measure(root: Path, *, images: int = IMAGES) -> dict[str, Figure]:
    """Paired rounds: each reads all files into one buffer, then verifies."""
    table = synthetic_table(images, most=MOST)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name:
        cache = synthetic_cache(Path(name) / "cache", table, hidden_dim=HIDDEN_DIM, visual_dim=VISUAL_DIM, dim=DIM).path
        files = [path for path in cache.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        assert not verify_cache(cache).findings
        rounds = [
            (seconds(lambda: [read_once(path) for path in files]), seconds(lambda: verify_cache(cache)))
            for _ in range(ROUNDS)
        ]
    read, verified = (statistics.median(times) for times in zip(*rounds, strict=True))
    return {
        "verify_vs_cat": Figure(
            value=statistics.median(mine / plain for plain, mine in rounds), target=1.5, better="lower",
            note=f"cache verify {verified:.2f} s / reading {len(files)} files of {size / 1e9:.2f} GB into one buffer "
            f"{read:.2f} s, warm; {len(table):,} regions, {HIDDEN_DIM} + {VISUAL_DIM} + {DIM} wide",
        )
    }  # fmt: skip


def read_once(path: Path) -> int:
    """Read a file as `cat` does; returns its size."""
    buffer, size = bytearray(_BUFFER), 0
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            size += count
    return size
