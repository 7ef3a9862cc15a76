"""The options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

Toml = Annotated[Path | None, typer.Option("--config", help="TOML file with settings; flags win over it.")]
Root = Annotated[Path | None, typer.Option(help="Folder for whatever has no folder of its own [default: work].")]
Data = Annotated[
    Path | None, typer.Option(help="data.yaml, COCO json, or shards of `data pack` [default: the miniature world].")
]
DataOrUrl = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="data.yaml, COCO json, or shards: dataset.json or 'train-{000..031}.tar', also behind a URL "
        "[default: the miniature world].",
    ),
]
Cache = Annotated[Path | None, typer.Option(help="Folder of the teacher cache [default: ROOT/cache].")]
CacheOrUrl = Annotated[
    str | None, typer.Option("--cache", help="Folder or URL of the teacher cache [default: ROOT/cache].")
]
Json = Annotated[bool, typer.Option("--json", help="Print json on stdout instead of tables.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training split.")]
ImageSize = Annotated[int | None, typer.Option("--imgsz", min=32, help="Side of the training images, pixels.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Images (training) or regions (teacher) per step.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed; equal seeds repeat a run.")]
Device = Annotated[str | None, typer.Option(help="cpu, 0, 0,1, ... [default: chosen for you].")]
Run = Annotated[Path | None, typer.Option("--run", help="Folder of the training run.")]
StudentFolder = Annotated[
    Path | None, typer.Option("--student", help="Folder of a student [default: the last distilled one].")
]
DetectionConfidence = Annotated[
    float, typer.Option("--confidence", min=0, max=1, help="Detections need more than this.")
]
FalseAcceptRate = Annotated[
    float, typer.Option(help="How often another thing of an object's class may get a personal name; above 0, below 1.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any argument of `yolo train`; repeatable."),
]

TeacherName = Annotated[str | None, typer.Option("--teacher", help="LLaVA hub id or folder [default: miniature].")]
Revision = Annotated[str | None, typer.Option("--teacher-revision", help="Branch, tag or commit.")]
Mode = Annotated[str | None, typer.Option(help="prompt or generate.")]
Prompt = Annotated[str | None, typer.Option(help="Question for the teacher; {label} is the class name.")]
Layer = Annotated[int | None, typer.Option(help="Hidden state that is pooled; -1 is the last.")]
CropMargin = Annotated[float | None, typer.Option(help="Context around a box, share of each side.")]
Visual = Annotated[str | None, typer.Option(help="tower, or hub id or folder of a CLIP checkpoint.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")]
TorchDevice = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ... [default: auto].")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Length limit of an answer (generate).")]
NumBeams = Annotated[int | None, typer.Option(help="Beams of the answer's search (generate).")]
Compile = Annotated[bool | None, typer.Option("--compile", help="torch.compile the teacher; pays on long CUDA jobs.")]
Dim = Annotated[int | None, typer.Option(min=1, help="Width of the targets [default: 512 or what fits].")]

NO_COMPLETION: dict[str, Any] = {"no_args_is_help": True, "add_completion": False}
"""What every group of commands is made with."""


def root_folder(root: Path | None) -> Path:
    """The folder that `--root`, or without it the default, stands for."""
    from mocha_pipe.pipeline.settings.loading import load_config

    return load_config(None, {"root": root}).root


def cache_place(cache: str | None) -> dict[str, Any]:
    """The settings that a cache's folder or URL stands for."""
    if cache is None:
        return {}
    return {"url": cache} if "://" in cache else {"folder": Path(cache)}


def data_place(data: str | None) -> dict[str, Any]:
    """The settings that a data set's path or URL stands for."""
    if data is None:
        return {}
    return {"url": data} if "://" in data else {"path": Path(data), "url": ""}
