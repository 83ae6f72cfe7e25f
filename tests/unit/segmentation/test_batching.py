"""Photos of many threads through one network, and a limit on what is in work."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest

from pipelines.errors import BusyError
from pipelines.segmentation.batching import Batched, RequestLimiter


class Network:
    """Doubles its input, and takes its time; notes the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.sizes.append(len(batch))
        sleep(0.01)
        if (batch < 0).any():
            raise ValueError("a negative number")
        return batch * 2


def test_everybody_gets_their_own_result_and_batches_form_while_the_network_is_busy() -> None:
    network = Network()
    batched = Batched(network, max_batch_size=4)

    with ThreadPoolExecutor(12) as people:
        outputs = list(people.map(batched, [np.full((1, 2, 2), n, np.float32) for n in range(60)]))

    assert [float(output[0, 0, 0]) for output in outputs] == [2.0 * n for n in range(60)]
    assert max(network.sizes) == 4
    assert len(network.sizes) < 40


def test_a_photo_that_comes_alone_does_not_wait_for_others() -> None:
    network = Network()

    Batched(network, max_batch_size=4)(np.ones((1, 1, 1), np.float32))

    assert network.sizes == [1]


def test_an_error_reaches_those_it_concerns_and_the_next_call_works() -> None:
    batched = Batched(Network(), max_batch_size=4)

    with pytest.raises(ValueError, match="negative"):
        batched(np.full((1, 1, 1), -1, np.float32))

    assert batched(np.ones((1, 1, 1), np.float32)) == 2


def test_what_exceeds_the_limit_is_refused_until_work_ends() -> None:
    limiter, entered, leave = RequestLimiter(3, "photos"), threading.Event(), threading.Event()

    def stay() -> None:
        with limiter.acquire(2):
            entered.set()
            leave.wait()

    worker = threading.Thread(target=stay)
    worker.start()
    entered.wait()
    with pytest.raises(BusyError, match="2 photos are in work and 2 more would exceed the limit of 3"):
        limiter.acquire(2).__enter__()
    with limiter.acquire(1):
        pass
    leave.set()
    worker.join()

    with pytest.raises(ZeroDivisionError), limiter.acquire(3):
        raise ZeroDivisionError
    with limiter.acquire(3):
        pass
