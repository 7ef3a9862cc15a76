"""The summary that a command prints at its end: one rich table each, from plain numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mocha_pipe.data.errors import in_print

if TYPE_CHECKING:
    from mocha_pipe.data.checking.check import SplitReport
    from mocha_pipe.pipeline.doctor import Check
    from mocha_pipe.pipeline.markers import Completion

METHOD_TITLES = {
    "histogram": "colour histogram of the crop",
    "yolo": "base detector's features",
    "mocha": "distilled student",
    "teacher": "live teacher (oracle)",
}
METRIC_TITLES = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "accuracy": "accuracy",
    "image_accuracy": "image accuracy",
    "region_accuracy": "region accuracy",
}
"""What every method is measured by, 0..100."""
_STATUS_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
_SEVERITY_STYLES = {"error": "red", "warning": "yellow"}


def results_tables(report: Mapping[str, Any]) -> list[Table]:
    """Rows = methods, one section per number of shots, the gain of mocha over yolo below each.

    Two tables, because a terminal of 80 columns has room for three figures with their intervals.
    """
    first = report["results"][0]
    title = f"few-shot on {first['benchmark']}, {first['episodes']} episodes"
    titles = dict(METRIC_TITLES)
    if any("unknown" in result for result in report["results"]):
        titles["auroc"] = "AUROC unknown"
    keys, tables = list(titles), []
    for shown, heading in ((keys[:3], title), (keys[3:], None)):
        table = plain_table("", *(titles[key] for key in shown), title=heading)
        table.padding = (0, 1, 0, 0)  # three signed figures of 20 characters fill a line
        for result in report["results"]:
            table.add_row(Text(shots_in_words(result["shots"]), style="bold"))
            for name in result["methods"]:
                cells = [_figure(result, name, key) for key in shown]
                table.add_row(f"  {name}", *cells, style="bold" if name == "mocha" else None)
            gain = result["gain"]
            gains = [interval(gain[key], signed=True) if key in gain else "" for key in shown]
            table.add_row("  gain", *gains, style="cyan", end_section=True)
        tables.append(table)
    if "reference" in first:
        tables.append(_reference_table(report))
    return tables


def _reference_table(report: Mapping[str, Any]) -> Table:
    """The figures as the paper's authors compute them."""
    keys = tuple(next(iter(report["results"][0]["reference"].values())))
    title = "as the paper's authors score (docs/reference.md)"
    table = plain_table("", *(METRIC_TITLES[key] for key in keys), title=title)
    for result in report["results"]:
        table.add_row(Text(shots_in_words(result["shots"]), style="bold"))
        for name, figures in result["reference"].items():
            cells = [interval(figures[key]) for key in keys]
            table.add_row(f"  {name}", *cells, style="bold" if name == "mocha" else None)
    return table


def _figure(result: Mapping[str, Any], method: str, key: str) -> str:
    if key != "auroc":
        return interval(result["methods"][method][key])
    return interval(result["unknown"]["methods"][method][key], decimals=3) if "unknown" in result else ""


def legend(report: Mapping[str, Any]) -> str:
    """What the methods are and what the brackets hold, in one line; then one on unknown objects for each result."""
    names = dict.fromkeys(name for result in report["results"] for name in result["methods"])
    rows = [f"{name}: {METHOD_TITLES[name]}" for name in names]
    first = "; ".join([*rows, "gain: mocha - yolo", "[95 % interval over episodes]", "0-100, AUROC 0-1"])
    return "\n".join([first, *(_unknown_line(result) for result in report["results"] if "unknown" in result)])


def _unknown_line(result: Mapping[str, Any]) -> str:
    unknown = result["unknown"]
    named = 100 * unknown["methods"]["mocha"]["false_accept_at_95_recall"]["mean"]
    line = (
        f"look-alikes that mocha was not taught, {shots_in_words(result['shots'])}: {named:.0f} % get a name where "
        "95 % of its objects do"
    )
    if "calibrated" not in unknown:
        return line
    found = unknown["calibrated"]
    named, recall = (100 * found[name]["mean"] for name in ("false_accept", "recall"))
    return (
        f"{line}; at the threshold for {100 * found['rate']:g} % of strangers {named:.0f} % and of its objects "
        f"{recall:.0f} %"
    )


def stages_table(completions: Iterable["Completion"]) -> Table:
    """What each stage did, how long it took and where its folder is."""
    table = plain_table("stage", "", "seconds", "folder", justify="left")
    for done in completions:
        state = Text("already complete", style="dim") if done.skipped else Text("done", style="green")
        table.add_row(done.stage, state, f"{done.seconds:.1f}", str(done.folder))
    return table


def values_table(title: str, values: Mapping[str, Any]) -> Table:
    """Names and values, one row each."""
    table = plain_table("", "", title=title, justify="left")
    for name, value in values.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        table.add_row(name.replace("_", " "), text)
    return table


