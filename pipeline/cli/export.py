"""The `mocha-pipe export` command."""

from pathlib import Path
from typing import Annotated

import typer

from mocha_pipe.pipeline.cli.console import print_values
from mocha_pipe.pipeline.cli.options import FalseAcceptRate, Root, StudentFolder


def export(
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: student.onnx or .torchscript in the student's folder].")
    ] = None,
    file_format: Annotated[str, typer.Option("--format", help="onnx, or torchscript.")] = "onnx",
    student: StudentFolder = None,
    root: Root = Path("work"),
    imgsz: Annotated[
        int | None, typer.Option(min=32, help="Side of the images in pixels [default: as it was trained].")
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(
            help="That of your profiles: conditional, gallery, protonet or simpleshot "
            "[default: simpleshot for features deep, else conditional]."
        ),
    ] = None,
    false_accept_rate: FalseAcceptRate = 0.05,
) -> None:
    """Write a student as one file that a device runs without this package; your objects are an input of it."""
    from mocha_pipe.pipeline.personal.personalize import student_folder
    from mocha_pipe.student.personal.export import about_file, export_student

    folder = student_folder(root, student)
    path = out or folder / f"student.{file_format}"
    about = export_student(
        folder, path, file_format=file_format, image_size=imgsz, learner=learner, false_accept_rate=false_accept_rate
    )
    print_values(
        str(path),
        {
            "MiB": round(path.stat().st_size / 2**20, 1),
            "image": f"{about['image_size']} x {about['image_size']}, letterboxed",
            "classes": ", ".join(about["class_names"]),
            "learner": about["learner"],
            "a name above": f"closeness {about['thresholds'][0]:.3f} where one object competes",
            "false-accept rate": about["promise"],
            "student": about["student"][:12],
            **({"the same as JSON": about_file(path).name} if file_format == "onnx" else {}),
        },
    )
