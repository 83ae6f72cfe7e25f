"""A bounded amount that threads share, such as megabytes or megapixels in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """An amount from which threads reserve parts; who needs more than all of it waits to be the only one."""

    def __init__(self, amount: float) -> None:
        self._free = self._total = amount
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, amount: float) -> Iterator[None]:
        """Wait until an amount is free, and reserve it until the block ends."""
        reserved = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= reserved)
            self._free -= reserved
        try:
            yield
        finally:
            with self._changed:
                self._free += reserved
                self._changed.notify_all()
