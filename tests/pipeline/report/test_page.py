"""report.html: the numbers of report.json, nothing fetched from outside, readable without its pictures."""

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mocha_pipe.pipeline.report import plots
from mocha_pipe.pipeline.report.page import NamedBox, Scene, read_curves, write_html


@pytest.fixture(scope="module")
def material(scene_image: np.ndarray) -> dict[str, Any]:
    boxes = (
        NamedBox(xyxy=(2, 3, 20, 30), name="<red> mug", truth="<red> mug"),
        NamedBox(xyxy=(22, 3, 50, 30), name="blue ball", truth="green ball"),
        NamedBox(xyxy=(30, 20, 50, 39), name="blue kite", truth=None),
    )
    columns = {"train/box_loss": [2.0, 1.0], "metrics/mAP50-95(B)": [0.0, 0.5]}
    return {
        "projection": SimpleNamespace(eigenvalues=np.exp(-np.arange(20.0)), dim=8),
        "curves": {"base detector": columns, "distillation": {**columns, "train/emb_loss": [3.0, 2.0]}},
        "scenes": [Scene(title="00007", image=scene_image, boxes=boxes)],
        "synthetic": True,
        "notes": ["The row 'x' is left out."],
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, whole_report: dict[str, Any], material: dict[str, Any]) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(path, whole_report, **material)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are tested by themselves; drawing them takes most of a page's time."""
    for name in ("comparison", "roc"):
        monkeypatch.setattr(plots, name, lambda _: "<svg/>")


