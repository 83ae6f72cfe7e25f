"""A cache whose values are made once, however many threads ask for them meanwhile."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

V = TypeVar("V")


class SingleFlightCache(Generic[V]):
    """A thread-safe cache of at most `max_items` values; the least recently used one is evicted.

    Concurrent callers of one key share one call that makes its value (single flight), and callers of other keys do not
    wait for it. An error reaches all callers that share the call and is not cached. `ttl_s` gives the seconds that a
    value stays valid, from the value itself; by default it stays valid for ever.

    `cachetools.cached(TLRUCache(...), condition=...)` is no replacement: after an error each waiting thread repeats the
    call, one after another, so that twelve clicks on a photo whose bucket does not answer would wait twelve timeouts.
    """

    def __init__(self, max_items: int, ttl_s: Callable[[V], float] = lambda value: float("inf")) -> None:
        self._max_items, self._ttl_s = max_items, ttl_s
        self._values: OrderedDict[str, tuple[V, float]] = OrderedDict()  # with the time at which each expires
        self._in_flight: dict[str, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], V]) -> V:
        """Return the value of a key; calls `make` when it is neither cached nor being made by another thread.

        Raises what `make` raises.
        """
        with self._lock:
            if self._is_valid(key):
                self._values.move_to_end(key)
                return self._values[key][0]
            future = self._in_flight.get(key)
            is_leader = future is None
            if future is None:
                future = self._in_flight[key] = Future()
        if is_leader:
            self._fulfil(key, future, make)
        return future.result()

    def __contains__(self, key: str) -> bool:
        """Return whether a valid value is cached."""
        with self._lock:
            return self._is_valid(key)

    def _is_valid(self, key: str) -> bool:
        return key in self._values and time.monotonic() < self._values[key][1]

    def _fulfil(self, key: str, future: "Future[V]", make: Callable[[], V]) -> None:
        try:
            value = make()
            with self._lock:
                self._values[key] = value, time.monotonic() + self._ttl_s(value)
                self._values.move_to_end(key)
                while len(self._values) > self._max_items:
                    self._values.popitem(last=False)
            future.set_result(value)
        except BaseException as error:  # whatever it is, the threads that wait must get it instead of waiting for ever
            future.set_exception(error)
        finally:
            with self._lock:
                del self._in_flight[key]
