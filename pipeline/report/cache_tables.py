"""What the `mocha-pipe cache` commands print."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import filesize
from rich.table import Table

from mocha_pipe.data.errors import quoted, without_secrets
from mocha_pipe.pipeline.report.tables import plain_table, values_table

if TYPE_CHECKING:
    from mocha_pipe.pipeline.markers import Completion
    from mocha_pipe.teacher_cache.building.plan import BuildPlan
    from mocha_pipe.teacher_cache.checking.audit import AuditReport
    from mocha_pipe.teacher_cache.checking.findings import VerifyReport
    from mocha_pipe.teacher_cache.sharing import CacheListing, CompactReport, TransferReport

_NESTED = ("arrays", "teacher", "versions", "bytes")


def plan_table(plan: "BuildPlan") -> Table:
    """What a build would do and cost."""
    from mocha_pipe.teacher_cache.building.forecast import duration

    total = sum(plan.bytes.values())
    sizes = ", ".join(f"{name} {file_size(size)}" for name, size in plan.bytes.items())
    rows = {
        "teacher": f"{plan.teacher}, {plan.mode} mode, on {plan.device}",
        "images": _with_distinct(plan.images, plan.distinct_images),
        "regions": _with_distinct(plan.regions, plan.distinct_regions),
        "to embed": f"{plan.to_embed} ({plan.regions - plan.to_embed} are there, or equal to others)",
        "shards": f"{plan.shards} of {plan.rows_per_shard} rows",
        "size": f"{file_size(total)} ({sizes})",
        "a region": _region_words(plan),
        "teacher's time": f"{plan.teacher_time}, from a sample of {plan.sample} regions",
        "projection": f"about {duration(plan.projection_seconds)}",
    }
    return values_table(f"plan of the teacher cache {plan.cache}", rows)


def _region_words(plan: "BuildPlan") -> str:
    """Tokens, operations and bytes of one region; an image encoder reads no tokens."""
    cost = plan.region
    words = [f"{cost.operations / 1e9:.3g} Gflop", file_size(cost.bytes)]
    if cost.tokens:
        picture = f", {cost.image_tokens} of them the picture's" if cost.image_tokens else ""
        words.insert(0, f"{cost.tokens:.0f} tokens{picture}")
    return "; ".join(words)


def build_values(done: "Completion") -> dict[str, Any]:
    """What a build did, for people."""
    from mocha_pipe.teacher_cache.building.forecast import Forecast, duration

    out = done.outputs
    values = {
        "regions": f"{out['rows']} ({out['embedded']} embedded here, {out['reused']} reused, {out['duplicates']} equal "
        f"to others, {out['set_aside']} set aside)",
        "shards": f"{out['shards']} ({out['computed_shards']} computed now, {out['missing_shards']} left to others)",
        "size": file_size(out["bytes"]),
        "targets": f"{out['dim']} wide" if out["dim"] else "not yet: shards are missing",
        "teacher": out["teacher"],
    }
    if out["forecast"]:
        actual = duration(out["embedding_seconds"])
        values["teacher's time"] = f"forecast {Forecast(**out['forecast'])}, actual {actual}"
    return {**values, "seconds": f"{done.seconds:.1f}", "already complete": done.skipped}


def info_values(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a cache is, for people: what is nested gets a line each."""
    values = {key: value for key, value in info.items() if value is not None and key not in _NESTED}
    for name, array in info["arrays"].items():
        done = f"{array['shards_done']} of {array['shards_total']} shards"
        values[name] = f"{array['dim']} wide, {done}, {file_size(array['bytes'])}" + (
            "" if array["layout"] == "ours" else f", {array['layout']}"
        )
    values["size"] = file_size(info["bytes"])
    values |= {f"teacher's {name}": value for name, value in info["teacher"].items() if value not in ("", 0)}
    return {**values, "made with": [f"{package} {version}" for package, version in info["versions"].items()]}


def transfer_line(report: "TransferReport") -> str:
    """What travelled, in one line."""
    line = f"{report.files} files travelled, {file_size(report.bytes)}; {report.present} were there"
    shards = report.shards_missing
    return f"{line}; {shards} shard{'s are' if shards != 1 else ' is'} still missing" if shards else line


def compact_table(report: "CompactReport") -> Table:
    """An archive beside its cache, array by array."""
    title = f"{report.archive}: {report.ratio:.0%} of the cache's bytes, {report.files} files written"
    table = plain_table("", "cache", "archive", "", "least cosine", "mean cosine", "same neighbour", title=title)
    for name, size in report.bytes.items():
        raw, loss = report.raw_bytes[name], report.loss.get(name)
        lost = (f"{loss.least_cosine:.5f}", f"{loss.mean_cosine:.5f}", f"{loss.kept_neighbours:.1%}") if loss else ()
        table.add_row(name, file_size(raw), file_size(size), f"{size / raw:.0%}", *lost)
    return table


