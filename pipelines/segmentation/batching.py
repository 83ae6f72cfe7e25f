"""From networks that take batches to calls with one photo each, and a limit on the requests in work."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import torch

from pipelines.errors import BusyError
from pipelines.segmentation.runtime import Forward, max_concurrency


def per_item(forward: Forward) -> Forward:
    """Return a function of one (C, H, W) array, made of a network's function of batches; any thread may call it."""
    if torch.cuda.is_available():
        return Batched(forward, max_concurrency())
    return lambda item: forward(item[None])[0]


class Batched:
    """Adaptive batching: items that arrive while the network runs form its next batch.

    Calls of many threads with one (C, H, W) array each run as (N, C, H, W) batches of at most `max_batch_size`. No call
    waits for a batch to fill, so a single photo loses no time, and there is no thread and no queue to manage: the
    thread that finds the network free runs it for all threads that wait.
    """

    def __init__(self, forward: Forward, max_batch_size: int) -> None:
        self._forward, self._max_batch_size = forward, max_batch_size
        self._waiting: list[tuple[np.ndarray, Future[np.ndarray]]] = []
        self._lock, self._running = threading.Lock(), threading.Lock()

    def __call__(self, item: np.ndarray) -> np.ndarray:
        """Return the network's output for one item; an error of a batch reaches every caller of the batch."""
        future: Future[np.ndarray] = Future()
        with self._lock:
            self._waiting.append((item, future))
        while not future.done():
            with self._running:
                if not future.done():
                    self._run_next()
        return future.result()

    def _run_next(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting[: self._max_batch_size], self._waiting[self._max_batch_size :]
        try:
            outputs = self._forward(np.stack([item for item, _ in batch]))
        except BaseException as error:  # whatever it is, the threads that wait must get it instead of waiting for ever
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), output in zip(batch, outputs, strict=True):
                future.set_result(output)


class RequestLimiter:
    """Limits the work in progress: what exceeds `limit` is refused at once instead of queued.

    `items` names in error messages what is counted, such as "photos".
    """

    def __init__(self, limit: int, items: str) -> None:
        self.limit, self._items = limit, items
        self._in_work, self._lock = 0, threading.Lock()

    @contextmanager
    def acquire(self, count: int = 1) -> Iterator[None]:
        """Count `count` items as in work while the block runs; raises BusyError when that exceeds the limit."""
        with self._lock:
            if self._in_work + count > self.limit:
                raise BusyError(
                    f"{self._in_work} {self._items} are in work and {count} more would exceed the limit of "
                    f"{self.limit}; ask again in a few seconds, or for fewer at a time"
                )
            self._in_work += count
        try:
            yield
        finally:
            with self._lock:
                self._in_work -= count
