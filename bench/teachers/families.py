"""Families of vision-language models whose contract suite passes, counted from a run of all of it."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from bench.figures import Figure

_TESTS = Path(__file__).parents[2] / "tests/teacher_cache/teachers/families"
SUITE = (_TESTS / "test_families.py", _TESTS / "test_class_defaults.py")


def measure(root: Path) -> dict[str, Figure]:
    """Run the suite with the rarer families, and count."""
    report = root / "families.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", f"--junit-xml={report}", *map(str, SUITE)]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)  # noqa: S603 (our own words)
    passed, others = count_families(report)
    note = f"{', '.join(passed)}; tiny random models" + (f"; not: {', '.join(others)}" if others else "")
    return {"teacher_families": Figure(value=len(passed), target=25, better="higher", note=note)}


def count_families(report: Path) -> tuple[list[str], list[str]]:
    """Families of which every test passed, and those that failed or were skipped, from a report of pytest."""
    is_fine: dict[str, bool] = defaultdict(lambda: True)
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (written by the line above)
        _, bracket, parameters = case.attrib["name"].partition("[")
        if bracket:
            # Other parameters are numbers, and pytest decides on which side of the family they stand.
            family = next(part for part in parameters.removesuffix("]").split("-") if not part.isdigit())
            is_fine[family] &= len([part for part in case if part.tag in ("failure", "error", "skipped")]) == 0
    return sorted(name for name in is_fine if is_fine[name]), sorted(name for name in is_fine if not is_fine[name])
