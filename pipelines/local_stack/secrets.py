"""Secrets of the local stack: generated once, readable by their owner alone, printed only on request."""

import json
import secrets

from pipelines.fs import write_atomically
from pipelines.settings import SECRETS_FILE, Settings

_GENERATED = {
    "label_studio_password": lambda: secrets.token_urlsafe(12),
    "label_studio_token": lambda: secrets.token_hex(20),  # Label Studio requires 40 hex digits
    "service_password": lambda: secrets.token_urlsafe(24),
    "airflow_password": lambda: secrets.token_urlsafe(12),
    "airflow_jwt_secret": lambda: secrets.token_urlsafe(32),
}


def ensure_secrets(settings: Settings) -> bool:
    """Generate the secrets that are not set yet into var/secrets.env; return whether there were any."""
    missing = [name for name in _GENERATED if not getattr(settings, name).get_secret_value()]
    if missing:
        path = settings.var / SECRETS_FILE
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [f"MASKLOOP_{name.upper()}={_GENERATED[name]()}" for name in missing]
        write_atomically(path, (before + "\n".join(lines) + "\n").encode(), mode=0o600)
    return bool(missing)


def write_airflow_passwords(settings: Settings) -> None:
    """Write the password of the account for Airflow's simple auth manager."""
    passwords = {settings.airflow_user: settings.airflow_password.get_secret_value()}
    path = settings.var / "airflow" / "passwords.json"
    write_atomically(path, (json.dumps(passwords) + "\n").encode(), mode=0o600)
