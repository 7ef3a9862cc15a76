"""Ultralytics' prediction with personal names: what NMS left is embedded from the maps that the detector made anyway.

Legend: M detections, C coarse classes.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import torch
import torchvision  # type: ignore[import-untyped]  # noqa: F401  (ultralytics' NMS uses it only where it is imported)
from torch import Tensor
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS
from ultralytics.engine.results import BaseTensor, Results
from ultralytics.models.yolo.detect import DetectionPredictor

from mocha_pipe.data.errors import MochaError, first_line
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.network.embedder import embed_boxes, picture_area
from mocha_pipe.student.network.features import FeatureMaps, tap
from mocha_pipe.student.network.student_files import Student
from mocha_pipe.student.personal.naming import Namer


class SourceError(MochaError, OSError):
    """What should be looked at cannot be read."""


class Owner(Protocol):
    """The detector that a predictor works for."""

    student: Student
    namer: Namer | None
    """None where no profile was named; it may change at any time."""


class PersonalResults(Results):  # type: ignore[misc]  # ultralytics is untyped
    """What was found in one image; `names` and `boxes.cls` count personal object k as C + k."""

    coarse: Tensor  # (M,)
    """Coarse class of each box, as `boxes.cls` would have it without a profile."""
    certainty: Tensor  # (M,) float32
    """Share of strangers that look less like the object than this box does, 0..1; 0 where it has no personal name."""

    def __init__(self, *arguments: Any, coarse: Tensor, certainty: Tensor, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.coarse = coarse
        self.certainty = certainty

    @property
    def is_personal(self) -> Any:
        """Whether each box has a personal name (M,)."""
        return self.boxes.cls != self.coarse

    def new(self) -> "PersonalResults":
        """The same image without boxes."""
        none = {"coarse": self.coarse[:0], "certainty": self.certainty[:0]}
        new = PersonalResults(self.orig_img, self.path, self.names, speed=self.speed, **none)
        new.save_dir = self.save_dir
        return new

    def _apply(self, fn: str, *arguments: Any, **keywords: Any) -> "PersonalResults":
        """What indexing, `cpu`, `numpy` and `to` go through, and tracking with them."""
        result: PersonalResults = super()._apply(fn, *arguments, **keywords)
        for name in ("coarse", "certainty"):
            values = getattr(BaseTensor(getattr(self, name), self.orig_shape), fn)(*arguments, **keywords)
            setattr(result, name, values.data.reshape(-1))  # one box, taken by its index, stays a row
        return result

    def plot(self, conf: bool = True, line_width: float | None = None, **drawing: Any) -> Any:
        """As ultralytics', with personal objects on top of the others, whose lines are half as wide."""
        wide = line_width or max(round(sum(self.orig_shape) / 2 * 0.003), 2)
        below = {name: value for name, value in drawing.items() if name not in ("pil", "show", "save", "filename")}
        canvas = Results.plot(self[~self.is_personal], conf, max(int(wide) // 2, 1), **below)
        return Results.plot(self[self.is_personal], conf, wide, **{**drawing, "img": canvas})


class PersonalPredictor(DetectionPredictor):  # type: ignore[misc]  # ultralytics is untyped
    """Ultralytics' predictor for `YOLO.predict(..., predictor=PersonalPredictor)`, asked by its owner."""

    owner: Owner
    maps: FeatureMaps
    """Of the last forward pass."""

    def adopt(self, owner: Owner) -> None:
        """Makes this the predictor of a detector, once; what the detector brings moves to where this one computes."""
        if hasattr(self, "owner"):
            return
        self.owner = owner
        self._taps = ExitStack()  # open as long as the predictor lives, which has a copy of the model for itself
        self.maps = self._taps.enter_context(tap(self.model.model, owner.student.features))
        if owner.student.translation is not None:
            owner.student.translation.to(self.device)

    def setup_model(self, model: Any, verbose: bool = True) -> None:
        """Also gives the process all its cores, of which ultralytics leaves one to a data loader that is not there."""
        super().setup_model(model, verbose)
        if self.device.type == "cpu":
            torch.set_num_threads(cpu_threads())

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """As ultralytics', but nothing is downloaded, nobody's photos are drawn over, and errors are one line.

        Raises:
            SourceError: the source cannot be read, or lies where the drawn pictures would go.
        """
        shown = str(source) if isinstance(source, str | int | Path) else f"this {type(source).__name__}"
        address = urlsplit(shown.lower())
        if address.scheme in {"http", "https"} and address.path.rpartition(".")[-1] in IMG_FORMATS | VID_FORMATS:
            raise SourceError(f"{shown}: files behind a URL are not fetched; download it and name the local file")
        try:
            super().setup_source(source, stride)
        except (OSError, ImportError) as error:
            reason = first_line(error).rpartition("... ")[2]  # after the number of the stream
            raise SourceError(
                f"{shown} cannot be read ({reason}): name an image, a folder or a glob of images, a video, the "
                "index of a camera or the URL of a stream"
            ) from error
        photos = getattr(self.dataset, "files", ()) if self.args.save else ()
        if self.save_dir.resolve() in {Path(photo).resolve().parent for photo in photos}:
            raise SourceError(f"{self.save_dir}: drawn pictures would replace what lies there; save to another folder")

    def construct_results(self, preds: list[Tensor], img: Tensor, orig_imgs: Sequence[Any]) -> list[PersonalResults]:
        """Results with names, from detections (m, 6) in pixels of the tensor that entered the network."""
        namer = self.owner.namer
        counts = [len(rows) for rows in preds]
        personal, sure = self._name(namer, preds, img, orig_imgs)  # before the boxes are scaled in place
        names = namer.names if namer else self.model.names
        found = []
        results = super().construct_results(preds, img, orig_imgs)
        parts = (torch.split(column, counts) for column in (personal, sure))
        for plain, ids, certainty in zip(results, *parts, strict=True):
            boxes = plain.boxes.data
            coarse = boxes[:, 5].clone()
            boxes[:, 5] = torch.where(ids == UNKNOWN, coarse, (len(self.model.names) + ids).to(coarse))
            result = PersonalResults(plain.orig_img, plain.path, names, boxes, coarse=coarse, certainty=certainty)
            found.append(result)
        return found

    def _name(
        self, namer: Namer | None, preds: Sequence[Tensor], img: Tensor, orig_imgs: Sequence[Any]
    ) -> tuple[Tensor, Tensor]:
        """Personal ids (M,) int64 and certainties (M,) float32 of the detections of all images."""
        coarse = torch.cat([rows[:, 5] for rows in preds]).long().cpu().numpy()
        ids, sure = np.full(len(coarse), UNKNOWN), np.zeros(len(coarse), np.float32)
        asked = namer.may_name(coarse) if namer else np.zeros(len(coarse), bool)
        if namer and asked.any():
            size = (img.shape[2], img.shape[3])
            wanted = torch.split(torch.from_numpy(asked).to(img.device), [len(rows) for rows in preds])
            boxes = [rows[mask, :4] for rows, mask in zip(preds, wanted, strict=True)]
            areas = np.stack([picture_area(size, image.shape[:2]) for image in orig_imgs])
            embeddings = embed_boxes(self.maps, self.owner.student.translation, boxes, areas, size)
            ids[asked], sure[asked] = namer(torch.cat(embeddings).cpu().numpy(), coarse[asked])
        return torch.from_numpy(ids).to(img.device), torch.from_numpy(sure).to(img.device)
