"""The personal detector as one module: image and prototypes in; boxes, coarse classes and personal objects out.

It computes what `RegionEmbedder` and a `PrototypeLearner` do with one image, in operations that can be exported. What
changes after an export (objects, thresholds, least score) is an input.

No operation meets a table without rows before the last one of each output, for runtimes that stumble over those. One
more row is put behind the prototypes, which stands for none of them, and one before the detections, which is thrown
away at the end.

Legend: S side of the image, A anchors, K candidates, N detections, R regions, E = R + N, P prototypes, D width of an
embedding, C channels, G cells of a patch's side, Q pairs of a detection and a prototype that it is compared with.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import torch
from torch import Tensor, nn
from torchvision.ops import nms  # type: ignore[import-untyped]

from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.fewshot.prototypes import EPSILON
from mocha_pipe.student.network.deep import deep_features
from mocha_pipe.student.network.embedder import NMS_IOU, RegionEmbedder
from mocha_pipe.student.network.features import (
    AxisShares,
    FeatureMaps,
    RegionFeatures,
    axis_overlap,
    cell_centres,
    tap,
    whole_cells,
)
from mocha_pipe.student.network.student_files import Student
from mocha_pipe.student.network.translation import unit_length
from mocha_pipe.student.personal.naming import SAME_THING_IOU

# As in ultralytics' non_max_suppression.
_CLASS_OFFSET = 7680
_MOST_DETECTIONS = 300

_TINY = torch.finfo(torch.float32).tiny
_NO_DETECTION = 2.0  # score of the first row, better than any
_NO_CLASS = -1  # coarse id of the last prototype
_LOWEST = -1e38  # score of the last prototype, which wins where a detection has no candidates
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
    region_embeddings: Tensor
    """(R, D) float32, the same of the regions that were asked for."""


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
        confidence: Tensor, regions: Tensor,
    ) -> PersonalDetections:  # fmt: skip
        """Detect, embed and name.

        Args:
            image: (1, 3, S, S) float32, RGB, 0..1, letterboxed.
            area: (4,) float32, xyxy in pixels: where the picture lies in the letterboxed square.
            prototypes: (P, D) float32, `PrototypeLearner.compared`; P may be 0.
            coarse: (P,) int64, the coarse class of each; -1 makes a row stand for no object, and nothing is near to it.
            objects: (P,) int64, the personal id of each, 0 or more.
            threshold: (P,) float32; a detection gets a prototype's name only where it is closer to it than this.
            confidence: (1,) float32; detections need more than this score.
            regions: (R, 4) float32, xyxy in pixels of the image: what else to embed; R may be 0.
        """
        with tap(self.detector, self.features) as maps:
            _, found = self.detector(image)
        boxes_N4, scores_N, classes_N = self._detect(found, confidence)
        shown_E4 = torch.cat([regions, boxes_N4]).clamp(area[:2].repeat(2), area[2:].repeat(2))
        embeddings_ED = self._embed(maps, shown_E4)
        embeddings_ND = embeddings_ED[regions.shape[0] :]
        known_PD = torch.cat([prototypes, prototypes.new_zeros(1, prototypes.shape[1])])
        coarse = torch.cat([coarse, coarse.new_full((1,), _NO_CLASS)])
        objects = torch.cat([objects, objects.new_zeros(1)])
        threshold = torch.cat([threshold, threshold.new_zeros(1)])
        nearest_N = self.score_prototypes(embeddings_ND, classes_N, known_PD, coarse).argmax(dim=1)
        cosine_N = (_unit(embeddings_ND) * _unit(known_PD)[nearest_N]).sum(dim=1)
        closeness_N = torch.where(coarse[nearest_N] == _NO_CLASS, _FARTHEST, cosine_N)
        is_named_N = (closeness_N > threshold[nearest_N]) & (scores_N < _NO_DETECTION)
        personal_N = torch.where(is_named_N, nearest_N, UNKNOWN)
        once = _named_once(boxes_N4, scores_N, personal_N, objects)[1:]
        columns = (boxes_N4, scores_N, classes_N, personal_N, closeness_N, embeddings_ND)
        return PersonalDetections(*[*(column[once] for column in columns), embeddings_ED[: regions.shape[0]]])

    def _detect(self, found: Mapping[str, Tensor], confidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, 4), scores (N,) and classes (N,) from the head's output for each anchor; the first is no detection.

        Boxes are decoded only where the score suffices, which on the CPU is quicker than the head's own order.
        """
        head: Any = self.detector.model[-1]
        logits_A, classes_A = found["scores"][0].max(dim=0)
        scores = torch.cat([logits_A.new_full((1,), _NO_DETECTION), logits_A.sigmoid()])  # (1 + A,)
        row_K = (scores > confidence).nonzero()[:, 0]
        kept_K = (row_K - 1).clamp(min=0)  # what is no detection looks at the first anchor
        scores_K, classes_K = scores[row_K], classes_A[kept_K]
        sides = found["boxes"][0][:, kept_K].T  # (K, 4 R): how far left, up, right and down the box reaches
        if head.reg_max > 1:  # as shares of R distances
            sides = (sides.reshape(-1, 4, head.reg_max).softmax(dim=2) * head.dfl.conv.weight.flatten()).sum(dim=2)
        anchors_K2 = head.anchors[:, kept_K].T
        boxes_K4 = torch.cat([anchors_K2 - sides[:, :2], anchors_K2 + sides[:, 2:]], dim=1) * head.strides[:, kept_K].T
        apart_K4 = boxes_K4 + torch.where(row_K > 0, classes_K, _NO_CLASS)[:, None] * _CLASS_OFFSET
        kept_N = _best(apart_K4, scores_K, NMS_IOU)
        return boxes_K4[kept_N], scores_K[kept_N], classes_K[kept_N]

    def _embed(self, maps: FeatureMaps, boxes_N4: Tensor) -> Tensor:
        """(N, D): `embed_boxes` of one image, without the clipping."""
        shares_N4 = boxes_N4 / self.image_size
        maps = self.translation.own_maps(maps)
        if maps.deep:
            first = torch.zeros_like(shares_N4[:, 0], dtype=torch.int64)  # the only image
            means = [_means(level[0], shares_N4) for level in maps.deep[1::2]]
            deep_NC = deep_features(maps.deep, first, shares_N4, means)
            return self.translation.embed(RegionFeatures(deep_NC, deep_NC[:, :0]))
        shares = whole_cells if maps.whole_cells else axis_overlap
        means_NC = torch.cat([_means(level[0], shares_N4, shares) for level in maps.pyramid], dim=1)
        patches = [_patches(level[0], shares_N4) for level in maps.fine] or [means_NC[:, :0]]
        return self.translation.embed(RegionFeatures(means_NC, torch.cat(patches, dim=1)))


