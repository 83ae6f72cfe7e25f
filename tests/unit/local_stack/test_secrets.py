"""Secrets are made once, and only their owner can read them."""

import json
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipelines.local_stack.secrets import ensure_secrets, write_airflow_passwords
from pipelines.settings import SECRETS_FILE, Settings

NAMES = ("label_studio_password", "label_studio_token", "airflow_password", "airflow_jwt_secret")


@pytest.fixture
def first_start(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, var=tmp_path)


def secrets_of(settings: Settings) -> dict[str, str]:
    read = Settings(_env_file=settings.var / SECRETS_FILE, var=settings.var)
    return {name: getattr(read, name).get_secret_value() for name in NAMES}


def mode(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)


def test_the_first_start_makes_every_secret(first_start: Settings) -> None:
    assert ensure_secrets(first_start)
    secrets = secrets_of(first_start)
    assert len(set(secrets.values())) == 4
    assert min(map(len, secrets.values())) >= 16
    assert len(secrets["label_studio_token"]) == 40
    int(secrets["label_studio_token"], 16)


def test_only_the_owner_can_read_them(first_start: Settings) -> None:
    ensure_secrets(first_start)
    assert mode(first_start.var / SECRETS_FILE) == "-rw-------"


def test_later_starts_keep_them(first_start: Settings) -> None:
    ensure_secrets(first_start)
    before = (first_start.var / SECRETS_FILE).read_bytes()
    assert not ensure_secrets(Settings(_env_file=first_start.var / SECRETS_FILE, var=first_start.var))
    assert (first_start.var / SECRETS_FILE).read_bytes() == before


def test_only_what_is_missing_is_made(first_start: Settings) -> None:
    (first_start.var / SECRETS_FILE).write_text("MASKLOOP_AIRFLOW_PASSWORD=kept-from-before\n", encoding="utf-8")
    given = first_start.model_copy(
        update={"airflow_password": SecretStr("kept-from-before"), "label_studio_token": SecretStr("from-.env")}
    )
    ensure_secrets(given)
    secrets = secrets_of(first_start)
    assert secrets["airflow_password"] == "kept-from-before"
    assert secrets["label_studio_token"] == ""


def test_no_two_stacks_share_secrets(tmp_path: Path) -> None:
    both = [Settings(_env_file=None, var=tmp_path / name) for name in ("one", "two")]
    for settings in both:
        ensure_secrets(settings)
    assert not set(secrets_of(both[0]).values()) & set(secrets_of(both[1]).values())


def test_airflow_gets_the_password_of_its_account(first_start: Settings) -> None:
    settings = first_start.model_copy(update={"airflow_user": "ada", "airflow_password": SecretStr("hush")})
    write_airflow_passwords(settings)
    path = settings.var / "airflow" / "passwords.json"
    assert json.loads(path.read_text()) == {"ada": "hush"}
    assert mode(path) == "-rw-------"
