"""Figures of the report: each function turns numbers into one inline SVG, or an image into a data URI."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
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
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_CURVES = {
    "train/box_loss": "box loss",
    "train/cls_loss": "class loss",
    "train/dfl_loss": "dfl loss",
    "train/dist_loss": "L_dist",
    "train/emb_loss": "L_emb",
    "metrics/mAP50-95(B)": "mAP50-95 (val)",
}
"""Columns of ultralytics' results.csv that have a panel, and its title."""

P = ParamSpec("P")


def _as_svg(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Make of a function that draws a figure one that returns it as an SVG element.

    Its ids cannot clash with those of another figure on the page, and its ink is the page's.
    """

    @wraps(draw)
    def svg(*arguments: P.args, **keywords: P.kwargs) -> str:
        stream = io.StringIO()
        with mpl.rc_context({**_STYLE, "svg.hashsalt": draw.__name__}):
            draw(*arguments, **keywords).savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
        text = stream.getvalue()
        return text[text.index("<svg") :].replace(_INK, "currentColor")

    return svg


@_as_svg
def comparison(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Few-shot mAP50-95 of each method with its 95 % interval, one panel per number of shots.

    Args:
        results: the `results` of a report.json.
    """
    names = list(reversed(results[0]["methods"]))
    figure = Figure(figsize=(8, 0.7 + 0.36 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(results), sharex=True, squeeze=False)[0]
    for axes, result in zip(panels, results, strict=True):
        for height, name in enumerate(names):
            figures, colour = result["methods"][name]["map50_95"], METHOD_COLOURS.get(name, _INK)
            axes.plot(figures["ci95"], [height, height], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot([figures["mean"]], [height], marker="o", markersize=7, color=colour)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_title(shots_in_words(result["shots"]))
        axes.set_xlabel("mAP50-95")
        axes.grid(visible=False, axis="y")
    return figure


@_as_svg
def roc(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Recall of taught objects by the rate at which held-out ones are accepted, one panel per number of shots.

    Args:
        results: those of a report.json that have `unknown`; a dot marks the student's calibrated threshold.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, max(2, len(results)), sharey=True)
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    for axes, result in zip(panels, results, strict=False):
        axes.plot([0, 100], [0, 100], color=_INK, linewidth=1, linestyle=":", alpha=0.5)
        for name, figures in result["unknown"]["methods"].items():
            shares = [100 * np.array(figures["roc"][side]) for side in ("false_accept", "recall")]
            label = f"{name} {figures['auroc']['mean']:.3f}"
            axes.plot(*shares, color=METHOD_COLOURS.get(name, _INK), linewidth=1.8, label=label)
        if found := result["unknown"].get("calibrated"):
            measured = [100 * found[name]["mean"] for name in ("false_accept", "recall")]
            label = f"threshold for {100 * found['rate']:g} %"
            axes.plot(*measured, "o", markersize=7, color=METHOD_COLOURS["mocha"], label=label, linestyle="none")
        axes.legend(loc="lower right", fontsize=9, handlelength=1.2)
        axes.set_title(shots_in_words(result["shots"]))
        axes.set(xlabel="look-alikes that get one, %", xlim=(0, 100), ylim=(0, 102), aspect="equal")
    panels[0].set_ylabel("objects that get a name, %")
    return figure


@_as_svg
def spectrum(eigenvalues_J: NDArray[np.float64], dim: int) -> Figure:
    """Eigenvalues of the projection and the share of the variance that the first k explain.

    Args:
        eigenvalues_J: all eigenvalues, descending.
        dim: number of components kept as the target.
    """
    rank = np.arange(1, len(eigenvalues_J) + 1)
    values = np.maximum(eigenvalues_J, np.finfo(np.float64).tiny)
    floor = values[0] * 1e-9  # what lies below is rounding, and would flatten the rest of a logarithmic axis
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
    return figure


@_as_svg
def training_curves(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Losses and validation mAP of each run by epoch; a quantity that no run recorded has no panel.

    Args:
        runs: per run, the columns of its results.csv.
    """
    recorded = {key for columns in runs.values() for key in columns}
    curves = {key: title for key, title in _CURVES.items() if key in recorded}
    rows = max(1, -(-len(curves) // 3))
    figure = Figure(figsize=(8, 0.4 + 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes, (key, title) in zip(panels, curves.items(), strict=False):
        for colour, columns in zip(_RUN_COLOURS, runs.values(), strict=False):
            values = np.array(columns.get(key, ()))
            measured = np.flatnonzero(np.isfinite(values) & (values != 0))  # 0 or nan: an epoch without validation
            axes.plot(measured + 1, values[measured], color=colour, marker="o", markersize=2.5, linewidth=1.4)
        axes.set_title(title)
        axes.set_xlim(0.5, max(1, *(len(columns.get(key, ())) for columns in runs.values())) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    lines = [mpl.lines.Line2D([], [], color=colour) for colour in _RUN_COLOURS[: len(runs)]]
    figure.legend(lines, list(runs), loc="outside upper left", ncols=len(runs))
    return figure


def picture(image: NDArray[np.uint8], *, longest_side: int = 480) -> str:
    """An RGB image (H, W, 3), shrunk to the given longest side in pixels, as a data URI."""
    shrunk = Image.fromarray(image)
    shrunk.thumbnail((longest_side, longest_side))
    stream = io.BytesIO()
    shrunk.save(stream, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
