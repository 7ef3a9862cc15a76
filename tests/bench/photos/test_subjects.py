"""The objects' folders and their classes, from files as they are published."""

from pathlib import Path

from bench.photos.subjects import copy_subjects, read_coarse
from mocha_pipe.data.benchmarks.photos import read_photos
from tests.bench.photos.conftest import draw_subjects

LINES = """'a cube shaped {0} {1}'.format(unique_token:  class_token)
# a comment

red dog: dog
blue cat: stuffed animal
green bird: bird
"""


def test_lines_that_name_no_object_are_ignored_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "coarse.yaml"
    file.write_text(LINES)
    coarse = {"red dog": "dog", "blue cat": "stuffed animal"}
    assert read_coarse(file, ["blue cat", "red dog"]) == (coarse, 2)
    assert read_coarse(tmp_path / "absent.yaml", ["red dog"]) == ({}, 0)


def test_the_copy_is_a_benchmark(tmp_path: Path) -> None:
    source = draw_subjects(tmp_path / "photographs")
    (source / "coarse.yaml").write_text(LINES)
    target = tmp_path / "work" / "subjects"
    assert copy_subjects(source, target) == 2
    benchmark = read_photos(target)
    assert benchmark.source.class_names == ("blue cat", "red dog")
    assert [benchmark.coarse_names[coarse] for coarse in benchmark.coarse_of] == ["stuffed animal", "dog"]
    before = (target / "coarse.yaml").stat().st_mtime_ns
    assert copy_subjects(source, target) == 2
    assert (target / "coarse.yaml").stat().st_mtime_ns == before
