"""The `mocha-pipe cache` commands: forecast, build, look into, check and share a teacher cache."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from mocha_pipe.data.errors import quoted
from mocha_pipe.pipeline.cli.console import print_either, print_json
from mocha_pipe.pipeline.cli.flags import takes_settings
from mocha_pipe.pipeline.cli.options import GROUP, Json
from mocha_pipe.pipeline.report import cache_tables
from mocha_pipe.pipeline.report.tables import values_table
from mocha_pipe.pipeline.settings.sections import RunConfig

CacheFolder = Annotated[Path, typer.Argument(help="Folder of a teacher cache.")]
OtherTeacher = Annotated[
    str | None, typer.Option(help="Hub id or folder of the teacher [default: the one that made the cache].")
]
Place = Annotated[str, typer.Argument(help="Folder or URL: s3://, gs://, hf://, ssh://, ...")]
Lossy = Annotated[
    bool, typer.Option("--lossy", help="Round values, to half of the bytes: what comes back is another cache.")
]
_DEFAULT = Path("work/cache")

cache = typer.Typer(help="Phase 1: run the teacher once over every box; check and share the result.", **GROUP)


@cache.command("plan")
@takes_settings("data.path", "cache.folder", "cache.dim", "teacher")
def cache_plan(
    config: RunConfig,
    sample: Annotated[int, typer.Option(min=1, help="Regions to time, at least.")] = 512,
    as_json: Json = False,
) -> None:
    """What a build would cost: regions, shards, bytes, and the time that a sample of boxes takes on this machine."""
    from mocha_pipe.pipeline.caching import plan_cache

    plan = plan_cache(config, sample)
    print_either(asdict(plan), cache_tables.plan_table(plan), as_json)


@cache.command("build")
@takes_settings(
    "data.path", "cache.folder", "cache.dim", "cache.reuse", "cache.engine", "cache.part", "cache.retry_failed",
    "teacher",
)  # fmt: skip
def cache_build(config: RunConfig, as_json: Json = False) -> None:
    """Embed every ground-truth box of the training split; stopped builds go on, builds side by side share the work.

    Exit code 1 when regions had to be set aside.
    """
    from mocha_pipe.pipeline.run.inputs import is_first_rank
    from mocha_pipe.pipeline.stages import build_teacher_cache

    if is_first_rank() and config.teacher.model == "miniature" and not config.uses_miniature:
        why = "note: the miniature teacher knows only the miniature world; for photographs name another one"
        typer.echo(f"{why}, such as --teacher llava-hf/llava-1.5-7b-hf", err=True)
    done = build_teacher_cache(config)
    if not is_first_rank():
        return
    told = {"cache": str(done.folder), "skipped": done.skipped, "seconds": done.seconds, **done.outputs}
    print_either(told, values_table(f"teacher cache {done.folder}", cache_tables.build_values(done)), as_json)
    if done.outputs["set_aside"]:
        _report_set_aside(done.folder)
        raise typer.Exit(1)


@cache.command("info")
def cache_info(cache: CacheFolder = _DEFAULT, as_json: Json = False) -> None:
    """What a cache holds, which teacher made it, and whether it is complete."""
    from mocha_pipe.teacher_cache.store.cache import RegionCache

    info = RegionCache.open(cache).info()
    print_either(info, values_table(f"teacher cache {cache}", cache_tables.info_values(info)), as_json)


@cache.command("verify")
@takes_settings("data.path", "teacher.device", "teacher.batch")
def cache_verify(
    config: RunConfig,
    cache: CacheFolder = _DEFAULT,
    repair: Annotated[bool, typer.Option("--repair", help="Compute again just the shards at fault.")] = False,
    teacher: OtherTeacher = None,
    as_json: Json = False,
) -> None:
    """Check every byte, row and key of a cache; exit code 1 if something is at fault and was not repaired."""
    from mocha_pipe.pipeline.caching import repair_cache
    from mocha_pipe.teacher_cache.checking.verify import verify_cache

    report = verify_cache(cache, progress=True)
    if as_json:
        print_json({"cache": str(cache), **asdict(report)})
    else:
        typer.echo("\n".join(cache_tables.verify_lines(report)))
    if not report.findings:
        return
    if not repair:
        data = None if config.uses_miniature else config.data.path
        typer.echo("\n".join(cache_tables.verify_remedies(cache, report, data)), err=True)
        raise typer.Exit(1)
    built = repair_cache(_of(config, cache), report, teacher)
    shards, regions = built.outputs["computed_shards"], built.outputs["embedded"]
    typer.echo(f"repaired: {shards} shards computed again, {regions} regions embedded", err=as_json)


@cache.command("audit")
@takes_settings("data.path", "teacher.device", "teacher.batch")
def cache_audit(
    config: RunConfig,
    cache: CacheFolder = _DEFAULT,
    rows: Annotated[int, typer.Option(min=1, help="Regions to compute again.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of their choice.")] = 0,
    teacher: OtherTeacher = None,
    as_json: Json = False,
) -> None:
    """Compute random rows again with the live teacher and compare; exit code 1 if they are not what it says."""
    from mocha_pipe.pipeline.caching import audit

    report = audit(_of(config, cache), rows, seed, teacher)
    print_either({"cache": str(cache), "ok": report.ok, **asdict(report)}, cache_tables.audit_table(report), as_json)
    if not report.ok:
        raise typer.Exit(1)


@cache.command("push")
def cache_push(
    cache: CacheFolder,
    to: Place,
    compact: Annotated[bool, typer.Option("--compact", help="In fewer bytes, as `cache compact` does.")] = False,
    lossy: Lossy = False,
) -> None:
    """Copy what a folder or URL lacks of a cache."""
    from mocha_pipe.teacher_cache.sharing import push

    if lossy and not compact:
        raise typer.BadParameter("--lossy rounds what --compact compresses: give both, or neither")
    if compact:
        cache_compact(cache, to, lossy=lossy)
    else:
        typer.echo(cache_tables.transfer_line(push(cache, to, progress=True)))


@cache.command("compact")
def cache_compact(cache: CacheFolder, to: Place, lossy: Lossy = False, as_json: Json = False) -> None:
    """Write a cache in fewer bytes, to keep or to send; `cache pull` brings it back as it was."""
    from mocha_pipe.teacher_cache.sharing import compact

    report = compact(cache, to, lossy=lossy, progress=True)
    print_either({"ratio": report.ratio, **asdict(report)}, cache_tables.compact_table(report), as_json)


@cache.command("pull")
def cache_pull(
    source: Place,
    cache: CacheFolder,
    targets: Annotated[bool, typer.Option("--targets", help="Only what distillation needs: a tenth.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Check the folder first; fetch what is at fault.")] = False,
) -> None:
    """Fetch what a local folder lacks of a cache; every file is checked before it counts."""
    from mocha_pipe.teacher_cache.sharing import pull

    report = pull(source, cache, targets_only=targets, repair=repair, progress=True)
    typer.echo(cache_tables.transfer_line(report))


@cache.command("merge")
@takes_settings("cache.dim")
def cache_merge(
    config: RunConfig,
    into: CacheFolder,
    sources: Annotated[list[str], typer.Argument(help="Folders or URLs of other parts of the same cache.")],
) -> None:
    """Join the shards that several members computed; with the last shard, the targets are derived."""
    from mocha_pipe.pipeline.caching import merge_caches

    typer.echo(cache_tables.transfer_line(merge_caches(into, sources, config.cache.dim)))


@cache.command("ls")
def cache_ls(place: Place = "work", as_json: Json = False) -> None:
    """List the caches in or below a folder or URL."""
    from mocha_pipe.teacher_cache.sharing import list_caches

    found = list_caches(place)
    print_either([asdict(listing) for listing in found], cache_tables.listings_table(place, found), as_json)
    if not as_json:
        typer.echo("".join(f"{line}\n" for line in cache_tables.listing_notes(found)), nl=False)


def _of(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration with another cache."""
    return replace(config, cache=replace(config.cache, folder=folder))


def _report_set_aside(folder: Path) -> None:
    """Say on stderr which regions have no embedding, and what to do."""
    from mocha_pipe.teacher_cache.store.quarantine import read_set_aside

    regions = read_set_aside(folder)
    lines = [f"row {region.row}, {region.image}, {region.class_name}: {region.reason}" for region in regions[:10]]
    if len(regions) > 10:
        lines.append(f"and {len(regions) - 10} more, listed in {folder / 'quarantine'}")
    lines.append(
        f"{len(regions)} region{'s have' if len(regions) != 1 else ' has'} no embedding, and training leaves that out; "
        f"mend the images and build in a new folder with --reuse {quoted(folder)}, or where nothing in them changed, "
        "add --retry-failed to the same command"
    )
    typer.echo("\n".join(f"set aside: {line}" for line in lines), err=True)
