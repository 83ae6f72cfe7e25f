"""What a labeler sends is stored once, or not at all. Runs in Label Studio's environment.

On SQLite, Label Studio 1.23 answers a request again when the database was locked in the middle of it, but keeps what
the first try had stored: an annotation that is submitted while somebody else writes is there twice.
"""

import re
from collections.abc import Callable
from typing import Any

_SQLITE = {
    "transaction_mode": "IMMEDIATE",  # who writes waits for its turn at the beginning, where nothing is done yet
    "timeout": 60,  # seconds
}
_STORING = re.compile(r"/api/(tasks|annotations|drafts|predictions)/")
_READING = ("GET", "HEAD", "OPTIONS")
_FAULT = 500


def wait_for_writers(databases: dict[str, Any]) -> dict[str, Any]:
    """Return Django's databases with options by which writers of SQLite wait for each other."""
    default = databases["default"]
    if not default["ENGINE"].endswith("sqlite3"):
        return databases
    return {**databases, "default": {**default, "OPTIONS": {**default.get("OPTIONS", {}), **_SQLITE}}}


class StoreOnce:
    """Django middleware: requests that store labelers' work are one transaction on SQLite.

    It stands behind Label Studio's own that answers a request again, so that each try begins with nothing stored.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer a request; when the answer is a fault, nothing of it is stored."""
        from django.db import connection, transaction

        if request.method in _READING or not _STORING.match(request.path) or connection.vendor != "sqlite":
            return self._get_response(request)
        with transaction.atomic():
            response = self._get_response(request)
            if response.status_code >= _FAULT:
                transaction.set_rollback(True)
        return response
