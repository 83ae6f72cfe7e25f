"""The buckets' settings as code, against the bucket server in memory and against a server that keeps everything."""

import json
from typing import Any
from uuid import uuid4

import pytest
import requests
from google.api_core.exceptions import MethodNotImplemented as NotImplementedYet
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Bucket, Client

from pipelines.errors import StorageError
from pipelines.gcs.buckets import as_table, differences, expected_settings, left_alone, reconcile, require_applied
from pipelines.settings import Settings


@pytest.fixture
def settings() -> Settings:
    name = uuid4().hex[:10]
    return Settings(
        _env_file=None, source_bucket=f"archive-{name}", target_bucket=f"labels-{name}", dvc_bucket=f"data-{name}",
        label_studio_url="https://label.example.org",
    )  # fmt: skip


class Google(requests.Session):
    """Answers the buckets' part of Google's JSON API from a dictionary and keeps all settings."""

    def __init__(self) -> None:
        super().__init__()
        self.buckets: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.is_mtls = False

    def request(self, method: str, url: str, data: Any = None, **_: Any) -> requests.Response:
        self.asked.append((method, url))
        path = url.partition("?")[0].rpartition("/b")[2].strip("/")
        body = json.loads(data) if data else {}
        name = path or body.get("name", "")
        answer = requests.Response()
        answer.status_code = 200
        if method == "GET" and name not in self.buckets:
            answer.status_code = 404
        elif method in ("POST", "PATCH"):
            _merge(self.buckets.setdefault(name, {"name": name}), body)
        answer._content = json.dumps(self.buckets.get(name, {})).encode()
        answer.headers["Content-Type"] = "application/json"
        answer.request = requests.Request(method, url).prepare()
        return answer


def _merge(old: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _merge(old[key], value)
        else:
            old[key] = value


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Google:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    return Google()


@pytest.fixture
def client(google: Google) -> Client:
    return Client(project="test", credentials=AnonymousCredentials(), _http=google)


def test_missing_buckets_are_made_with_every_setting(client: Client, google: Google, settings: Settings) -> None:
    different = differences(client, settings)
    assert {(difference.bucket, difference.is_now) for difference in different if difference.setting == "exists"} == {
        (name, False) for name in expected_settings(settings)
    }

    assert reconcile(client, settings, different) == []

    source, target, data = (google.buckets[name] for name in expected_settings(settings))
    for bucket in (source, target, data):
        assert bucket["versioning"] == {"enabled": True}
        assert bucket["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
        assert bucket["iamConfiguration"]["publicAccessPrevention"] == "enforced"
        assert int(bucket["softDeletePolicy"]["retentionDurationSeconds"]) == 7 * 24 * 3600
    assert "cors" not in source, "photos come through Label Studio"
    assert {"action": {"type": "Delete"}, "condition": {"age": 60, "matchesPrefix": ["embeddings/"]}} in (
        target["lifecycle"]["rule"]
    )
    assert not data.get("lifecycle", {}).get("rule"), "no rule ever deletes a dataset"


def test_an_open_bucket_is_corrected_and_other_rules_stay(client: Client, google: Google, settings: Settings) -> None:
    reconcile(client, settings, differences(client, settings))
    theirs = {"action": {"type": "SetStorageClass", "storageClass": "NEARLINE"}, "condition": {"age": 9}}
    source, target = google.buckets[settings.source_bucket], google.buckets[settings.target_bucket]
    source["cors"] = [{"origin": ["*"], "method": ["GET"]}]  # of another page, which needs it
    target["cors"] = [{"origin": ["*"], "method": ["GET"]}]
    target["versioning"], target["lifecycle"] = {"enabled": False}, {"rule": [theirs]}

    different = differences(client, settings)

    assert [(difference.bucket, difference.setting) for difference in different] == [
        (settings.target_bucket, "versioning"), (settings.target_bucket, "cors"), (settings.target_bucket, "lifecycle"),
    ]  # fmt: skip
    assert len(as_table(different).rows) == 3
    assert reconcile(client, settings, different) == []
    assert theirs in target["lifecycle"]["rule"]
    assert source["cors"], "nobody asked for that"
    google.asked.clear()
    assert differences(client, settings) == []
    assert {method for method, _ in google.asked} == {"GET"}


def test_a_source_bucket_that_exists_is_left_alone(client: Client, google: Google, settings: Settings) -> None:
    assert left_alone(differences(client, settings), settings) == [], "it is made, as it must be"
    google.buckets[settings.source_bucket] = {"name": settings.source_bucket}
    different = differences(client, settings)
    others = left_alone(different, settings)
    assert {difference.setting for difference in others} == {
        "versioning", "uniform access", "public access", "soft delete (s)",
    }  # fmt: skip
    rest = [difference for difference in different if difference not in others]
    assert reconcile(client, settings, rest) == []
    assert google.buckets[settings.source_bucket] == {"name": settings.source_bucket}
    assert google.buckets[settings.dvc_bucket]["versioning"] == {"enabled": True}
    assert reconcile(client, settings, different) == []
    assert google.buckets[settings.source_bucket]["versioning"] == {"enabled": True}


def test_the_bucket_server_in_memory_keeps_versions(bucket_client: Client, settings: Settings) -> None:
    different = differences(bucket_client, settings)
    left = reconcile(bucket_client, settings, different)

    assert "versioning" not in {difference.setting for difference in left}
    assert all(bucket_client.get_bucket(name).versioning_enabled for name in expected_settings(settings))
    require_applied(left, settings)
    blob = bucket_client.bucket(settings.source_bucket).blob("a.jpg")
    blob.upload_from_string(b"old")
    old = blob.generation
    blob.upload_from_string(b"new")
    assert bucket_client.bucket(settings.source_bucket).blob("a.jpg", generation=old).download_as_bytes() == b"old"


def test_a_server_that_refuses_settings_still_gets_its_buckets(
    bucket_client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedYet("fs storage type does not support versioning yet")

    real = bucket_client.create_bucket
    monkeypatch.setattr(
        bucket_client, "create_bucket", lambda b, **more: refuse() if isinstance(b, Bucket) else real(b, **more)
    )

    left = reconcile(bucket_client, settings, differences(bucket_client, settings))

    assert "exists" not in {difference.setting for difference in left}
    assert "versioning" in {difference.setting for difference in left}
    google = settings.model_copy(update={"storage_emulator": False, "dvc_bucket": f"{settings.dvc_bucket}-2"})
    with pytest.raises(StorageError, match="does not support versioning"):
        reconcile(bucket_client, google, differences(bucket_client, google))


def test_google_must_keep_everything(bucket_client: Client, settings: Settings) -> None:
    left = differences(bucket_client, settings)
    with pytest.raises(StorageError, match="did not keep exists of gs://archive-"):
        require_applied(left, settings.model_copy(update={"storage_emulator": False}))
