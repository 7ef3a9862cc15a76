"""A YOLO detector that also learns to place its regions in the teacher's target space."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.ops import xywh2xyxy

from mocha_pipe.student.choices import FeatureSet, ObjectiveName
from mocha_pipe.student.network.deep import deep_layers, last_stage
from mocha_pipe.student.network.features import (
    FeatureDims,
    FeatureMaps,
    RegionFeatures,
    feature_dims,
    region_features,
    tap,
)
from mocha_pipe.student.network.objectives import OBJECTIVES
from mocha_pipe.student.network.reference_block import LearnedScale, ReferenceBlock
from mocha_pipe.student.network.translation import FeedForward, PatchEncoder, TranslationModule

DISTILLATION_ITEMS = ("dist_loss", "emb_loss")
"""Names of our loss terms in the progress bar and in results.csv, which show them weighted, as they enter the sum."""


class DistillModel(DetectionModel):  # type: ignore[misc]  # ultralytics is untyped
    """A detection model with a translation module and the loss L_det + lambda_dist L_dist + lambda_emb L_emb.

    Another objective than `paper` puts its own local and relational loss in the place of L_dist and L_emb.
    The weights of the detector keep their names, so that the weights of a plain detector fit this model and back.
    """

    criterion: Any = None  # ultralytics makes it at the first detection loss, and asks for it without one
    detector_learns = True
    """Whether the loss of a training batch trains the detector too; otherwise only what follows it (alternation.py)."""

    def __init__(
        self,
        cfg: str | Mapping[str, Any],
        *,
        channels: int = 3,
        num_classes: int,
        features: FeatureSet,
        target_dim: int,
        lambda_dist: float = 1.0,
        lambda_emb: float = 1.0,
        objective: ObjectiveName = "paper",
        frozen: bool = False,
        verbose: bool = False,
    ) -> None:
        super().__init__(cfg, ch=channels, nc=num_classes, verbose=verbose)
        self.features = features
        self.lambda_dist = lambda_dist
        self.lambda_emb = lambda_emb
        self.objective = objective
        self.frozen = frozen
        stage = last_stage(self) if features == "deep" else None
        dims = feature_dims(self, features)
        self.translation = TranslationModule(dims, target_dim, stage, reference=features == "reference")
        if OBJECTIVES[objective].decoder:
            self.decoder = nn.Linear(target_dim, target_dim)

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss terms to be summed (each times the batch size, as ultralytics does), and their values for display.

        A batch without targets, as in validation, has the detection terms only; one for a frozen detector lacks them.
        """
        if "targets" not in batch:
            plain: tuple[Tensor, dict[str, Tensor]] = super().loss(batch, preds)
            return plain
        with torch.set_grad_enabled(self.detector_learns and torch.is_grad_enabled()):
            with tap(self, self.features) as maps:
                preds = self.look(batch["img"])
            if not self.frozen:
                detection, items = super().loss(batch, preds)
        terms = self._distillation_terms(maps, batch)
        named = dict(zip(DISTILLATION_ITEMS, terms.detach(), strict=True))
        if self.frozen:
            return terms * len(batch["img"]), named
        return torch.cat([detection, terms * len(batch["img"])]), {**items, **named}

    def _distillation_terms(self, maps: FeatureMaps, batch: dict[str, Tensor]) -> Tensor:  # (2,)
        """Weighted local and relational loss over the boxes of all processes with a target (row >= 0), in float32."""
        objective = OBJECTIVES[self.objective]
        features, y_ND = self.features_and_targets(maps, batch)
        with torch.autocast(y_ND.device.type, enabled=False):
            x_ND = self.translation(features)
            if objective.decoder:
                x_ND = self.decoder(x_ND)
            local, relational = objective.local(x_ND, y_ND), objective.relational(x_ND, y_ND)
        return torch.stack([self.lambda_dist * local, self.lambda_emb * relational])

    def features_and_targets(self, maps: FeatureMaps, batch: dict[str, Tensor]) -> tuple[RegionFeatures, Tensor]:
        """Features and targets (N, D) float32 of the boxes of all processes with a target (row >= 0)."""
        has_target = batch["rows"] >= 0
        xyxyn = xywh2xyxy(batch["bboxes"][has_target])
        image = batch["batch_idx"][has_target].long()
        own = region_features(self.translation.own_maps(maps), image, xyxyn)
        features = RegionFeatures(*(gather_rows(part) for part in own))
        return features, gather_rows(batch["targets"][has_target].float())

    def look(self, images: Tensor) -> Any:
        """A forward pass; for a frozen detector it ends where the features do."""
        if self.frozen and self.features == "deep":
            return self._predict_once(images, embed=[deep_layers(self)[-1]])
        return self.forward(images)

    def stripped(self) -> DetectionModel:
        """A copy as the stock class, without anything of ours."""
        detector: Any = deepcopy(self)
        for name in ("translation", "decoder"):
            detector._modules.pop(name, None)
        for name in ("features", "lambda_dist", "lambda_emb", "objective", "frozen", "detector_learns"):
            detector.__dict__.pop(name, None)
        detector.__class__ = DetectionModel
        return detector


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks, with gradients that flow back to where a row came from.

    Every process must call this function, also one without a row of its own. A process alone gets its argument back.

    Args:
        rows: (N, ...); N may differ between processes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = nn.functional.pad(rows, (0, 0) * (rows.ndim - 1) + (0, longest - len(rows)))
    parts: tuple[Tensor, ...] = all_gather(padded)  # type: ignore[no-untyped-call]
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


# A checkpoint names the classes of its model. To resume a run, the restricted loader must know ours.
_OURS = [DistillModel, TranslationModule, PatchEncoder, FeedForward, FeatureDims, LearnedScale, ReferenceBlock]
torch.serialization.add_safe_globals([*_OURS, nn.MultiheadAttention, NonDynamicallyQuantizableLinear])
