"""Image in, personal boxes out: a student, a profile, and whatever `YOLO.predict` takes as source.

predictor.py runs ultralytics' prediction and embeds what it finds; naming.py gives the names.
"""

import warnings
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

from ultralytics import YOLO

from mocha_pipe.data.errors import MochaError, MochaWarning
from mocha_pipe.data.names import one_spelling
from mocha_pipe.student.errors import StudentModelError
from mocha_pipe.student.fewshot.strangers import DEFAULT_RATE, load_strangers
from mocha_pipe.student.network.student_files import DETECTOR_FILE, load_student
from mocha_pipe.student.personal.naming import Namer
from mocha_pipe.student.personal.predictor import PersonalPredictor
from mocha_pipe.student.personal.profile import Profile, student_digest


class PredictArgumentError(MochaError, ValueError):
    """An argument of a prediction does not go with personal names."""


class PersonalDetector:
    """A student that calls a user's objects by their names."""

    def __init__(
        self, student: Path, false_accept_rate: float, confidence: float, device: str, image_size: int | None
    ) -> None:
        """See `load`, which is what callers use."""
        self._path = student
        self.student = load_student(student)  # refuses what must not be unpickled, before YOLO loads the same file
        self._yolo = YOLO(student if student.suffix == ".pt" else student / DETECTOR_FILE)
        self._yolo.add_callback("on_predict_start", lambda each: each.adopt(self.student, lambda: self.namer))
        self._false_accept_rate = false_accept_rate
        self.confidence = confidence
        self.device = device
        self.image_size = image_size or self.student.image_size
        self.namer: Namer | None = None
        self._profile: Profile | None = None

    @classmethod
    def load(
        cls,
        student: Path | str,
        profile: Path | str | None = None,
        *,
        false_accept_rate: float = DEFAULT_RATE,
        confidence: float = 0.25,
        device: str = "cpu",
        image_size: int | None = None,
    ) -> Self:
        """Read a student and a profile.

        Args:
            student: folder of a distilled student, or without a profile the `.pt` of any detector.
            profile: file of a user's objects; None finds coarse classes only.
            false_accept_rate: share of strangers, other things than the objects, that may get a personal name.
            confidence: detections need more than this.
            device: as torch names devices.
            image_size: pixels of the square that images are letterboxed to, as they are where objects are learnt and
                by an exported student; None takes the student's.

        Raises:
            StudentModelError, StudentModelNotFoundError: no student, or one that cannot tell objects apart.
            ProfileError: no profile, or one that was made with another student.
            CalibrationError: the rate makes no sense.

        Warns:
            MochaWarning: the student was measured on too few regions for the rate; the text says which rate is kept.
        """
        detector = cls(Path(student), false_accept_rate, confidence, device, image_size)
        if profile is not None:
            detector.profile = Profile.load(Path(profile))
        return detector

    @property
    def profile(self) -> Profile | None:
        """The objects that get their names; another profile may be set at any time."""
        return self._profile

    @profile.setter
    def profile(self, profile: Profile | None) -> None:
        """Errors as in `load`."""
        namer = None
        if profile is not None:
            if self.student.translation is None:
                raise StudentModelError(
                    f"{self._path}: personal names need a distilled student, found a plain detector; "
                    "run `mocha-pipe distill` and name the folder of its student"
                )
            profile.check_student(student_digest(self._path))
            namer = Namer(profile, load_strangers(self._path), self._false_accept_rate)
            if namer.shortfall:
                warnings.warn(namer.shortfall, MochaWarning, stacklevel=2)
        self.namer, self._profile = namer, profile

    def __call__(self, source: Any, **arguments: Any) -> Any:
        """Detect and name.

        Args:
            source: whatever `YOLO.predict` takes: path, folder, glob, video, camera, stream, array, PIL image, tensor,
                or a list of them; or what `media.sources.open_loader` opened.
            arguments: of `YOLO.predict`, whose `rect` is False where it is not given; with `stream=True` results come
                one by one, and until the last of them ultralytics lets another call wait. `classes` takes ids and names
                as the results have them, one or a list: a class stands for all of its kind, yours too, and a personal
                name for that object alone.

        Returns:
            A list of `PersonalResults`, one per image or frame. A thing that was boxed under two classes has its
            personal name once (`naming.named_once`).

        Raises:
            SourceError: the source cannot be read.
            SavingError: with `save=True`, a drawn picture cannot be written.
            PredictArgumentError: an argument does not go with personal names.
        """
        return self._yolo.predict(source, **self._arguments({"conf": self.confidence, **arguments}))

    def track(self, source: Any, **arguments: Any) -> Any:
        """As a call, and objects keep an id from frame to frame (`boxes.id`); arguments are those of `YOLO.track`.

        Trackers work with faint detections too: `conf` is ultralytics' 0.1 where it is not given.
        """
        return self._yolo.track(source, **self._arguments(arguments))

    def _arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("augment"):
            raise PredictArgumentError(
                "augment=True looks at several versions of an image, whose boxes belong to no single one of them; "
                "leave it out"
            )
        own = {
            "imgsz": self.image_size, "rect": False, "device": self.device, "verbose": False,
            "predictor": PersonalPredictor,
        }  # fmt: skip
        return {**own, **arguments, "classes": self._ids(arguments.get("classes"))}

    def _ids(self, classes: Any) -> list[int] | None:
        """Ids of classes and objects that were named in any way; None stands for all."""
        if classes is None:
            return None
        names = self.namer.names if self.namer else dict(enumerate(self.student.class_names))
        by_name = {one_spelling(name): number for number, name in names.items()}
        wanted = classes.tolist() if hasattr(classes, "tolist") else classes  # an array or tensor
        ids = []
        for each in wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]:
            number = by_name.get(one_spelling(each)) if isinstance(each, str) else each
            if isinstance(number, bool) or not isinstance(number, Integral) or number not in names:
                known = ", ".join(f"{number} {name!r}" for number, name in names.items())
                raise PredictArgumentError(f"classes must be ids or names of {known}; found {each!r}")
            ids.append(int(number))
        return ids
