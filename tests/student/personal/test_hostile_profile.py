"""Profiles come from colleagues too: a hostile one is one line."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mocha_pipe.student.personal.profile import Profile
from mocha_pipe.student.personal.profile_file import ProfileError
from tests.hostile import JSON


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
def test_description(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.safetensors"
    save_file({"prototypes": np.zeros((1, 1), np.float32)}, path, metadata={"profile": text})
    with pytest.raises(ProfileError) as caught:
        Profile.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("header", JSON.values(), ids=JSON)
def test_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(ProfileError, match="must be a safetensors file") as caught:
        Profile.load(path)
    assert "\n" not in str(caught.value)
