"""Storages of Label Studio that show one folder of a bucket only, and as pictures. Runs in Label Studio's environment.

Label Studio 1.23 shows any object of a connected bucket to whoever may see a task, whatever prefix the storage has. The
bucket with the copies of photos also holds annotations and reports, so the prefix counts here. It serves an object
with the type that the bucket says: a page among the photos would run with the rights of whoever opens it. All objects
are put into a sandbox, which changes nothing for pictures.
"""

import re
from collections.abc import Callable
from typing import Any

SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
_OBJECTS = re.compile(r"/(resolve|presign)/?$|/storage-data/|/data/local-files/")


class SandboxedObjects:
    """Django middleware: objects of buckets are shown without scripts, and without the rights of who opens them."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer a request."""
        response = self._get_response(request)
        if _OBJECTS.search(request.path):
            response["Content-Security-Policy"] = SANDBOX
            response["X-Content-Type-Options"] = "nosniff"
        return response


class StoragePrefixes:
    """Django middleware: passes requests on. Django creates it once, when all of Label Studio is loaded; it patches."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        _resolve_below_the_prefix()

    def __call__(self, request: Any) -> Any:
        """Answer a request."""
        return self._get_response(request)


def _resolve_below_the_prefix() -> None:
    from io_storages.gcs.models import GCSImportStorageBase

    original = GCSImportStorageBase.can_resolve_url

    def can_resolve_url(storage: Any, url: Any) -> bool:
        return original(storage, url) and is_below_prefix(str(url), storage.bucket, storage.prefix)

    GCSImportStorageBase.can_resolve_url = can_resolve_url


def is_below_prefix(url: str, bucket: str, prefix: str | None) -> bool:
    """Return whether an address, as it is or within a text, names an object of the bucket below the prefix."""
    folder = (prefix or "").strip("/")
    if not folder:
        return True
    names = url.split(f"gs://{bucket}/")[1:]
    return bool(names) and all(name.startswith(f"{folder}/") and "/../" not in f"/{name}/" for name in names)
