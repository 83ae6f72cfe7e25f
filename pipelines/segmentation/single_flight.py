"""Values that are made once and kept for a while, however many people ask for them meanwhile."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

V = TypeVar("V")


class Kept(Generic[V]):
    """At most `items` values by key, the least recently used making room; `seconds` tells how long a value is good."""

    def __init__(self, items: int, seconds: Callable[[V], float] = lambda value: float("inf")) -> None:
        self._items, self._seconds = items, seconds
        self._values: OrderedDict[str, tuple[V, float]] = OrderedDict()
        self._underway: dict[str, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], V]) -> V:
        """Give the value of a key, calling `make` for it if nobody did or does.

        An error of `make` reaches everybody who waits for this key, and the next one who asks tries again.
        """
        with self._lock:
            if self._is_there(key):
                self._values.move_to_end(key)
                return self._values[key][0]
            future = self._underway.get(key)
            ours = future is None
            if future is None:
                future = self._underway[key] = Future()
        if ours:
            self._fulfil(key, future, make)
        return future.result()

    def __contains__(self, key: str) -> bool:
        """Tell whether the value is there already."""
        with self._lock:
            return self._is_there(key)

    def _is_there(self, key: str) -> bool:
        return key in self._values and time.monotonic() < self._values[key][1]

    def _fulfil(self, key: str, future: "Future[V]", make: Callable[[], V]) -> None:
        try:
            value = make()
            with self._lock:
                self._values[key] = value, time.monotonic() + self._seconds(value)
                self._values.move_to_end(key)
                while len(self._values) > self._items:
                    self._values.popitem(last=False)
            future.set_result(value)
        except BaseException as error:  # whatever it is, those who wait must hear of it instead of waiting for ever
            future.set_exception(error)
        finally:
            with self._lock:
                del self._underway[key]
