"""Several requests to a bucket at once."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

REQUESTS = 16  # at once
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Collection[Item]) -> Iterator[Result]:
    """Yield the function's result for each item, in their order; after an error no further item is begun."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
