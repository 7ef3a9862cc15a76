"""The command in an error of phase 1 can be typed as it stands."""

import shlex
from pathlib import Path

import pytest

from mocha_pipe.teacher_cache.errors import CacheIncompleteError, build_command, naming_data


def test_the_command_of_an_incomplete_cache_names_the_data_too() -> None:
    folder, data = Path("my cache"), Path("my data/data.yaml")
    lacking = f"cache {folder} has no targets yet; complete it with `{build_command(folder)}`"
    with pytest.raises(CacheIncompleteError) as caught, naming_data(data):
        raise CacheIncompleteError(lacking)
    text = str(caught.value)
    assert text == lacking[:-1] + " --data 'my data/data.yaml'`"
    assert shlex.split(text.split("`")[1])[-4:] == ["--cache", "my cache", "--data", "my data/data.yaml"]
    assert build_command(folder, data) == text.split("`")[1]
    with pytest.raises(CacheIncompleteError) as caught, naming_data(None):
        raise CacheIncompleteError(lacking)
    assert str(caught.value) == lacking
