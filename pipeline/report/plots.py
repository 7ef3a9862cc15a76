"""Figures of the report: each function turns numbers into one inline SVG, or an image into a data URI."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from mocha_pipe.pipeline.report.tables import shots_in_words

METHOD_COLOURS = {"histogram": "#8a8f98", "yolo": "#3b82c4", "mocha": "#d9672b", "teacher": "#2a9d78"}
_RUN_COLOURS = ("#3b82c4", "#d9672b")
_INK = "#123456"  # stands for the page's text colour, so that one drawing suits a light and a dark page
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_CURVES = (  # title and the column of ultralytics' results.csv
    ("box loss", "train/box_loss"),
    ("class loss", "train/cls_loss"),
    ("dfl loss", "train/dfl_loss"),
    ("L_dist", "train/dist_loss"),
    ("L_emb", "train/emb_loss"),
    ("mAP50-95 (val)", "metrics/mAP50-95(B)"),
)


def comparison(results: Sequence[Mapping[str, Any]]) -> str:
    """Few-shot mAP50-95 of each method with its 95 % interval, one panel per number of shots.

    Args:
        results: the `results` of a report.json.

    Returns:
        An SVG element.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.7 + 0.36 * len(results[0]["methods"])), layout="constrained")
        panels = figure.subplots(1, len(results), sharex=True, squeeze=False)[0]
        for axes, result in zip(panels, results, strict=True):
            _comparison_panel(axes, result)
        return _svg(figure, "comparison")


def _comparison_panel(axes: Axes, result: Mapping[str, Any]) -> None:
    names = list(result["methods"])
    for height, name in enumerate(reversed(names)):
        figures = result["methods"][name]["map50_95"]
        colour = METHOD_COLOURS.get(name, _INK)
        axes.plot(figures["ci95"], [height, height], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([figures["mean"]], [height], marker="o", markersize=7, color=colour)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title(shots_in_words(result["shots"]))
    axes.set_xlabel("mAP50-95")
    axes.grid(axis="x", color=_INK, alpha=0.15)


def roc(results: Sequence[Mapping[str, Any]]) -> str:
    """Recall of taught objects by the rate at which held-out ones are accepted, one panel per number of shots.

    Args:
        results: those of a report.json that have `unknown`; a dot marks the student's calibrated threshold.

    Returns:
        An SVG element.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        panels = figure.subplots(1, max(2, len(results)), sharey=True)
        for axes in panels[len(results) :]:
            axes.set_visible(False)
        for axes, result in zip(panels, results, strict=False):
            _roc_panel(axes, result)
        panels[0].set_ylabel("objects that get a name, %")
        return _svg(figure, "roc")


def _roc_panel(axes: Axes, result: Mapping[str, Any]) -> None:
    axes.plot([0, 100], [0, 100], color=_INK, linewidth=1, linestyle=":", alpha=0.5)
    for name, figures in result["unknown"]["methods"].items():
        shares = [100 * np.array(figures["roc"][side]) for side in ("false_accept", "recall")]
        label = f"{name} {figures['auroc']['mean']:.3f}"
        axes.plot(*shares, color=METHOD_COLOURS.get(name, _INK), linewidth=1.8, label=label)
    if "calibrated" in result["unknown"]:
        found = result["unknown"]["calibrated"]
        measured = [100 * found[name]["mean"] for name in ("false_accept", "recall")]
        label = f"threshold for {100 * found['rate']:g} %"
        axes.plot(*measured, "o", markersize=7, color=METHOD_COLOURS["mocha"], label=label, linestyle="none")
    axes.legend(loc="lower right", fontsize=9, handlelength=1.2)
    axes.set_title(shots_in_words(result["shots"]))
    axes.set_xlabel("look-alikes that get one, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 102)
    axes.set_aspect("equal")
    axes.grid(color=_INK, alpha=0.12)


def spectrum(eigenvalues_J: NDArray[np.float64], dim: int) -> str:
    """Eigenvalues of the projection and the share of the variance that the first k explain.

    Args:
        eigenvalues_J: all eigenvalues, descending.
        dim: number of components kept as the target.

    Returns:
        An SVG element.
    """
    rank = np.arange(1, len(eigenvalues_J) + 1)
    values = np.maximum(eigenvalues_J, np.finfo(np.float64).tiny)
    floor = values[0] * 1e-9  # what lies below is rounding, and would flatten the rest of a logarithmic axis
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.semilogy(rank, np.maximum(values, floor), color=_RUN_COLOURS[1], linewidth=1.6)
        left.set_title("eigenvalue")
        right.plot(rank, 100 * np.cumsum(values) / values.sum(), color=_RUN_COLOURS[1], linewidth=1.6)
        right.set_title("variance explained, %")
        right.set_ylim(0, 103)
        for axes in (left, right):
            axes.axvline(dim, color=_INK, linewidth=1, linestyle="--")
            axes.annotate(f" target: {dim}", (dim, 0.06), xycoords=("data", "axes fraction"))
            axes.set_xlabel("component")
            axes.grid(color=_INK, alpha=0.12)
        return _svg(figure, "spectrum")


def training_curves(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Losses and validation mAP of each run by epoch.

    Args:
        runs: per run, the columns of its results.csv.

    Returns:
        An SVG element; quantities that no run recorded have no panel.
    """
    curves = [(title, key) for title, key in _CURVES if any(key in columns for columns in runs.values())]
    rows = max(1, -(-len(curves) // 3))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.4 + 1.9 * rows), layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False).ravel()
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        for axes, (title, key) in zip(panels, curves, strict=False):
            _curve_panel(axes, title, [columns.get(key, ()) for columns in runs.values()])
        lines = [mpl.lines.Line2D([], [], color=colour) for colour in _RUN_COLOURS[: len(runs)]]
        figure.legend(lines, list(runs), loc="outside upper left", ncols=len(runs))
        return _svg(figure, "curves")


def _curve_panel(axes: Axes, title: str, curves: Sequence[Sequence[float]]) -> None:
    for colour, values in zip(_RUN_COLOURS, curves, strict=False):
        # An epoch without validation is recorded as 0 or nan: it has no point.
        points = [(epoch, value) for epoch, value in enumerate(values, 1) if np.isfinite(value) and value != 0]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=2.5, linewidth=1.4)
    axes.set_title(title)
    axes.set_xlim(0.5, max(1, *map(len, curves)) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.grid(color=_INK, alpha=0.12)


def picture(image: NDArray[np.uint8], *, longest_side: int = 480) -> str:
    """An RGB image (H, W, 3), shrunk to the given longest side in pixels, as a data URI."""
    shrunk = Image.fromarray(image)
    shrunk.thumbnail((longest_side, longest_side))
    stream = io.BytesIO()
    shrunk.save(stream, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _svg(figure: Figure, salt: str) -> str:
    """The figure as an SVG element whose ids cannot clash with another figure's and whose ink is the page's."""
    FigureCanvasSVG(figure)
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace(_INK, "currentColor")
