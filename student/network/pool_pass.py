"""What one pass over a pool of images leaves behind: every later episode works on these arrays alone (numpy only)."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolPass:
    """Detections of all images of a source, and embeddings of its ground-truth regions, from one forward pass each.

    Legend: M detections, R ground-truth regions, D width of an embedding.
    """

    detection_image: NDArray[np.int64]  # (M,)
    """Index into the source's records; ascending."""
    detection_xyxy: NDArray[np.float32]  # (M, 4)
    """Corners in pixels of the original image."""
    detection_score: NDArray[np.float32]  # (M,)
    """The detector's confidence, 0..1."""
    detection_coarse: NDArray[np.int64]  # (M,)
    """The detector's class id."""
    detection_embedding: NDArray[np.float32]  # (M, D)
    region_embedding: NDArray[np.float32]  # (R, D)
    """One row per ground-truth box, in the order of the source's records and their boxes."""

    def __post_init__(self) -> None:
        """Our own mistakes show here and not episodes later."""
        count, width = self.detection_embedding.shape
        assert self.detection_image.shape == self.detection_score.shape == self.detection_coarse.shape == (count,)
        assert self.detection_xyxy.shape == (count, 4)
        assert self.region_embedding.shape[1:] == (width,), "detections and regions share one embedding space"

    def with_embeddings(
        self, detection_embedding: NDArray[np.float32], region_embedding: NDArray[np.float32]
    ) -> Self:  # (M, E), (R, E)
        """The same detections described by another embedder, so that methods differ in nothing else."""
        return replace(self, detection_embedding=detection_embedding, region_embedding=region_embedding)