def check_table(data: Path, splits: Iterable["SplitReport"]) -> Table:
    """One row per split of a data set: images, boxes, classes and what was found wrong."""
    columns = ("split", "images", "empty", "boxes", "classes", "box sides", "errors", "warnings")
    table = plain_table(*columns, title=str(data))
    for split in splits:
        has_boxes = split.smallest_box is not None
        sides = f"{split.smallest_box:.0f}-{split.largest_box:.0f} px" if has_boxes else "-"
        counts = (split.images, split.background_images, split.regions, len(split.regions_per_class))
        found: Counter[str] = Counter(problem.severity for problem in split.problems)
        problems = [
            Text(str(found[kind]), style=style if found[kind] else "") for kind, style in _SEVERITY_STYLES.items()
        ]
        table.add_row(split.split, *map(str, counts), sides, *problems)
    return table


def doctor_table(checks: Iterable["Check"]) -> Table:
    """One row per check with its remedy."""
    table = plain_table("", "", "found", "remedy", justify="left")
    for check in checks:
        status = Text(check.status, style=_STATUS_STYLES[check.status])
        table.add_row(status, check.name, check.found, check.remedy)
    return table


def photos_table(title: str, photos: Iterable[Mapping[str, Any]]) -> Table:
    """One row per photo that an object was learnt from: the object's box, class and confidence in it."""
    table = plain_table("photo", "left,top,width,height", "class", "confidence", title=title, justify="left")
    for photo in photos:
        confidence = "box given" if photo["confidence"] is None else f"{photo['confidence']:.2f}"
        table.add_row(str(photo["photo"]), ",".join(map(str, photo["box"])), photo["class"], confidence)
    return table


def profile_table(title: str, objects: Iterable[Mapping[str, Any]]) -> Table:
    """One row per object of a profile: its classes, and how many photos it was learnt from."""
    table = plain_table("name", "class", "photos", title=title)
    table.columns[1].justify = "left"
    for thing in objects:
        table.add_row(thing["name"], ", ".join(thing["classes"]), str(sum(thing["classes"].values())))
    return table


def sweep_table(report: Mapping[str, Any]) -> Table:
    """Rows = variants of a sweep, best first, told by their settings; means over seeds with half their intervals."""
    means = {variant: row["mean"] for variant, row in report["variants"].items()}
    first = next(iter(means))
    figures = list(means[first])
    settings = [part.partition("=")[0] for part in first.split(",")]
    table = plain_table(*settings, *(_figure_title(name, "\n") for name in figures))
    table.padding = (0, 1, 0, 0)  # five figures leave little room for the settings
    for index, column in enumerate(table.columns):
        column.justify, column.no_wrap = ("left", False) if index < len(settings) else ("right", True)
    for variant in sorted(means, key=lambda name: -means[name][figures[0]]["mean"]):
        values = [part.partition("=")[2] for part in variant.split(",")]
        style = "bold" if variant == report["best"] else None
        table.add_row(*values, *map(plus_minus, means[variant].values()), style=style)
    return table


def sweep_legend(report: Mapping[str, Any]) -> str:
    """Two lines: what the best variant gains over the first, and what the columns hold."""
    best, reference, seeds = report["best"], report["reference"], len(report["settings"]["seeds"])
    name, figure = next(iter(report["variants"][best]["gain"].items()))
    gain = f"{plus_minus(figure, signed=True)} over {reference}"
    if best == reference:
        gain = "the first, over which no other gains"
    columns = "one seed: no intervals, and a difference may be chance"
    if seeds > 1:
        columns = f"mean over {seeds} seeds ± half of its 95 % interval (Student's t; a gain's: of differences by seed)"
    return f"best {_figure_title(name, ' at ')}: {best}, {gain}\n{columns}; 0-100"


class _Table(Table):
    """A table whose texts do not steer the terminal, whatever names of files and objects hold."""

    def add_row(self, *cells: RenderableType | None, **style: Any) -> None:
        """As rich's."""
        super().add_row(*(in_print(cell) if isinstance(cell, str) else cell for cell in cells), **style)


def plain_table(*columns: str, title: str | None = None, justify: str = "right") -> Table:
    """The one look that all tables have."""
    header = any(columns)
    style = box.SIMPLE_HEAD if header else None
    table = _Table(box=style, show_header=header, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index and justify == "right" else "left", overflow="fold")
    return table


def plus_minus(figure: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """`mean ± half the interval's width` with one decimal; the mean alone where there is no interval."""
    if figure is None:
        return "-"
    mean = f"{figure['mean']:{'+' if signed else ''}.1f}"
    return f"{mean} ± {(figure['ci95'][1] - figure['ci95'][0]) / 2:.1f}" if figure["ci95"] else mean


def _figure_title(name: str, between: str) -> str:
    """`accuracy_1shot` in words; detection has no shots."""
    metric, _, shots = name.rpartition("_")
    if not metric:
        return name
    return f"{metric.replace('map50_95', 'mAP50-95')}{between}{shots_in_words(int(shots.removesuffix('shot')))}"


def interval(figure: Mapping[str, Any], *, signed: bool = False, decimals: int = 1) -> str:
    """`mean [low, high]`: points of 0..100 with one decimal, shares of 0..1 with three."""
    form = f"{'+' if signed else ''}.{decimals}f"
    low, high = figure["ci95"]
    return f"{figure['mean']:{form}} [{low:{form}}, {high:{form}}]"


def shots_in_words(shots: int) -> str:
    """`1 shot`, `5 shots`."""
    return f"{shots} shot{'s' if shots != 1 else ''}"
