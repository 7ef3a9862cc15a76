"""The summary that a command prints at its end: one rich table each, from plain numbers."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from teacher_cache.duration import duration

if TYPE_CHECKING:
    from data.check import CheckReport
    from pipeline.caching import CachePlan
    from pipeline.doctor import Check
    from pipeline.rundir import Completion
    from teacher_cache.audit import AuditReport
    from teacher_cache.sharing import CacheListing
    from teacher_cache.verify import VerifyReport

METHOD_TITLES = {
    "histogram": "colour histogram of the crop",
    "yolo": "base detector's features",
    "mocha": "distilled student",
    "teacher": "live teacher (oracle)",
}
_STATUS_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def results_table(report: Mapping[str, Any]) -> Table:
    """Rows = methods, one section per number of shots, the gain of mocha over yolo below each."""
    first = report["results"][0]
    title = f"few-shot on {first['benchmark']}, {first['episodes']} episodes"
    table = _table("", "mAP50-95", "mAP50", "accuracy", title=title)
    for result in report["results"]:
        table.add_row(f"[bold]{result['shots']} shot{'s' if result['shots'] != 1 else ''}[/]")
        for name, figures in result["methods"].items():
            style = "bold" if name == "mocha" else None
            cells = [interval(figures[key]) for key in ("map50_95", "map50", "accuracy")]
            table.add_row(f"  {name}", *cells, style=style)
        gain = result["gain"]
        cells = [interval(gain["map50_95"], signed=True), "", interval(gain["accuracy"], signed=True)]
        table.add_row("  gain", *cells, style="cyan", end_section=True)
    return table


def legend(report: Mapping[str, Any]) -> str:
    """One line saying what the methods are, and what the brackets hold."""
    names = dict.fromkeys(name for result in report["results"] for name in result["methods"])
    rows = [f"{name}: {METHOD_TITLES[name]}" for name in names]
    return "; ".join([*rows, "gain: mocha - yolo", "[95 % interval over episodes]", "0-100"])


def stages_table(completions: Iterable["Completion"]) -> Table:
    """What each stage did, how long it took and where its folder is."""
    table = _table("stage", "", "seconds", "folder", justify="left")
    for done in completions:
        state = "[dim]already complete[/]" if done.skipped else "[green]done[/]"
        table.add_row(done.stage, state, f"{done.seconds:.1f}", str(done.folder))
    return table


def values_table(title: str, values: Mapping[str, Any]) -> Table:
    """Names and values, one row each."""
    table = _table("", "", title=title, justify="left")
    for name, value in values.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        table.add_row(name.replace("_", " "), text)
    return table


def check_table(report: "CheckReport") -> Table:
    """One row per split of a data set: images, boxes, classes and what was found wrong."""
    table = _table("split", "images", "empty", "boxes", "classes", "box sides", "problems", title=str(report.data))
    for split in report.splits:
        has_boxes = split.smallest_box is not None
        sides = f"{split.smallest_box:.0f}-{split.largest_box:.0f} px" if has_boxes else "-"
        counts = (split.images, split.background_images, split.regions, len(split.regions_per_class))
        problems = f"[red]{len(split.problems)}[/]" if split.problems else "0"
        table.add_row(split.split, *map(str, counts), sides, problems)
    return table


def plan_table(plan: "CachePlan") -> Table:
    """What a build would do and cost."""
    table = _table("", "", title=f"plan of the teacher cache {plan.cache}", justify="left")
    total = sum(plan.bytes.values())
    sizes = ", ".join(f"{name} {file_size(size)}" for name, size in plan.bytes.items())
    rows = {
        "teacher": f"{plan.teacher}, {plan.mode} mode, on {plan.device}",
        "images": _with_distinct(plan.images, plan.distinct_images),
        "regions": _with_distinct(plan.regions, plan.distinct_regions),
        "to embed": f"{plan.to_embed} ({plan.regions - plan.to_embed} are there, or equal to others)",
        "shards": f"{plan.shards} of {plan.rows_per_shard} rows",
        "size": f"{file_size(total)} ({sizes})",
        "teacher's time": f"{plan.teacher_time}, from a sample of {plan.sample} regions",
        "projection": f"about {duration(plan.projection_seconds)}",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def build_values(done: "Completion") -> dict[str, Any]:
    """What a build did, for people."""
    out = done.outputs
    forecast = out["forecast"]
    values = {
        "regions": f"{out['rows']} ({out['embedded']} embedded, {out['reused']} reused, {out['duplicates']} equal to "
        f"others, {out['set_aside']} set aside)",
        "shards": f"{out['shards']} ({out['computed_shards']} computed now, {out['missing_shards']} left to others)",
        "size": file_size(out["bytes"]),
        "targets": f"{out['dim']} wide" if out["dim"] else "not yet: shards are missing",
        "teacher": out["teacher"],
    }
    if forecast:
        actual = duration(out["embedding_seconds"])
        values["teacher's time"] = f"forecast {_forecast_words(forecast)}, actual {actual}"
    return {**values, "seconds": f"{done.seconds:.1f}", "already complete": done.skipped}


def verify_lines(report: "VerifyReport") -> list[str]:
    """Findings, one line each, and the sum."""
    lines = [f"{finding.kind}: {finding.file}: {finding.message}" for finding in report.findings]
    checked = ", ".join(f"{name} {count}" for name, count in report.arrays.items())
    summary = f"checked {report.rows} regions in {file_size(report.bytes)}, {report.seconds:.1f} s; shards: {checked}"
    if report.set_aside:
        summary += f"; {report.set_aside} regions set aside"
    number = len(report.findings)
    return [*lines, f"{summary}: {f'{number} at fault' if number else 'all sound'}"]


def audit_table(report: "AuditReport") -> Table:
    """Agreement of a cache with the live teacher."""
    title = f"{report.rows} random rows against the live teacher (seed {report.seed}): " + (
        "they agree" if report.ok else f"cosine below {report.least_allowed}"
    )
    table = _table("", "mean cosine", "least cosine", "max difference", "relative", title=title)
    for name, audit in report.arrays.items():
        cells = (audit.mean_cosine, audit.least_cosine, audit.max_difference, audit.max_relative_difference)
        table.add_row(name, *(f"{value:.6f}" for value in cells), end_section=True)
    for row in report.worst:
        table.add_row(f"row {row.row}", "", f"{row.cosine:.6f}", row.class_name, row.image)
    return table


def listings_table(place: str, listings: Iterable["CacheListing"]) -> Table:
    """Caches below a place."""
    table = _table("cache", "teacher", "regions", "hidden", "visual", "targets", "size", title=f"caches at {place}")
    for found in listings:
        done = [f"{found.done[name]}/{found.shards}" for name in ("hidden", "visual", "targets")]
        table.add_row(found.place, f"{found.teacher} ({found.mode})", str(found.regions), *done, file_size(found.bytes))
    return table


def file_size(size: float) -> str:
    """Bytes in words, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _with_distinct(number: int, distinct: int) -> str:
    return f"{number}" if number == distinct else f"{number}, {distinct} of them distinct"


def _forecast_words(forecast: Mapping[str, Any]) -> str:
    seconds, low, high = (duration(forecast[key]) for key in ("seconds", "low", "high"))
    return f"{seconds} ({low} to {high})"


def doctor_table(checks: Iterable["Check"]) -> Table:
    """One row per check with its remedy."""
    table = _table("", "", "found", "remedy", justify="left")
    for check in checks:
        table.add_row(f"[{_STATUS_STYLES[check.status]}]{check.status}[/]", check.name, check.found, check.remedy)
    return table


def _table(*columns: str, title: str | None = None, justify: str = "right") -> Table:
    header = any(columns)
    style = box.SIMPLE_HEAD if header else None
    table = Table(
        box=style, show_header=header, pad_edge=False, title=title, title_justify="left", title_style="bold"
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index and justify == "right" else "left", overflow="fold")
    return table


def interval(figure: Mapping[str, Any], signed: bool = False) -> str:
    """`mean [low, high]` with one decimal, as every table shows it."""
    low, high = figure["ci95"]
    sign = "+" if signed else ""
    return f"{figure['mean']:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
