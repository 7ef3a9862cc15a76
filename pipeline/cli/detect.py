"""The `mocha-pipe detect` command."""

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from mocha_pipe.pipeline.cli import options


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            show_default=False,
            help="Images, folders, videos and quoted globs, one after the other; or alone a camera's index, the "
            "URL of a stream, or a .txt file that lists sources.",
        ),
    ],
    profile: options.ProfileFile = None,
    student: options.StudentFolder = None,
    root: options.Root = Path("work"),
    confidence: options.DetectionConfidence = 0.25,
    false_accept_rate: options.FalseAcceptRate = 0.05,
    device: options.Device = "auto",
    save: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder for drawn pictures; a video becomes a video. Only drawings of an earlier run are replaced.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of json per image or frame on stdout.")
    ] = False,
) -> None:
    """Find objects in images, videos or a camera's picture, and call yours by their names; Ctrl-C ends it."""
    # What OpenCV and FFmpeg cannot open, our error says in one line; read when they are loaded.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from mocha_pipe.pipeline.personal.detect import detect, find_profile
    from mocha_pipe.pipeline.personal.personalize import student_folder
    from mocha_pipe.pipeline.run.devices import torch_device

    place = torch_device(device)
    mine, folder = find_profile(root, profile), student_folder(root, student)
    from mocha_pipe.student.personal.detector import PersonalDetector  # only when these are there

    detector = PersonalDetector.load(
        folder, mine, false_accept_rate=false_accept_rate, confidence=confidence, device=place
    )
    frames, seconds = 0, 0.0
    try:
        with closing(detect(detector, sources, save)) as found:
            for frame in found:
                frames, seconds = frames + 1, seconds + frame.seconds
                typer.echo(json.dumps(frame.to_json()) if as_json else frame.describe())
    except KeyboardInterrupt:
        typer.echo(_summary("stopped after", frames, seconds, save), err=True)
        raise typer.Exit(130) from None
    typer.echo(_summary("looked at", frames, seconds, save), err=True)


def _summary(what: str, frames: int, seconds: float, save: Path | None) -> str:
    speed = f", {1000 * seconds / frames:.0f} ms each" if frames else ""
    drawn = f"; drawn in {save}" if save else ""
    return f"{what} {frames} image{'s' * (frames != 1)}{speed}{drawn}"
