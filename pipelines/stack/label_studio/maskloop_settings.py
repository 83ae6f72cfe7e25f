"""Settings of the local Label Studio: its own, and people who ask for the next task take turns.

On PostgreSQL Label Studio locks a task's row while it hands it out. On SQLite it does not, so two people who ask within
the same milliseconds would get the same task. This module runs in Label Studio's environment, not in ours.
"""

import threading
from collections.abc import Callable
from typing import Any

# In two steps, because the second module asks Django for settings of the first while it is read.
from core.settings import base

globals().update({name: getattr(base, name) for name in dir(base) if name.isupper()})

from core.settings import label_studio  # noqa: E402  # as said above

globals().update({name: getattr(label_studio, name) for name in dir(label_studio) if name.isupper()})
MIDDLEWARE = [*label_studio.MIDDLEWARE, f"{__name__}.TakeTurns"]

_LONGEST_TURN_S = 5  # who is handed a task without masks waits for a model; others need not wait as long


class TakeTurns:
    """Django middleware: one request for the next task at a time."""

    _turn = threading.Lock()

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def __call__(self, request: Any) -> Any:
        """Answer a request, in turn when it asks for the next task."""
        if request.path.rstrip("/") != "/api/dm/actions" or request.GET.get("id") != "next_task":
            return self._answer(request)
        has_turn = self._turn.acquire(timeout=_LONGEST_TURN_S)
        try:
            return self._answer(request)
        finally:
            if has_turn:
                self._turn.release()
