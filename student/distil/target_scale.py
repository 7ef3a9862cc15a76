"""The scale of the targets' components: exactly whitened as in the cache, or as the authors of MOCHA scale them.

The authors divide component k of the centred embedding by 18 / (k + 1)^0.47 - 0.26, a curve that they fitted to the
deviations of one teacher (LLaVA-1.5-7B with CLIP ViT-B/32). For another teacher the targets are then not whitened.

Legend: D target dimensions, n rows asked for.
"""

import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.types import RegionTargets


def reference_deviation(dim: int) -> NDArray[np.float64]:  # (D,)
    """What the authors divide the components by, for at most 8,000 of them."""
    assert dim <= 8000, "further on the curve is no longer above 0"
    return 18 / np.arange(1, dim + 1) ** 0.47 - 0.26


class ReferenceTargets:
    """Whitened targets on the authors' scale (a `data.types.RegionTargets`)."""

    def __init__(self, targets: RegionTargets, eigenvalues_D: NDArray[np.float64]) -> None:
        """Wrap targets.

        Args:
            targets: whitened, by row.
            eigenvalues_D: variances of their components before they were whitened.
        """
        self.dim = targets.dim
        self.set_aside = targets.set_aside
        self._whitened = targets
        self._factor_D = (np.sqrt(eigenvalues_D) / reference_deviation(targets.dim)).astype(np.float32)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._whitened)

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:  # (n,) -> (n, D)
        """Targets of the given rows, in their order."""
        return self._whitened.lookup(rows) * self._factor_D
