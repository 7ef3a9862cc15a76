"""Work in a process of its own."""

import math
import os

import pytest

from pipeline.bench.runs import in_a_process


def test_work_runs_in_another_process_and_its_result_comes_back() -> None:
    found = in_a_process("own", os.getpid)
    assert isinstance(found, int)
    assert found != os.getpid()


def test_work_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError) as raised:
        in_a_process("broken", math.sqrt, -1)
    assert str(raised.value) == "the broken run failed; its message stands above"