def verify_lines(report: "VerifyReport") -> list[str]:
    """Findings, one line each, and the sum."""
    lines = [f"{finding.kind}: {finding.file}: {finding.message}" for finding in report.findings]
    checked = ", ".join(f"{name} {count}" for name, count in report.arrays.items())
    summary = f"checked {report.rows} regions in {file_size(report.bytes)}, {report.seconds:.1f} s; shards: {checked}"
    if report.set_aside:
        summary += f"; {report.set_aside} regions set aside"
    number = len(report.findings)
    notes = [f"note: {note}" for note in report.notes]
    return [*lines, *notes, f"{summary}: {f'{number} at fault' if number else 'all sound'}"]


def verify_remedies(folder: Path, report: "VerifyReport", data: Path | None) -> list[str]:
    """What to type after findings, one line each."""
    from mocha_pipe.teacher_cache.errors import away_command, copy_of, repair_command

    kinds, words, copy = {finding.kind for finding in report.findings}, quoted(folder), quoted(copy_of(str(folder)))
    in_the_way = report.in_the_way
    is_mended_here = not in_the_way and not report.is_foreign
    remedies = []
    if kinds - {"elsewhere", "unreadable"} and is_mended_here and not report.is_rounded:
        remedies.append(f"mend it with the pictures that it was made from: {repair_command(folder, data)}")
    if "elsewhere" in kinds:
        remedies.append(f"fetch what links lead to with the program that keeps it, such as: git annex get {words}")
    for name in in_the_way:
        remedies.append(f"move away what has the place of a folder, and verify again: {away_command(folder / name)}")
    if kinds - {"unreadable"} and not in_the_way:
        to = f"{words} --repair" if is_mended_here else copy
        where = "" if is_mended_here else ", in another folder"
        either = "or from a sound copy" if remedies else "fetch it from a sound copy"
        remedies.append(f"{either}{where}: mocha-pipe cache pull SOURCE {to}")
    if report.can_be_laid_out_anew and not in_the_way:
        remedies.append(f"or copy what is there into the layout of mocha-pipe: mocha-pipe cache pull {words} {copy}")
        remedies.append(f"and then what that lacks: mocha-pipe cache pull SOURCE {copy}")
    if "unreadable" in kinds:
        remedies.append(f"let the owner of what cannot be read run: chmod -R a+rX {words}")
    return remedies


def audit_table(report: "AuditReport") -> Table:
    """Agreement of a cache with the live teacher."""
    title = f"{report.rows} random rows against the live teacher (seed {report.seed}): " + (
        "they agree" if report.ok else f"cosine below {report.least_allowed}"
    )
    table = plain_table("", "mean cosine", "least cosine", "max difference", "relative", title=title)
    for name, audit in report.arrays.items():
        cells = (audit.mean_cosine, audit.least_cosine, audit.max_difference, audit.max_relative_difference)
        table.add_row(name, *(f"{value:.6f}" for value in cells), end_section=True)
    for row in report.worst:
        table.add_row(f"row {row.row}", "", f"{row.cosine:.6f}", row.class_name, row.image)
    return table


def listings_table(place: str, listings: Iterable["CacheListing"]) -> Table:
    """Caches below a place."""
    title = f"caches at {without_secrets(place)}"
    table = plain_table("cache", "teacher", "regions", "hidden", "visual", "targets", "size", title=title)
    for found in listings:
        done = [
            f"{found.done[name]}/{found.shards}" if name in found.done else "-"
            for name in ("hidden", "visual", "targets")
        ]
        made = (f"{found.teacher} ({found.mode})", str(found.regions)) if found.teacher else ("cannot be read", "")
        table.add_row(found.place, *made, *done, file_size(found.bytes))
    return table


def listing_notes(listings: Iterable["CacheListing"]) -> list[str]:
    """What the table has no room for, one line each."""
    return [f"note: {found.place}: {found.note}" for found in listings if found.note]


def file_size(size: float) -> str:
    """Bytes in words, in powers of 1024."""
    unit, name = filesize.pick_unit_and_suffix(int(size), ["B", "KiB", "MiB", "GiB"], 1024)
    return f"{size / unit:.1f} {name}" if unit > 1 else f"{size:.0f} B"


def _with_distinct(number: int, distinct: int) -> str:
    return f"{number}" if number == distinct else f"{number}, {distinct} of them distinct"
