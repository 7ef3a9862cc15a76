"""The personal detector as one module: image and prototypes in; boxes, coarse classes and personal objects out.

It computes what `RegionEmbedder` and a `PrototypeLearner` do with one image, in operations that can be exported. What
changes after an export (objects, thresholds, least score) is an input.

One more row is put behind the prototypes. It stands for none of them, so that argmax never meets an empty table.

Legend: S side of the image, A anchors, K candidates, N detections, P prototypes, D width of an embedding, C channels, G
cells of a patch's side, Q pairs of a detection and a prototype of its class.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, normalize
from torchvision.ops import nms  # type: ignore[import-untyped]

from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.prototypes import EPSILON
from mocha_pipe.student.network.deep import deep_features
from mocha_pipe.student.network.embedder import NMS_IOU, RegionEmbedder
from mocha_pipe.student.network.features import (
    GRID,
    AxisShares,
    FeatureMaps,
    RegionFeatures,
    axis_overlap,
    cell_centres,
    tap,
    whole_cells,
)
from mocha_pipe.student.network.student_files import Student
from mocha_pipe.student.personal.naming import SAME_THING_IOU

# As in ultralytics' non_max_suppression.
_CLASS_OFFSET = 7680
_MOST_DETECTIONS = 300

_TINY = torch.finfo(torch.float32).tiny
_NO_CLASS = -1  # coarse id of the last row
_LOWEST = -1e38  # score of the last row, which wins where a detection has no candidates
_NOT_ASKED = 3 * _LOWEST  # score of prototypes that are no candidates
_FARTHEST = -1.0  # the lowest cosine


class PersonalDetections(NamedTuple):
    """What an exported student answers, best score first; the names of its outputs."""

    boxes: Tensor
    """(N, 4) float32, xyxy in pixels of the letterboxed image; may reach beyond the picture."""
    scores: Tensor
    """(N,) float32, the detector's, 0..1."""
    classes: Tensor
    """(N,) int64, coarse id: what the detector says, of named ones too."""
    personal: Tensor
    """(N,) int64, row of the nearest prototype; -1 where nothing is close enough."""
    closeness: Tensor
    """(N,) float32, cosine with the nearest prototype, close enough or not; -1 where there was none to compare with."""
    embeddings: Tensor
    """(N, D) float32, what a prototype is made of."""


