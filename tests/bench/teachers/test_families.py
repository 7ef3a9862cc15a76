"""Counting families from a report of pytest."""

from pathlib import Path

from bench.teachers.families import SUITE, count_families

REPORT = """<testsuites><testsuite>
<testcase name="test_one[qwen2_vl]"/><testcase name="test_two[8-8-qwen2_vl]"/>
<testcase name="test_one[llava]"/><testcase name="test_two[llava-8-8]"><failure message="no"/></testcase>
<testcase name="test_one[smolvlm]"><skipped message="num2words is not installed"/></testcase>
<testcase name="test_of_no_family"/>
</testsuite></testsuites>"""


def test_a_family_counts_when_all_its_tests_passed(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert count_families(tmp_path / "report.xml") == (["qwen2_vl"], ["llava", "smolvlm"])


def test_the_suite_is_there() -> None:
    assert all(suite.is_file() for suite in SUITE)
