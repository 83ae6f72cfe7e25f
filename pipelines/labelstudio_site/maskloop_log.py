"""A line of JSON per request that a pipeline makes of Label Studio, so that one id leads from an Airflow run to here.

The model services write the same fields. Runs in Label Studio's environment.
"""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("maskloop.requests")


class RequestLog:
    """Django middleware: log requests that name DAG, run and task in their id; those of browsers have none."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        if not _log.handlers:
            _log.addHandler(logging.StreamHandler())
            _log.setLevel(logging.INFO)
            _log.propagate = False

    def __call__(self, request: Any) -> Any:
        """Answer a request, and log it if it has an id."""
        started = time.perf_counter()
        response = self._get_response(request)
        if asked_by := request.META.get("HTTP_X_REQUEST_ID", ""):
            line = {
                "asked_by": asked_by, "method": request.method, "path": request.path, "status": response.status_code,
                "seconds": round(time.perf_counter() - started, 3),
            }  # fmt: skip
            _log.info(json.dumps(line))
        return response