class PersonalGraph(nn.Module):
    """A copy of a student that detects and names what one image shows."""

    def __init__(self, student: Student, *, image_size: int, learner: str) -> None:
        """Fuses the copy.

        Args:
            student: detector and translation.
            image_size: pixels of the square that images are letterboxed to, rounded up to the detector's stride.
            learner: one of `GRAPH_LEARNERS`.
        """
        super().__init__()
        embedder = RegionEmbedder(student, image_size=image_size)
        self.image_size = embedder.image_size
        self.embedding_dim = student.embedding_dim
        self.features = embedder.features
        assert embedder.translation is not None, "a distilled student"
        self.translation = embedder.translation
        self.score_prototypes = GRAPH_LEARNERS[learner]
        self.detector = embedder.detector.to(memory_format=torch.contiguous_format)
        with torch.no_grad():  # its head computes the anchors at the first image
            self.detector(torch.zeros(1, 3, self.image_size, self.image_size))

    def forward(
        self, image: Tensor, area: Tensor, prototypes: Tensor, coarse: Tensor, objects: Tensor, threshold: Tensor,
        confidence: Tensor,
    ) -> PersonalDetections:  # fmt: skip
        """Detect, embed and name.

        Args:
            image: (1, 3, S, S) float32, RGB, 0..1, letterboxed.
            area: (4,) float32, xyxy in pixels: where the picture lies in the letterboxed square.
            prototypes: (P, D) float32, `PrototypeLearner.compared`; P may be 0.
            coarse: (P,) int64, the coarse class of each, 0 or more.
            objects: (P,) int64, the personal id of each, 0 or more.
            threshold: (P,) float32; a detection gets a prototype's name only where it is closer to it than this.
            confidence: (1,) float32; detections need more than this score.
        """
        with tap(self.detector, self.features) as maps:
            _, found = self.detector(image)
        boxes_N4, scores_N, classes_N = self._detect(found, confidence)
        embeddings_ND = self._embed(maps, boxes_N4.clamp(area[:2].repeat(2), area[2:].repeat(2)))
        known_PD = torch.cat([prototypes, prototypes.new_zeros(1, prototypes.shape[1])])
        coarse = torch.cat([coarse, coarse.new_full((1,), _NO_CLASS)])
        threshold = torch.cat([threshold, threshold.new_zeros(1)])
        nearest_N = self.score_prototypes(embeddings_ND, classes_N, known_PD, coarse).argmax(dim=1)
        cosine_N = (_unit(embeddings_ND) * _unit(known_PD)[nearest_N]).sum(dim=1)
        closeness_N = torch.where(coarse[nearest_N] == _NO_CLASS, _FARTHEST, cosine_N)
        personal_N = torch.where(closeness_N > threshold[nearest_N], nearest_N, UNKNOWN)
        found_N = PersonalDetections(boxes_N4, scores_N, classes_N, personal_N, closeness_N, embeddings_ND)
        once = _named_once(boxes_N4, scores_N, personal_N, objects)
        return PersonalDetections(*(column[once] for column in found_N))

    def _detect(self, found: Mapping[str, Tensor], confidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, 4), scores (N,) and classes (N,) from the head's output for each anchor.

        Boxes are decoded only where the score suffices, which on the CPU is quicker than the head's own order.
        """
        head: Any = self.detector.model[-1]
        logits_A, classes_A = found["scores"][0].max(dim=0)
        scores_A = logits_A.sigmoid()
        kept_K = (scores_A > confidence).nonzero()[:, 0]
        scores_K, classes_K = scores_A[kept_K], classes_A[kept_K]
        sides = found["boxes"][0][:, kept_K].T  # (K, 4 R): how far left, up, right and down the box reaches
        if head.reg_max > 1:  # as shares of R distances
            sides = (sides.reshape(-1, 4, head.reg_max).softmax(dim=2) * head.dfl.conv.weight.flatten()).sum(dim=2)
        anchors_K2 = head.anchors[:, kept_K].T
        boxes_K4 = torch.cat([anchors_K2 - sides[:, :2], anchors_K2 + sides[:, 2:]], dim=1) * head.strides[:, kept_K].T
        apart_K4 = boxes_K4 + classes_K[:, None] * _CLASS_OFFSET
        kept_N = nms(apart_K4, scores_K, NMS_IOU)[:_MOST_DETECTIONS]
        return boxes_K4[kept_N], scores_K[kept_N], classes_K[kept_N]

    def _embed(self, maps: FeatureMaps, boxes_N4: Tensor) -> Tensor:
        """(N, D): `embed_boxes` of one image."""
        shares_N4 = boxes_N4 / self.image_size
        maps = self.translation.own_maps(maps)
        if maps.deep:
            first = torch.zeros_like(shares_N4[:, 0], dtype=torch.int64)  # the only image
            means = [_means(level[0], shares_N4) for level in maps.deep[1::2]]
            deep_NC = deep_features(maps.deep, first, shares_N4, means)
            return self.translation.embed(RegionFeatures(deep_NC, deep_NC[:, :0]))
        shares = whole_cells if maps.whole_cells else axis_overlap
        means_NC = torch.cat([_means(level[0], shares_N4, shares) for level in maps.pyramid], dim=1)
        patches = [_patches(level, shares_N4) for level in maps.fine] or [means_NC[:, :0]]
        return self.translation.embed(RegionFeatures(means_NC, torch.cat(patches, dim=1)))


def _named_once(boxes_N4: Tensor, scores_N: Tensor, personal_N: Tensor, objects_P: Tensor) -> Tensor:
    """`named_once`: rows that stay, ascending. NMS was by class; this one is by name."""
    named_K = (personal_N != UNKNOWN).nonzero()[:, 0]
    apart_K4 = boxes_N4[named_K] + objects_P[personal_N[named_K]][:, None] * _CLASS_OFFSET
    once = named_K[nms(apart_K4, scores_N[named_K], SAME_THING_IOU)]
    is_unnamed_N = torch.where(personal_N == UNKNOWN, 1.0, 0.0)
    stays_N = is_unnamed_N.index_put((once,), torch.ones_like(scores_N[once]))
    return stays_N.nonzero()[:, 0]


def _means(level_CHW: Tensor, shares_N4: Tensor, shares: AxisShares = axis_overlap) -> Tensor:
    """(N, C): `box_means` of one level of one image."""
    _, height, width = level_CHW.shape
    weights_NX = shares(shares_N4[:, 0], shares_N4[:, 2], width)
    weights_NY = shares(shares_N4[:, 1], shares_N4[:, 3], height)
    return (weights_NY[:, :, None] * weights_NX[:, None, :]).flatten(1) @ level_CHW.flatten(1).T


def _patches(level_1CHW: Tensor, shares_N4: Tensor) -> Tensor:
    """(N, C, G, G): `box_patches` of one level of one image."""
    points = cell_centres(shares_N4).flatten(0, 1)[None]  # (1, N G, G, 2)
    sampled = grid_sample(level_1CHW, points, padding_mode="border", align_corners=False)[0]  # (C, N G, G)
    return sampled.reshape(level_1CHW.shape[1], shares_N4.shape[0], GRID, GRID).transpose(0, 1)


def _conditional(embeddings_ND: Tensor, classes_N: Tensor, known_PD: Tensor, coarse_P: Tensor) -> Tensor:
    """`ConditionalPrototypes`: the mean of three softmaxes over the prototypes of a detection's class (N, P)."""
    same_NP = classes_N[:, None] == coarse_P
    detection_Q, prototype_Q = same_NP.nonzero(as_tuple=True)
    ours, theirs = embeddings_ND[detection_Q], known_PD[prototype_Q]
    difference = ours - theirs
    distances = (
        (_unit(ours) - _unit(theirs)).square().sum(dim=1) / 2,  # 1 - cosine, without losing its digits
        difference.abs().mean(dim=1),
        difference.square().mean(dim=1),
    )
    none_NP = torch.where(coarse_P == _NO_CLASS, _LOWEST, _NOT_ASKED) + torch.zeros_like(same_NP, dtype=torch.float32)
    scores = [none_NP.index_put((detection_Q, prototype_Q), 1 / (each + EPSILON)) for each in distances]
    return torch.stack([each.softmax(dim=1) for each in scores]).mean(dim=0)


