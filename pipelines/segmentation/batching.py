"""One photo per call for people, whatever the network likes best; and a door that lets in no more than fits."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import torch

from pipelines.errors import BusyError
from pipelines.segmentation.runtime import Forward, callers_at_once


def one_at_a_time(forward: Forward) -> Forward:
    """Make a function of one (C, H, W) array of a network's function of batches; any thread may call it."""
    if torch.cuda.is_available():
        return Batched(forward, callers_at_once())
    return lambda item: forward(item[None])[0]


class Batched:
    """Adaptive batching: what arrives while the network runs goes through it together the next time.

    Calls of many threads with one (C, H, W) array each are run as (N, C, H, W) batches of at most `largest`. Nothing
    waits for a batch to fill, so a photo that comes alone loses no time, and there is no thread and no queue to look
    after: whoever finds the network free runs it for everybody who waits.
    """

    def __init__(self, forward: Forward, largest: int) -> None:
        self._forward, self._largest = forward, largest
        self._waiting: list[tuple[np.ndarray, Future[np.ndarray]]] = []
        self._lock, self._running = threading.Lock(), threading.Lock()

    def __call__(self, item: np.ndarray) -> np.ndarray:
        """Give the network's output for one item; an error of its batch reaches everybody in the batch."""
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
            batch, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
        try:
            outputs = self._forward(np.stack([item for item, _ in batch]))
        except BaseException as error:  # whatever it is, those who wait must hear of it instead of waiting for ever
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), output in zip(batch, outputs, strict=True):
                future.set_result(output)


class Admission:
    """A door that lets in work up to a limit, and turns away what is more at once instead of letting it pile up."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self._what = limit, what
        self._inside, self._lock = 0, threading.Lock()

    @contextmanager
    def admitted(self, count: int) -> Iterator[None]:
        """Hold places for `count` pieces of work; raises BusyError when there are not as many left."""
        with self._lock:
            if self._inside + count > self.limit:
                raise BusyError(
                    f"{self._inside} {self._what} are being worked on and {count} more would exceed the limit of "
                    f"{self.limit}; ask again in a few seconds, or for fewer at a time"
                )
            self._inside += count
        try:
            yield
        finally:
            with self._lock:
                self._inside -= count
