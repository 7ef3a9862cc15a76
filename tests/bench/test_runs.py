"""Work in a process of its own."""

import math
import multiprocessing
import os

import pytest

from bench.runs import in_a_process, memory_status


def test_work_runs_in_another_process_and_its_result_comes_back() -> None:
    found = in_a_process("own", os.getpid)
    assert isinstance(found, int)
    assert found != os.getpid()


def test_its_own_children_begin_as_those_of_any_process() -> None:
    method = in_a_process("own", eval, "__import__('multiprocessing').get_start_method()")
    assert method == multiprocessing.get_start_method()


def test_work_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError) as raised:
        in_a_process("broken", math.sqrt, -1)
    assert str(raised.value) == "the broken run failed; its message stands above"


def test_the_peak_of_a_process_is_its_own_and_not_that_of_its_parent() -> None:
    large = b"1" * 2**29  # touched, so that it is resident
    assert memory_status("VmHWM") > len(large)
    assert in_a_process("small", memory_status, "VmHWM") < len(large)
