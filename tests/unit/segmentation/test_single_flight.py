"""Values made once: while others wait, until they are old, until others need the room."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from pipelines.segmentation.single_flight import Kept


def test_a_value_is_made_once_however_many_ask_meanwhile() -> None:
    made: list[int] = []

    def make() -> str:
        made.append(1)
        sleep(0.05)
        return "value"

    kept = Kept[str](2)
    with ThreadPoolExecutor(8) as people:
        assert set(people.map(lambda _: kept.get("a", make), range(8))) == {"value"}
    assert len(made) == 1
    assert "a" in kept


def test_one_key_does_not_wait_for_another() -> None:
    kept, go_on = Kept[int](2), threading.Event()
    with ThreadPoolExecutor(1) as slow:
        waiting = slow.submit(kept.get, "slow", lambda: int(go_on.wait()))
        assert kept.get("quick", lambda: 7) == 7
        go_on.set()
        assert waiting.result() == 1


def test_the_least_recently_used_makes_room() -> None:
    kept = Kept[int](2)
    for key in ("a", "b", "a", "c"):
        kept.get(key, lambda: 0)
    assert ["a" in kept, "b" in kept, "c" in kept] == [True, False, True]


def test_an_old_value_is_made_anew_and_each_value_says_how_long_it_is_good() -> None:
    kept = Kept[int](2, lambda value: 60.0 if value else 0.0)
    assert [kept.get("a", lambda: 0), kept.get("a", lambda: 5), kept.get("a", lambda: 9)] == [0, 5, 5]


def test_an_error_reaches_who_asked_and_the_next_one_tries_again() -> None:
    kept = Kept[float](2)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 / 0)
    assert kept.get("a", lambda: 2.0) == 2.0