def _gallery(embeddings_ND: Tensor, classes_N: Tensor, known_PD: Tensor, coarse_P: Tensor) -> Tensor:  # noqa: ARG001
    """`CosineGallery` (N, P)."""
    return torch.where(coarse_P == _NO_CLASS, _LOWEST, _unit(embeddings_ND) @ known_PD.T)


def _protonet(embeddings_ND: Tensor, classes_N: Tensor, known_PD: Tensor, coarse_P: Tensor) -> Tensor:  # noqa: ARG001
    """`ProtoNet` before its softmax, which changes no order (N, P)."""
    squares_P = known_PD.square().sum(dim=1)
    return torch.where(coarse_P == _NO_CLASS, _LOWEST, 2 * embeddings_ND @ known_PD.T - squares_P)


def _simpleshot(embeddings_ND: Tensor, classes_N: Tensor, known_PD: Tensor, coarse_P: Tensor) -> Tensor:
    """`SimpleShot` before its softmax (N, P)."""
    return _protonet(_unit(embeddings_ND), classes_N, known_PD, coarse_P)


def _unit(rows: Tensor) -> Tensor:
    """Rows at norm 1; a zero row stays zero."""
    return normalize(rows, dim=1, eps=_TINY)


GRAPH_LEARNERS: Mapping[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "conditional": _conditional,
    "gallery": _gallery,
    "protonet": _protonet,
    "simpleshot": _simpleshot,
}
"""Learners that a graph can hold, by name.

They take embeddings (N, D) and classes (N,) of the detections, and prototypes (P, D) with their classes (P,), the last
row among them. They return scores (N, P), highest for the nearest prototype. The last row's score is below those of all
candidates.
"""
