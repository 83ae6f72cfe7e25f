"""Exports leave no file: Label Studio keeps a copy of each in a folder that nobody empties, a sync's among them.

This module runs in Label Studio's environment, not in Maskloop's.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class NoExportCopies:
    """A Django middleware that does nothing by itself; as the application starts, it changes how exports are made."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        _delete_copies()

    def __call__(self, request: Any) -> Any:
        """Answer a request."""
        return self._get_response(request)


def _delete_copies() -> None:
    from data_export.models import DataExport

    save, generate = DataExport.save_export_files, DataExport.generate_export_file
    current = threading.local()  # an export is made in one thread

    def save_export_files(*arguments: Any, **options: Any) -> Any:
        current.path = save(*arguments, **options)
        return current.path

    def generate_export_file(*arguments: Any, **options: Any) -> Any:
        current.path = None
        try:
            return generate(*arguments, **options)
        finally:
            if current.path:
                copy = Path(current.path)
                for path in (copy, copy.with_name(f"{copy.stem}-info.json")):
                    path.unlink(missing_ok=True)

    DataExport.save_export_files = staticmethod(save_export_files)
    DataExport.generate_export_file = staticmethod(generate_export_file)
