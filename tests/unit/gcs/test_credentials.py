"""A key in base64 is understood, kept private, and never shown."""

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from pipelines.errors import ConfigurationError
from pipelines.gcs import client as gcs
from pipelines.gcs.credentials import environment_for_google, key_of
from pipelines.settings import Settings


@pytest.fixture(scope="module")
def key() -> dict[str, str]:
    """A service account's key as Google gives it out, made here."""
    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account", "project_id": "archive-1", "private_key_id": "1", "private_key": private.decode(),
        "client_email": "loop@archive-1.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token",
    }  # fmt: skip


def settings(var: Path, text: str) -> Settings:
    return Settings(_env_file=None, var=var, storage_emulator=False, google_key=SecretStr(text))


def encoded(key: dict[str, str]) -> str:
    return base64.b64encode(json.dumps(key).encode()).decode()


def test_the_key_opens_a_client_of_its_project(key: dict[str, str], tmp_path: Path) -> None:
    client = gcs.connect(settings(tmp_path, encoded(key)))
    assert client.project == "archive-1"


def test_lines_as_base64_breaks_them_do_not_matter(key: dict[str, str], tmp_path: Path) -> None:
    text = base64.encodebytes(json.dumps(key).encode()).decode()
    assert key_of(settings(tmp_path, text)) == key


def test_programs_find_it_in_a_file_of_the_owners_alone(key: dict[str, str], tmp_path: Path) -> None:
    [(name, path)] = environment_for_google(settings(tmp_path, encoded(key))).items()
    assert name == "GOOGLE_APPLICATION_CREDENTIALS"
    assert json.loads(Path(path).read_text(encoding="utf-8")) == key
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_without_a_key_google_looks_for_itself(tmp_path: Path) -> None:
    assert environment_for_google(settings(tmp_path, "")) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["secret!", "e30=", base64.b64encode(b"[1]").decode(), "AAAA"])
def test_what_is_no_key_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"base64 -w0 key\.json") as caught:
        key_of(settings(tmp_path, text))
    assert text not in str(caught.value)
