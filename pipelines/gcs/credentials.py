"""Google's credentials: the application's default ones, a key file, or a key in base64 in MASKLOOP_GOOGLE_KEY.

Google's own libraries find the first two (GOOGLE_APPLICATION_CREDENTIALS names a key file). A key in the environment is
decoded here, and for programs that need a file it is written to one that only its owner can read.
"""

import base64
import binascii
import json
from typing import Any

from pipelines.errors import ConfigurationError
from pipelines.fs import write_atomically
from pipelines.settings import Settings

_NEEDED = ("client_email", "private_key", "project_id", "token_uri")


def key_of(settings: Settings) -> dict[str, Any] | None:
    """Return the service account's key, or None when none is set.

    Raises ConfigurationError, which never shows the key, for a value that is none.
    """
    text = "".join(settings.google_key.get_secret_value().split())
    if not text:
        return None
    try:
        key = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        key = None
    if not isinstance(key, dict) or any(name not in key for name in _NEEDED):
        raise ConfigurationError(
            "MASKLOOP_GOOGLE_KEY is no service account's key in base64; make it with: base64 -w0 key.json"
        ) from None
    return key


def environment_for_google(settings: Settings) -> dict[str, str]:
    """Return the environment variables by which Google's libraries find the key; empty when there is no such key."""
    key = None if settings.storage_emulator else key_of(settings)
    if key is None:
        return {}
    path = settings.var / "google-key.json"
    write_atomically(path, json.dumps(key).encode(), mode=0o600)
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}
