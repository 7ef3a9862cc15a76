"""Ultralytics' prediction with personal names: what NMS leaves is embedded from the maps that the detector made.

Legend: M detections, C coarse classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from pathlib import Path
from typing import Any

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

import numpy as np
import torch
import torchvision  # type: ignore[import-untyped]  # noqa: F401  (ultralytics' NMS uses it only where it is imported)
from torch import Tensor
from ultralytics.engine.results import BaseTensor, Boxes, Results
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils import LOGGER
from ultralytics.utils.plotting import colors

from mocha_pipe.data.errors import first_line
from mocha_pipe.data.names import file_part, one_line
from mocha_pipe.student.environment import cpu_threads
from mocha_pipe.student.fewshot.learner import UNKNOWN
from mocha_pipe.student.network.embedder import embed_boxes, picture_area
from mocha_pipe.student.network.features import FeatureMaps, tap
from mocha_pipe.student.network.student_files import Student
from mocha_pipe.student.personal import labels  # noqa: F401  (results are then drawn with its fonts)
from mocha_pipe.student.personal.media.drawings import Drawings
from mocha_pipe.student.personal.media.files import SourceError, unreadable
from mocha_pipe.student.personal.media.sources import open_loader, refuse_addresses
from mocha_pipe.student.personal.naming import Namer, named_once
from mocha_pipe.student.training import decoding  # noqa: F401  (ultralytics then looks at files by our decoder)

_STREAM_FPS = 30  # as ultralytics writes streams


class PersonalResults(Results):  # type: ignore[misc]  # ultralytics is untyped
    """What was found in one image; `names` and `boxes.cls` count personal object k as C + k."""

    coarse: Tensor  # (M,)
    """Coarse class of each box, which is what the detector says, as `boxes.cls` would have it without a profile."""
    certainty: Tensor  # (M,) float32
    """Share of strangers that look less like the object than this box does, 0..1; 0 without a personal name."""

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
        """Changes all parts alike; indexing, tracking, `cpu`, `numpy` and `to` go through here."""
        result: PersonalResults = super()._apply(fn, *arguments, **keywords)
        for name in ("coarse", "certainty"):
            values = getattr(BaseTensor(getattr(self, name), self.orig_shape), fn)(*arguments, **keywords)
            setattr(result, name, values.data.reshape(-1))  # a single box, taken by its index, stays a row
        return result

    def plot(self, conf: bool = True, line_width: float | None = None, **drawing: Any) -> Any:
        """As ultralytics', with personal objects on top of the others, whose lines are half as wide.

        The label of a personal object also has the class that the detector says: `my mug (cup) 0.93`.
        """
        wide = line_width or max(round(sum(self.orig_shape) / 2 * 0.003), 2)
        below = {name: value for name, value in drawing.items() if name not in ("pil", "show", "save", "filename")}
        canvas = Results.plot(self[~self.is_personal], conf, max(int(wide) // 2, 1), **below)
        return Results.plot(self[self.is_personal]._with_classes(), conf, wide, **{**drawing, "img": canvas})

    def save_crop(self, save_dir: str | Path, file_name: str | Path = Path("im.jpg")) -> None:
        """As ultralytics', into a folder for each name; no name leads out of `save_dir`."""
        cleaned = copy(self)
        cleaned.names = {number: file_part(name) for number, name in self.names.items()}
        Results.save_crop(cleaned, save_dir, file_name)

    def _with_classes(self) -> "PersonalResults":
        """Under names of their own, each with its class, in the colours that they have."""
        apart = -(-len(self.names) // colors.n) * colors.n
        data = self.boxes.data + 0  # a copy, of a tensor as of an array
        data[:, -1] += apart * (1 + self.coarse)
        labelled = copy(self)
        labelled.boxes = Boxes(data, self.orig_shape)
        columns = (data[:, -1], self.boxes.cls, self.coarse)
        labelled.names = {
            row: f"{self.names[name]} ({self.names[coarse]})"
            for row, name, coarse in zip(*(map(int, column) for column in columns), strict=True)
        }
        return labelled


class PersonalPredictor(DetectionPredictor):  # type: ignore[misc]  # ultralytics is untyped
    """Ultralytics' predictor for `YOLO.predict(..., predictor=PersonalPredictor)`, which makes one and keeps it."""

    student: Student
    namer: Callable[[], Namer | None]
    """Asked at every batch; None leaves coarse names."""
    maps: FeatureMaps
    """Of the last forward pass."""
    loader: Any = None
    """What reads the source, of the run that goes on."""
    drawings: Drawings | None = None
    """Of that run, where drawn pictures are saved."""
    stay: list[Tensor]
    """Of each image of the last batch: which detections stay (m,), by `named_once` and `wanted`."""
    wanted: Tensor | None
    """Ids of classes and objects to which detections are cut down only when they have their names; None for all."""

    def adopt(self, student: Student, namer: Callable[[], Namer | None]) -> None:
        """Gives names from now on; the student's translation moves to this device. A second call changes nothing."""
        if hasattr(self, "student"):
            return
        self.student, self.namer = student, namer
        self._taps = ExitStack()  # stays open: this copy of the model is the predictor's own
        self.maps = self._taps.enter_context(tap(self.model.model, student.features))
        if student.translation is not None:
            student.translation.to(self.device)

    def setup_model(self, model: Any, verbose: bool = True) -> None:
        """Also gives the process all its cores: ultralytics spares one for a data loader, and there is none."""
        super().setup_model(model, verbose)
        if self.device.type == "cpu":
            torch.set_num_threads(cpu_threads())

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """As ultralytics', but sources are found by `open_loader`, and drawings go where they replace no photo.

        Raises:
            SourceError: the source cannot be read, or lies where the drawn pictures would go.
            SavingError: drawn pictures cannot go where they should.
        """
        self.loader = self.drawings = None
        if isinstance(source, str | int | Path):
            options = {"vid_stride": self.args.vid_stride, "buffer": self.args.stream_buffer}
            source = open_loader([source], batch=self.args.batch, **options)
        elif isinstance(source, list | tuple):
            refuse_addresses(source)
        try:
            super().setup_source(source, stride)
        except OSError as error:
            raise unreadable(f"this {type(source).__name__}", first_line(error)) from error
        self.loader = self.dataset
        if self.args.save:
            files = [Path(file) for file in getattr(self.dataset, "files", ())]
            folders = {file.parent for file in files} | {file.resolve().parent for file in files}
            if self.save_dir.resolve() in {folder.resolve() for folder in folders}:
                raise SourceError(
                    f"{self.save_dir}: drawn pictures would replace what lies there; save to another folder"
                )
            self.drawings = Drawings(self.save_dir)

    def stream_inference(self, *arguments: Any, **keywords: Any) -> Iterator[PersonalResults]:
        """As ultralytics'; at the end drawn videos get their place, and warnings say what was left out."""
        try:
            yield from super().stream_inference(*arguments, **keywords)
        finally:
            loader, drawings, self.loader, self.drawings = self.loader, self.drawings, None, None
            for source, reason in getattr(loader, "left_out", ()):
                LOGGER.warning(f"{one_line(source)} was left out: {one_line(reason)}")
            if drawings:
                drawings.close()
                if others := [path.name for path in drawings.renamed]:
                    LOGGER.warning(
                        f"{drawings.folder} holds files that are no drawings of an earlier run and stay; drawn under "
                        f"another name: {', '.join(others[:3])}{f' and {len(others) - 3} more' if others[3:] else ''}"
                    )

    def save_predicted_images(self, save_path: Path, frame: int | None = 0) -> None:
        """Write the plotted image, or add it to the video of its source.

        Raises:
            SavingError: it cannot be written.
        """
        assert self.drawings is not None, "setup_source made them"
        if self.dataset.mode not in {"stream", "video"}:
            self.drawings.picture(save_path.stem, self.plotted_img)
            return
        if self.args.save_frames:
            self.drawings.picture(f"{save_path.stem}_frames/{save_path.stem}_{frame}", self.plotted_img)
        fps = self.dataset.fps if self.dataset.mode == "video" else _STREAM_FPS
        self.drawings.frame(save_path.stem, self.plotted_img, max(1, fps / self.args.vid_stride))

    def postprocess(self, *arguments: Any, **keywords: Any) -> list[PersonalResults]:
        """As ultralytics', whose features for trackers are then those of the boxes that stay.

        Personal objects among `classes` are known only when boxes have their names, so that NMS leaves all classes.
        """
        wanted = self.args.classes
        self.wanted = None
        if wanted is not None and max(wanted, default=0) >= len(self.model.names):
            self.wanted = torch.tensor(wanted)
        try:
            self.args.classes = wanted if self.wanted is None else None
            results: list[PersonalResults] = super().postprocess(*arguments, **keywords)
        finally:
            self.args.classes = wanted
        for result, stays in zip(results, self.stay, strict=True):
            if len(getattr(result, "feats", ())):
                result.feats = result.feats[stays]
        return results

    def construct_results(self, preds: list[Tensor], img: Tensor, orig_imgs: Sequence[Any]) -> list[PersonalResults]:
        """Results with names, from detections (m, 6) in pixels of the tensor that entered the network."""
        namer = self.namer()
        named = list(self._name(namer, preds, img, orig_imgs))  # before the boxes are scaled in place
        self.stay = [self._is_wanted(rows, ids) & _once(rows, ids) for rows, (ids, _) in zip(preds, named, strict=True)]
        preds = [rows[stays] for rows, stays in zip(preds, self.stay, strict=True)]
        named = [(ids[stays], certainty[stays]) for (ids, certainty), stays in zip(named, self.stay, strict=True)]
        names = namer.names if namer else self.model.names
        found = []
        for plain, (ids, certainty) in zip(super().construct_results(preds, img, orig_imgs), named, strict=True):
            boxes = plain.boxes.data
            coarse = boxes[:, 5].clone()
            boxes[:, 5] = torch.where(ids == UNKNOWN, coarse, (len(self.model.names) + ids).to(coarse))
            found.append(PersonalResults(plain.orig_img, plain.path, names, boxes, coarse=coarse, certainty=certainty))
        return found

    def _is_wanted(self, rows_M6: Tensor, ids_M: Tensor) -> Tensor:
        """Which detections of an image are of a class or an object that was asked for (M,)."""
        if self.wanted is None:
            return torch.ones_like(ids_M, dtype=torch.bool)
        wanted = self.wanted.to(ids_M.device)
        mine = (ids_M != UNKNOWN) & torch.isin(len(self.model.names) + ids_M, wanted)
        return mine | torch.isin(rows_M6[:, 5].long(), wanted)

    def _name(
        self, namer: Namer | None, preds: Sequence[Tensor], img: Tensor, orig_imgs: Sequence[Any]
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Of each image: personal ids (m,) int64 and certainties (m,) float32 of its detections."""
        counts = [len(rows) for rows in preds]
        coarse = torch.cat([rows[:, 5] for rows in preds]).long().cpu().numpy()
        ids, sure = np.full(len(coarse), UNKNOWN), np.zeros(len(coarse), np.float32)
        if namer and (asked := namer.may_name(coarse)).any():
            size = (img.shape[2], img.shape[3])
            wanted = torch.split(torch.from_numpy(asked).to(img.device), counts)
            boxes = [rows[mask, :4] for rows, mask in zip(preds, wanted, strict=True)]
            areas = np.stack([picture_area(size, image.shape[:2]) for image in orig_imgs])
            embeddings = embed_boxes(self.maps, self.student.translation, boxes, areas, size)
            ids[asked], sure[asked] = namer(torch.cat(embeddings).cpu().numpy(), coarse[asked])
        columns = (torch.split(torch.from_numpy(column).to(img.device), counts) for column in (ids, sure))
        return zip(*columns, strict=True)


def _once(rows_M6: Tensor, ids_M: Tensor) -> Tensor:
    """Which detections of an image stay (M,): `named_once`."""
    rows, ids = rows_M6.cpu().numpy(), ids_M.cpu().numpy()
    return torch.from_numpy(named_once(rows[:, :4], ids, rows[:, 5])).to(ids_M.device)
