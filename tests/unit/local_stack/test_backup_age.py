"""How old the newest backup is, as status, doctor and the alert say it."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from google.cloud.storage import Client

from pipelines.errors import StorageError
from pipelines.gcs.backups import complete, store_part
from pipelines.local_stack.backup_age import is_bucket, newest_backup
from pipelines.local_stack.doctor import CHECKS, Failure, Notice
from pipelines.local_stack.status import _backup
from pipelines.settings import Settings

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def settings(bucket_server: str, empty_bucket: str) -> Settings:
    port = int(bucket_server.rpartition(":")[2])
    return Settings(_env_file=None, storage_port=port, backup=f"gs://{empty_bucket}/maskloop", composed=True)  # type: ignore[call-arg]  # pydantic-settings' own


def store(client: Client, settings: Settings, begun_at: datetime) -> None:
    folder = f"{settings.backup}/{begun_at:%Y%m%dT%H%M%SZ}"
    store_part(client, folder, "secrets.tar", io.BytesIO(b"secret"))
    complete(client, folder, ["secrets.tar"])


@pytest.mark.parametrize(
    ("hours", "said", "is_too_old"), [(10, "10 hours", False), (36, "36 hours", False), (60, "2 days", True)]
)
def test_last_nights_is_new_enough(
    bucket_client: Client, settings: Settings, hours: int, said: str, is_too_old: bool
) -> None:
    store(bucket_client, settings, NOW - timedelta(hours=hours))

    age = newest_backup(settings, NOW)

    assert age.is_too_old is is_too_old
    assert f"{said} ago" in str(age)


def test_none_at_all_is_too_old(settings: Settings) -> None:
    age = newest_backup(settings, NOW)

    assert age.is_too_old
    assert str(age) == f"there is no complete backup at {settings.backup}"
    assert isinstance(CHECKS["backup"](settings), Failure)
    assert _backup(settings).startswith("[red]")


def test_a_backup_of_this_hour_is_well(bucket_client: Client, settings: Settings) -> None:
    store(bucket_client, settings, datetime.now(UTC))

    assert "0 hours ago" in str(CHECKS["backup"](settings))
    assert "[red]" not in _backup(settings)


@pytest.mark.parametrize("place", ["", "/var/backups/maskloop.tar"])
def test_a_server_whose_backups_stay_on_it_is_told(settings: Settings, place: str) -> None:
    update = {"backup": place}
    assert not is_bucket(place)
    assert isinstance(CHECKS["backup"](settings.model_copy(update=update)), Notice)
    assert isinstance(CHECKS["backup"](settings.model_copy(update=update | {"composed": False})), str)


def test_a_bucket_that_is_gone_is_an_error_with_its_name(settings: Settings) -> None:
    with pytest.raises(StorageError, match="gs://no-such-bucket does not exist"):
        newest_backup(settings.model_copy(update={"backup": "gs://no-such-bucket/maskloop"}))