class _Best(torch.autograd.Function):
    """`_best`, and what it is in ONNX: there the limit stands inside, so that every runtime knows the most rows."""

    @staticmethod
    def forward(_context: Any, boxes_K4: Tensor, scores_K: Tensor, iou: float) -> Tensor:
        rows: Tensor = nms(boxes_K4, scores_K, iou)
        return rows[: _MOST_DETECTIONS + 1]

    @staticmethod
    def symbolic(g: Any, boxes_K4: Any, scores_K: Any, iou: float) -> Any:
        def constant(value: Any) -> Any:
            return g.op("Constant", value_t=torch.tensor(value))

        boxes = g.op("Unsqueeze", boxes_K4, constant([0]))
        scores = g.op("Unsqueeze", scores_K, constant([0, 1]))
        kept = g.op("NonMaxSuppression", boxes, scores, constant([_MOST_DETECTIONS + 1]), constant([iou]))
        return g.op("Gather", kept, constant(2), axis_i=1)  # of image, class and box the last


def _best(boxes_K4: Tensor, scores_K: Tensor, iou: float) -> Tensor:
    """Rows that NMS keeps, best score first: the one that is no detection, and so many that are."""
    best: Callable[..., Tensor] = _Best.apply if torch.onnx.is_in_onnx_export() else partial(_Best.forward, None)
    return best(boxes_K4, scores_K, iou)


