"""Cached values: made once while others wait, until they expire or are evicted."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from pipelines.segmentation.single_flight import SingleFlightCache


def test_a_value_is_made_once_however_many_ask_meanwhile() -> None:
    calls: list[int] = []

    def make() -> str:
        calls.append(1)
        sleep(0.05)
        return "value"

    cache = SingleFlightCache[str](2)
    with ThreadPoolExecutor(8) as people:
        assert set(people.map(lambda _: cache.get("a", make), range(8))) == {"value"}
    assert len(calls) == 1
    assert "a" in cache


def test_one_key_does_not_wait_for_another() -> None:
    cache, go_on = SingleFlightCache[int](2), threading.Event()
    with ThreadPoolExecutor(1) as slow:
        waiting = slow.submit(cache.get, "slow", lambda: int(go_on.wait()))
        assert cache.get("quick", lambda: 7) == 7
        go_on.set()
        assert waiting.result() == 1


def test_the_least_recently_used_is_evicted() -> None:
    cache = SingleFlightCache[int](2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda: 0)
    assert ["a" in cache, "b" in cache, "c" in cache] == [True, False, True]


def test_an_expired_value_is_made_again_and_each_value_has_its_own_time() -> None:
    cache = SingleFlightCache[int](2, lambda value: 60.0 if value else 0.0)
    assert [cache.get("a", lambda: 0), cache.get("a", lambda: 5), cache.get("a", lambda: 9)] == [0, 5, 5]


def test_an_error_reaches_who_asked_and_the_next_one_tries_again() -> None:
    cache = SingleFlightCache[float](2)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert cache.get("a", lambda: 2.0) == 2.0


def test_an_error_reaches_everybody_who_waits_and_is_met_once() -> None:
    """Each waiting thread would else meet the same timeout again, one after another."""
    calls: list[int] = []
    everybody = threading.Barrier(8)

    def fail() -> int:
        calls.append(1)
        sleep(0.2)
        raise TimeoutError("the bucket does not answer")

    def ask(cache: SingleFlightCache[int]) -> BaseException | None:
        everybody.wait()
        with pytest.raises(TimeoutError) as caught:
            cache.get("a", fail)
        return caught.value

    cache = SingleFlightCache[int](2)
    with ThreadPoolExecutor(8) as people:
        errors = list(people.map(ask, [cache] * 8))
    assert len(errors) == 8
    assert len(calls) == 1
    assert "a" not in cache
