"""report.html: one self-contained page with the numbers of report.json, figures and pictures."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from mocha_pipe.data.files import atomic_path
from mocha_pipe.pipeline.report import plots
from mocha_pipe.pipeline.report.matrices import matrices
from mocha_pipe.pipeline.report.tables import METHOD_TITLES, METRIC_TITLES, interval, shots_in_words

if TYPE_CHECKING:
    from mocha_pipe.teacher_cache.store.projection import Projection

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_MATRICES = 12  # the others are folded


@dataclass(frozen=True, kw_only=True)
class NamedBox:
    """One detection of a query scene with the personal name that it was given."""

    xyxy: tuple[float, float, float, float]
    """Corners in pixels of the picture's original frame."""
    name: str
    """The personal name that the prototypes gave."""
    truth: str | None
    """The name of the object under the box; None where there is none."""

    @property
    def correct(self) -> bool:
        """Whether the name is the object's."""
        return self.name == self.truth


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One query scene of the picture grid."""

    title: str
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    boxes: tuple[NamedBox, ...]


def write_html(
    path: Path,
    report: Mapping[str, Any],
    *,
    projection: "Projection | None" = None,
    curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    scenes: Sequence[Scene] = (),
    synthetic: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Write the page atomically; it asks for nothing from outside itself. A part that is None or empty is left out.

    Args:
        path: the html file.
        report: what report.json holds.
        projection: of the cache, whose spectrum is drawn.
        curves: columns of results.csv by run.
        scenes: query scenes of the first episode.
        synthetic: whether the benchmark is the procedural world.
        notes: one line for each thing that was left out, with the reason.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "interval": interval, "percent_interval": _percent_interval, "shots": shots_in_words,
        "picture": plots.picture,
    }  # fmt: skip
    largest = max(report["results"], key=lambda result: int(result["shots"]))
    unknown = [result for result in report["results"] if "unknown" in result]
    page = environment.get_template("report.html.jinja2").render(
        report=report,
        notes=notes,
        scenes=scenes,
        synthetic=synthetic,
        method_titles=METHOD_TITLES,
        colours=plots.METHOD_COLOURS,
        metrics=METRIC_TITLES,
        comparison=plots.comparison(report["results"]),
        confusion=matrices(largest["confusion"]["mocha"]),
        confusion_shots=largest["shots"],
        most_matrices=_MOST_MATRICES,
        unknown=unknown,
        roc=plots.roc(unknown) if unknown else None,
        target_dim=projection and projection.dim,
        spectrum=projection and plots.spectrum(projection.eigenvalues, projection.dim),
        runs=list(curves or ()),
        curves=curves and plots.training_curves(curves),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _percent_interval(figure: Mapping[str, Any]) -> str:
    """A share of 0..1 in per cent."""
    low, high = figure["ci95"]
    return f"{100 * figure['mean']:.1f}\u00a0% [{100 * low:.1f}, {100 * high:.1f}]"


def read_curves(path: Path) -> dict[str, list[float]]:
    """Columns of ultralytics' results.csv; empty when there is no such file."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