def _named_once(boxes_N4: Tensor, scores_N: Tensor, personal_N: Tensor, objects_P: Tensor) -> Tensor:
    """`named_once`: rows that stay, ascending. NMS was by class; this one is by name.

    What has no name becomes a box of no area, which overlaps nothing.
    """
    is_named_N1 = (personal_N != UNKNOWN)[:, None]
    apart_N4 = boxes_N4 + objects_P[personal_N.clamp(min=0)][:, None] * _CLASS_OFFSET
    return _best(torch.where(is_named_N1, apart_N4, 0.0), scores_N, SAME_THING_IOU)


def _means(level_CHW: Tensor, shares_N4: Tensor, shares: AxisShares = axis_overlap) -> Tensor:
    """(N, C): `box_means` of one level of one image."""
    _, height, width = level_CHW.shape
    weights_NX = shares(shares_N4[:, 0], shares_N4[:, 2], width)
    weights_NY = shares(shares_N4[:, 1], shares_N4[:, 3], height)
    return (weights_NY[:, :, None] * weights_NX[:, None, :]).flatten(1) @ level_CHW.flatten(1).T


def _patches(level_CHW: Tensor, shares_N4: Tensor) -> Tensor:
    """(N, C, G, G): `box_patches` of one level of one image.

    Reads the four cells around a point with all channels at once. GridSample, which computes where to read for each
    channel anew, takes three times as long in onnxruntime.
    """
    _, height, width = level_CHW.shape
    cells = level_CHW.flatten(1).T  # (H W, C)
    points = cell_centres(shares_N4)  # (N, G, G, 2)
    x, y = (((points[..., axis] + 1) * side - 1) / 2 for axis, side in enumerate((width, height)))
    sampled: Any = 0  # (N, G, G, C)
    for row, share_y in _neighbours(y, height):
        for column, share_x in _neighbours(x, width):
            sampled = sampled + cells[row * width + column] * (share_y * share_x)[..., None]
    patches: Tensor = sampled.permute(0, 3, 1, 2)
    return patches


def _neighbours(place: Tensor, cells: int) -> list[tuple[Tensor, Tensor]]:
    """Of places on an axis: the cells before and behind (int64), each with its weight; the map clips them."""
    place = place.clamp(0, cells - 1)
    before = place.floor()
    share = place - before
    return [(before.long(), 1 - share), ((before + 1).clamp(max=cells - 1).long(), share)]


def _conditional(embeddings_ND: Tensor, classes_N: Tensor, known_PD: Tensor, coarse_P: Tensor) -> Tensor:
    """`ConditionalPrototypes`: the mean of three softmaxes over the prototypes of a detection's class (N, P)."""
    is_none_P = coarse_P == _NO_CLASS
    asked_NP = (classes_N[:, None] == coarse_P) | is_none_P
    detection_Q, prototype_Q = asked_NP.nonzero(as_tuple=True)
    ours, theirs = embeddings_ND[detection_Q], known_PD[prototype_Q]
    difference = ours - theirs
    distances = (
        (_unit(embeddings_ND)[detection_Q] - _unit(known_PD)[prototype_Q]).square().sum(dim=1)
        / 2,  # 1 - cosine, without losing its digits
        difference.abs().mean(dim=1),
        difference.square().mean(dim=1),
    )
    not_asked_NP = torch.where(asked_NP, _LOWEST, _NOT_ASKED)
    scores = [
        not_asked_NP.index_put(
            (detection_Q, prototype_Q), torch.where(is_none_P[prototype_Q], _LOWEST, 1 / (each + EPSILON))
        )
        for each in distances
    ]
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
    return unit_length(rows, _TINY)


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
