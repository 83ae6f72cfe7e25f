"""A bounded amount of something, memory for one, that threads share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Lets holders in while what they need fits; who needs more than there is waits to be alone."""

    def __init__(self, amount: float) -> None:
        self._free = self._all = amount
        self._changed = threading.Condition()

    @contextmanager
    def held(self, amount: float) -> Iterator[None]:
        """Hold an amount until the block ends; waits until it is free."""
        taken = min(amount, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()
