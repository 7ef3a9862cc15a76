"""The `mocha-pipe cache` commands: forecast, build, look into, check and share a teacher cache."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mocha_pipe.pipeline.cli.console import print_json, print_table, print_values
from mocha_pipe.pipeline.cli.options import (
    NO_COMPLETION,
    Batch,
    Cache,
    Compile,
    CropMargin,
    Data,
    Dim,
    Dtype,
    Json,
    Layer,
    MaxNewTokens,
    Mode,
    NumBeams,
    Prompt,
    Revision,
    Root,
    Seed,
    TeacherName,
    Toml,
    TorchDevice,
    Visual,
)

if TYPE_CHECKING:
    from mocha_pipe.teacher_cache.sharing import TransferReport

_MINIATURE_TEACHER_NOTE = (
    "the miniature teacher knows only the miniature world; for photographs name another one, such as "
    "--teacher llava-hf/llava-1.5-7b-hf"
)

CacheFolder = Annotated[Path, typer.Argument(help="Folder of a teacher cache.")]
Place = Annotated[str, typer.Argument(help="Folder or URL: s3://, gs://, hf://, ssh://, ...")]
_DEFAULT = Path("work/cache")

cache_app = typer.Typer(
    help="Phase 1: run the teacher once over every box; check and share the result.", **NO_COMPLETION
)


@cache_app.command("plan")
def cache_plan(
    data: Data = None,
    teacher: TeacherName = None,
    cache: Cache = None,
    root: Root = None,
    config: Toml = None,
    mode: Mode = None,
    device: TorchDevice = None,
    batch: Batch = None,
    dim: Dim = None,
    sample: Annotated[int, typer.Option(min=1, help="Regions to time, at least.")] = 512,
    as_json: Json = False,
) -> None:
    """What a build would cost: regions, shards, bytes, and the time that a sample of boxes takes on this machine."""
    from mocha_pipe.pipeline.caching import plan_cache
    from mocha_pipe.pipeline.settings.loading import load_config

    teacher_flags = {"model": teacher, "mode": mode, "device": device, "batch": batch}
    flags = {"root": root, "data": {"path": data}, "cache": {"folder": cache, "dim": dim}, "teacher": teacher_flags}
    plan = plan_cache(load_config(config, flags), sample)
    if as_json:
        print_json(plan.to_json())
    else:
        from mocha_pipe.pipeline.report.cache_tables import plan_table

        print_table(plan_table(plan))


@cache_app.command("build")
def cache_build(
    data: Data = None,
    teacher: TeacherName = None,
    cache: Cache = None,
    root: Root = None,
    config: Toml = None,
    revision: Revision = None,
    mode: Mode = None,
    prompt: Prompt = None,
    layer: Layer = None,
    crop_margin: CropMargin = None,
    visual: Visual = None,
    dtype: Dtype = None,
    device: TorchDevice = None,
    batch: Batch = None,
    max_new_tokens: MaxNewTokens = None,
    num_beams: NumBeams = None,
    compile_: Compile = None,
    dim: Dim = None,
    reuse: Annotated[
        list[Path] | None, typer.Option(help="Cache of the same teacher to copy equal regions from; repeatable.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what was set aside.")] = False,
    part: Annotated[
        str | None, typer.Option(metavar="INDEX/COUNT", help="Only this part of the shards, counted from 0.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local, or ray (a Ray cluster).")] = None,
    as_json: Json = False,
) -> None:
    """Embed every ground-truth box of the training split; stopped builds go on, builds side by side share the work.

    Exit code 1 when regions had to be set aside.
    """
    from mocha_pipe.pipeline.run.inputs import is_first_rank
    from mocha_pipe.pipeline.settings.loading import load_config
    from mocha_pipe.pipeline.stages import build_teacher_cache

    flags = {
        "root": root,
        "data": {"path": data},
        "cache": {
            "folder": cache, "dim": dim, "reuse": reuse or None, "part": part, "engine": engine,
            "retry_failed": retry_failed or None,
        },
        "teacher": {
            "model": teacher, "revision": revision, "mode": mode, "prompt": prompt, "layer": layer,
            "crop_margin": crop_margin, "visual": visual, "dtype": dtype, "device": device, "batch": batch,
            "max_new_tokens": max_new_tokens, "num_beams": num_beams, "compile": compile_,
        },
    }  # fmt: skip
    settings = load_config(config, flags)
    if is_first_rank() and settings.teacher.model == "miniature" and not settings.uses_miniature:
        typer.echo(f"note: {_MINIATURE_TEACHER_NOTE}", err=True)
    done = build_teacher_cache(settings)
    if not is_first_rank():
        return
    if as_json:
        print_json({"cache": str(done.folder), "skipped": done.skipped, "seconds": done.seconds, **done.outputs})
    else:
        from mocha_pipe.pipeline.report.cache_tables import build_values

        print_values(f"teacher cache {done.folder}", build_values(done))
    if done.outputs["set_aside"]:
        _report_set_aside(done.folder)
        raise typer.Exit(1)


@cache_app.command("info")
def cache_info(cache: CacheFolder = _DEFAULT, as_json: Json = False) -> None:
    """What a cache holds, which teacher made it, and whether it is complete."""
    from mocha_pipe.teacher_cache.store.cache import RegionCache

    info = RegionCache.open(cache).info()
    if as_json:
        print_json(info)
    else:
        from mocha_pipe.pipeline.report.cache_tables import info_values

        print_values(f"teacher cache {cache}", info_values(info))


@cache_app.command("verify")
def cache_verify(
    cache: CacheFolder = _DEFAULT,
    repair: Annotated[bool, typer.Option("--repair", help="Compute again just the shards at fault.")] = False,
    data: Data = None,
    teacher: TeacherName = None,
    root: Root = None,
    config: Toml = None,
    device: TorchDevice = None,
    batch: Batch = None,
    as_json: Json = False,
) -> None:
    """Check every byte, row and key of a cache; exit code 1 if something is at fault and was not repaired."""
    from mocha_pipe.pipeline.caching import repair_cache
    from mocha_pipe.pipeline.settings.loading import load_config
    from mocha_pipe.teacher_cache.checking.verify import verify_cache

    report = verify_cache(cache, progress=True)
    if as_json:
        print_json({"cache": str(cache), **asdict(report)})
    else:
        from mocha_pipe.pipeline.report.cache_tables import verify_lines

        for line in verify_lines(report):
            typer.echo(line)
    if not report.findings:
        return
    if not repair:
        raise typer.Exit(1)
    teacher_flags = {"model": teacher, "device": device, "batch": batch}
    flags = {"root": root, "data": {"path": data}, "cache": {"folder": cache}, "teacher": teacher_flags}
    built = repair_cache(load_config(config, flags), report, teacher_is_named=teacher is not None)
    shards, regions = built.outputs["computed_shards"], built.outputs["embedded"]
    typer.echo(f"repaired: {shards} shards computed again, {regions} regions embedded", err=as_json)


@cache_app.command("audit")
def cache_audit(
    cache: CacheFolder = _DEFAULT,
    rows: Annotated[int, typer.Option(min=1, help="Regions to compute again.")] = 64,
    seed: Seed = None,
    data: Data = None,
    teacher: TeacherName = None,
    root: Root = None,
    config: Toml = None,
    device: TorchDevice = None,
    batch: Batch = None,
    as_json: Json = False,
) -> None:
    """Compute random rows again with the live teacher and compare; exit code 1 if they are not what it says."""
    from mocha_pipe.pipeline.caching import audit
    from mocha_pipe.pipeline.settings.loading import load_config

    teacher_flags = {"model": teacher, "device": device, "batch": batch}
    flags = {"root": root, "data": {"path": data}, "cache": {"folder": cache}, "teacher": teacher_flags}
    report = audit(load_config(config, flags), rows, seed or 0, teacher_is_named=teacher is not None)
    if as_json:
        print_json({"cache": str(cache), "ok": report.ok, **asdict(report)})
    else:
        from mocha_pipe.pipeline.report.cache_tables import audit_table

        print_table(audit_table(report))
    if not report.ok:
        raise typer.Exit(1)


@cache_app.command("push")
def cache_push(cache: CacheFolder, to: Place) -> None:
    """Copy what a folder or URL lacks of a cache."""
    from mocha_pipe.teacher_cache.sharing import push

    _print_transfer(push(cache, to, progress=True))


@cache_app.command("pull")
def cache_pull(
    source: Place,
    cache: CacheFolder,
    targets: Annotated[bool, typer.Option("--targets", help="Only what distillation needs: a tenth.")] = False,
) -> None:
    """Fetch what a local folder lacks of a cache; every file is checked before it counts."""
    from mocha_pipe.teacher_cache.sharing import pull

    _print_transfer(pull(source, cache, targets_only=targets, progress=True))


@cache_app.command("merge")
def cache_merge(
    into: CacheFolder,
    sources: Annotated[list[str], typer.Argument(help="Folders or URLs of other parts of the same cache.")],
    dim: Dim = None,
) -> None:
    """Join the shards that several members computed; with the last shard, the targets are derived."""
    from mocha_pipe.pipeline.caching import merge_caches

    _print_transfer(merge_caches(into, sources, dim))


@cache_app.command("ls")
def cache_ls(place: Place = "work", as_json: Json = False) -> None:
    """List the caches in or below a folder or URL."""
    from mocha_pipe.teacher_cache.sharing import list_caches

    found = list_caches(place)
    if as_json:
        print_json([asdict(listing) for listing in found])
    else:
        from mocha_pipe.pipeline.report.cache_tables import listings_table

        print_table(listings_table(place, found))


def _print_transfer(report: "TransferReport") -> None:
    from mocha_pipe.pipeline.report.cache_tables import transfer_line

    typer.echo(transfer_line(report))


def _report_set_aside(folder: Path) -> None:
    """Say on stderr which regions have no embedding, and what to do."""
    from mocha_pipe.teacher_cache.store.quarantine import read_set_aside

    regions = read_set_aside(folder)
    for region in regions[:10]:
        typer.echo(f"set aside: row {region.row}, {region.image}, {region.class_name}: {region.reason}", err=True)
    if len(regions) > 10:
        typer.echo(f"set aside: and {len(regions) - 10} more, listed in {folder / 'quarantine'}", err=True)
    number = f"{len(regions)} region{'s have' if len(regions) != 1 else ' has'} no embedding"
    typer.echo(
        f"{number}, and training leaves that out; when the images are mended, build in a new folder with "
        f"--reuse {folder}, or where nothing in them changed, add --retry-failed to the same command",
        err=True,
    )