def outside_references(page: str) -> list[str]:
    """Addresses that a browser would fetch for the page: everything but data URIs and places in the page itself."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            for name, value in attributes:
                if name in {"src", "href", "xlink:href", "srcset", "data", "poster", "action"}:
                    found.append(value or "")

    Reader().feed(page)
    found += re.findall(r"url\(\s*['\"]?([^)'\"]+)", page) + re.findall(r"@import\s+([^;]+)", page)
    return [address for address in found if not address.startswith(("data:", "#"))]


def test_the_page_asks_for_nothing_from_outside(page: str) -> None:
    assert outside_references(page) == []
    assert "<script" not in page
    assert page.count("data:image/jpeg;base64,") == 1


@pytest.mark.parametrize(
    "tag", ['<img src="https://a.b/c.png">', '<link href="style.css">', "<style>@import 'x.css';</style>"]
)
def test_the_search_for_outside_references_can_fail(page: str, tag: str) -> None:
    assert outside_references(page.replace("</main>", f"{tag}</main>"))


def test_the_page_has_every_number_of_the_report(page: str, report: dict[str, Any]) -> None:
    for result in report["results"]:
        for figures in (*result["methods"].values(), result["gain"]):
            for figure in figures.values():
                for number in (figure["mean"], *figure["ci95"]):
                    assert f"{number:.1f}" in page
        unknown = result["unknown"]
        for figures in unknown["methods"].values():
            mean, (low, high) = figures["auroc"]["mean"], figures["auroc"]["ci95"]
            assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in page
        for figure in (
            *(figures["false_accept_at_95_recall"] for figures in unknown["methods"].values()),
            unknown["calibrated"]["false_accept"],
            unknown["calibrated"]["recall"],
        ):
            low, high = figure["ci95"]
            assert f"{100 * figure['mean']:.1f}\u00a0% [{100 * low:.1f}, {100 * high:.1f}]" in page
    for value in (*report["detection"].values(), *report["seconds"].values()):
        assert f"{value:.1f}" in page
    for value in (*report["versions"].values(), *report["inputs"].values()):
        assert value in page
    assert "37 episodes, seed 5" in page
    assert page.count('+7.9 <span class="range below">[+6.1, +9.8]</span>') == 6


def test_the_student_is_shown_what_it_mixes_up_at_the_largest_number_of_shots(page: str) -> None:
    section = page[page.index("What is taken for what") : page.index("Knowing what was not taught")]
    assert "after 5 shots" in section
    assert section.index(">ball ") < section.index(">mug "), "the class with fewer right names comes first"
    # 5 shots, the third method: 30 + 52 right of red_mug's 92 appearances, 8 mixed up, 2 elsewhere.
    assert '<th scope="row">1 red_<wbr>mug</th>' in section
    assert '<th scope="row">2 my &lt;mug&gt;</th>' in section
    row = section[section.index("1 red_") :].split("</tr>")[0]
    assert re.findall(r'<td class="(\w+)" style="--share: ([\d.]+)">(\d*)</td>', row) == [
        ("right", "0.89", "89"), ("wrong", "0.09", "9"), ("wrong", "0.02", "2"), ("lost", "0.00", ""),
    ]  # fmt: skip
    assert "<details>" not in section


@pytest.mark.usefixtures("undrawn")
def test_many_classes_are_folded(tmp_path: Path, report: dict[str, Any]) -> None:
    confusion = report["results"][1]["confusion"]
    confusion["mocha"] = {f"class{number}": confusion["mocha"]["mug"] for number in range(31)}
    write_html(tmp_path / "many.html", report)
    shown, folded = (tmp_path / "many.html").read_text(encoding="utf-8").split("<details>")
    assert shown.count('<table class="matrix">') == 12
    assert "<summary>19 classes with more right names</summary>" in folded
    assert folded.count('<table class="matrix">') == 19


@pytest.mark.usefixtures("undrawn")
def test_a_student_without_a_threshold_has_no_line_about_one(tmp_path: Path, page: str, report: dict[str, Any]) -> None:
    assert page.count("The student's own threshold, set for at most 7&nbsp;% of strangers") == 2
    del report["results"][0]["unknown"]["calibrated"]
    write_html(tmp_path / "one.html", report)
    assert (tmp_path / "one.html").read_text(encoding="utf-8").count("The student's own threshold") == 1


@pytest.mark.usefixtures("undrawn")
def test_a_page_without_unknown_objects_has_no_such_part(tmp_path: Path, report: dict[str, Any]) -> None:
    for result in report["results"]:
        del result["unknown"]
    write_html(tmp_path / "closed.html", report)
    assert "Knowing what was not taught" not in (tmp_path / "closed.html").read_text(encoding="utf-8")


def test_pictures_tell_right_from_wrong_names_without_colour(page: str) -> None:
    assert "✓ &lt;red&gt; mug</li>" in page
    assert "✗ blue ball (truth: green ball)</li>" in page
    assert "✗ blue kite (nothing there)</li>" in page
    assert 'alt="Query scene 00007 with 3 detections, 1 of them named correctly."' in page
    assert page.count('stroke-dasharray="5 3"') == 2


def test_figures_have_words_and_tables_have_headers(page: str) -> None:
    assert page.count('role="img" aria-label=') == 4
    assert page.count("<table") == page.count("<caption>") == page.count("<thead>")
    assert '<th scope="col">' in page
    assert "currentColor" in page
    assert "#123456" not in page


def test_synthetic_data_is_called_so(tmp_path: Path, page: str, report: dict[str, Any]) -> None:
    assert "The data is synthetic" in page
    assert "The row &#39;x&#39; is left out." in page
    write_html(tmp_path / "other.html", report)
    other = (tmp_path / "other.html").read_text()
    assert "synthetic" not in other
    assert "Query scenes" not in other
    assert outside_references(other) == []


def test_equal_material_gives_an_equal_page(
    tmp_path: Path, page: str, report: dict[str, Any], material: dict[str, Any]
) -> None:
    write_html(tmp_path / "again.html", report, **material)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_curves_are_read_by_column_with_padded_names(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch, train/box_loss\n1, 2.5\n2, nan\n")
    curves = read_curves(tmp_path / "results.csv")
    assert curves["epoch"] == [1.0, 2.0]
    assert curves["train/box_loss"][0] == 2.5
    assert np.isnan(curves["train/box_loss"][1])


def test_absent_or_empty_curves_are_empty(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch\n")
    assert read_curves(tmp_path / "results.csv") == {}
    assert read_curves(tmp_path / "none.csv") == {}
