"""The detector that a training starts from."""

from pathlib import Path

import mocha_pipe.student.environment  # noqa: F401  (before ultralytics)

# isort: split

from ultralytics.nn.tasks import guess_model_task, yaml_model_load

from mocha_pipe.student.errors import StudentModelError, StudentModelNotFoundError
from mocha_pipe.student.network.student_files import load_detector


def find_model(model: str) -> str:
    """The model to start from, checked before anything is trained.

    Raises:
        StudentModelNotFoundError: no such file or name.
        StudentModelError: not a detector.
    """
    suffix = Path(model).suffix.lower()
    if suffix == ".pt":
        if not Path(model).is_file():
            raise StudentModelNotFoundError(
                f"{model}: no such file, and weights are not downloaded. Get it from "
                "https://github.com/ultralytics/assets/releases and pass its path with --student, "
                f"or pass --student {Path(model).stem}.yaml to start from random weights."
            )
        load_detector(Path(model))
        return str(Path(model).resolve())
    if suffix not in {".yaml", ".yml"} or "://" in model:
        raise StudentModelError(
            f"--student must be a local .pt file or a .yaml, found {model!r}; "
            "for example --student yolov8n.yaml, or --student path/to/yolov8n.pt."
        )
    try:
        task = guess_model_task(yaml_model_load(model))
    except FileNotFoundError as error:
        raise StudentModelNotFoundError(
            f"{model}: no such file, and no model that ultralytics ships; for example --student yolov8n.yaml."
        ) from error
    if task != "detect":
        raise StudentModelError(f"{model}: the student must be a YOLO detector, this is a model for {task!r}.")
    return str(Path(model).resolve()) if Path(model).is_file() else model
