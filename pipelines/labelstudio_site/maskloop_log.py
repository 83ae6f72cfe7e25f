"""A line of JSON for each request that a station makes of Label Studio, so that one id leads from a run to here.

The model services write the same fields. Runs in Label Studio's environment.
"""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("maskloop.requests")


class AskedBy:
    """Django middleware: notes requests that name DAG, run and task; those of people's browsers name nobody."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer
        if not _log.handlers:
            _log.addHandler(logging.StreamHandler())
            _log.setLevel(logging.INFO)
            _log.propagate = False

    def __call__(self, request: Any) -> Any:
        """Answer a request, and note it if it says who asks."""
        begun = time.perf_counter()
        answer = self._answer(request)
        if asked_by := request.META.get("HTTP_X_REQUEST_ID", ""):
            line = {
                "asked_by": asked_by, "method": request.method, "path": request.path, "status": answer.status_code,
                "seconds": round(time.perf_counter() - begun, 3),
            }  # fmt: skip
            _log.info(json.dumps(line))
        return answer
