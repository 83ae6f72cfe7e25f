"""Work in a process of its own: its time and memory are measured, and its failure is no result."""

import operator
import time

import pytest

from benchmarks._apart import measure_apart


def test_time_and_memory_are_those_of_the_call() -> None:
    idle, large = measure_apart(time.sleep, 0.4), measure_apart(sorted, range(10_000_000))

    assert 0.4 <= idle.seconds < 5
    assert large.peak_mb > idle.peak_mb + 50


def test_a_call_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="truediv failed"):
        measure_apart(operator.truediv, 1, 0)
