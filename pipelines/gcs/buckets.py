"""The buckets' settings as code: what they must be, what differs, and how to apply the differences.

Source: the archive's photos; older generations stay readable. It is often older than Maskloop and serves others as
well, so one that exists is not changed unless somebody asks for it. Target: annotations, reports, and embeddings, which
expire. DVC: the datasets; no rule ever deletes anything in it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.cloud.storage import Bucket, Client
from rich.markup import escape
from rich.table import Table

from pipelines.errors import StorageError
from pipelines.gcs.client import EMBEDDINGS, ensure_bucket, find_bucket
from pipelines.gcs.faults import explained
from pipelines.settings import Settings

_DAY_S = 24 * 3600
_SOFT_DELETE_S = 7 * _DAY_S
_EMBEDDINGS_DAYS = 60  # computing one again costs seconds, and photos wait for less time than that
_CHECKS_DAYS = 365
_NONCURRENT_DAYS = 90


@dataclass(frozen=True)
class Difference:
    """One setting of a bucket that is not as it must be; `setting` is "exists" for a bucket that does not."""

    bucket: str
    setting: str
    is_now: object
    must_be: object


def expected_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return, per bucket, the value of each setting by its name."""
    always = {
        "versioning": True,
        "uniform access": True,
        "public access": "enforced",  # prevention of it
        "soft delete (s)": _SOFT_DELETE_S,
    }
    old = {"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": _NONCURRENT_DAYS, "isLive": False}}
    return {
        settings.source_bucket: {**always, "lifecycle": []},  # Label Studio reads photos: browsers need no CORS here
        settings.target_bucket: {
            **always, "cors": [],
            "lifecycle": [_delete(EMBEDDINGS, _EMBEDDINGS_DAYS), _delete("checks/", _CHECKS_DAYS), old],
        },
        settings.dvc_bucket: {**always, "cors": [], "lifecycle": []},
    }  # fmt: skip


def differences(client: Client, settings: Settings) -> list[Difference]:
    """Compare buckets with what they must be; lifecycle rules that others added are left out."""
    different = []
    for name, expected in expected_settings(settings).items():
        bucket = find_bucket(client, name)
        if bucket is None:
            different.append(Difference(name, "exists", False, True))
            bucket = Bucket(client, name)
        for setting, value in expected.items():
            current = _GET[setting](bucket)
            if setting == "lifecycle":
                missing = [rule for rule in value if rule not in current]
                if missing:
                    different.append(Difference(name, setting, current, current + missing))
            elif current != value:
                different.append(Difference(name, setting, current, value))
    return different


def left_alone(different: list[Difference], settings: Settings) -> list[Difference]:
    """Return the differences of a source bucket that exists: changing it may cut off others who use it."""
    source = [difference for difference in different if difference.bucket == settings.source_bucket]
    return [] if any(difference.setting == "exists" for difference in source) else source


def reconcile(client: Client, settings: Settings, different: list[Difference]) -> list[Difference]:
    """Create and change buckets as these differences say; returns those of them that the server did not apply.

    Google Cloud Storage applies all of them; bucket servers for tests know some settings only.
    """
    for name in dict.fromkeys(difference.bucket for difference in different):
        must_be = {difference.setting: difference.must_be for difference in different if difference.bucket == name}
        try:
            _apply(client, name, must_be, settings)
        except StorageError:
            if not settings.storage_emulator:
                raise
            ensure_bucket(client, name)  # the server refuses what it does not know; a plain bucket will do
    asked = {(difference.bucket, difference.setting) for difference in different}
    left = differences(client, settings)
    return [difference for difference in left if (difference.bucket, difference.setting) in asked]


def _apply(client: Client, name: str, must_be: Mapping[str, Any], settings: Settings) -> None:
    bucket = find_bucket(client, name) or Bucket(client, name)
    with explained(f"gs://{name}", name):
        for setting, value in must_be.items():
            if setting != "exists":
                _SET[setting](bucket, value)
        if "exists" in must_be:
            client.create_bucket(bucket, location=settings.bucket_location or None)
        else:
            bucket.patch()


def require_applied(left: list[Difference], settings: Settings) -> None:
    """Raise StorageError when Google Cloud Storage did not apply a setting; `left` is what `reconcile` returned."""
    if left and not settings.storage_emulator:
        named = ", ".join(f"{difference.setting} of gs://{difference.bucket}" for difference in left)
        raise StorageError(f"Google Cloud Storage did not keep {named}; does a policy of the organisation forbid it?")


def as_table(different: list[Difference]) -> Table:
    """Return differences as a table for a terminal."""
    table = Table("bucket", "setting", "is now", "must be")
    for difference in different:
        values = (
            escape(json.dumps(value, indent=1) if isinstance(value, list) and value else str(value))
            for value in (difference.is_now, difference.must_be)
        )
        table.add_row(f"gs://{difference.bucket}", difference.setting, *values)
    return table


def _delete(prefix: str, days: int) -> dict[str, Any]:
    return {"action": {"type": "Delete"}, "condition": {"age": days, "matchesPrefix": [prefix]}}


_GET: Mapping[str, Callable[[Bucket], Any]] = {
    "versioning": lambda bucket: bool(bucket.versioning_enabled),
    "uniform access": lambda bucket: bool(bucket.iam_configuration.uniform_bucket_level_access_enabled),
    "public access": lambda bucket: bucket.iam_configuration.public_access_prevention or "inherited",
    "soft delete (s)": lambda bucket: int(bucket.soft_delete_policy.retention_duration_seconds or 0),
    "cors": lambda bucket: [dict(rule) for rule in bucket.cors],
    "lifecycle": lambda bucket: [dict(rule) for rule in bucket.lifecycle_rules],
}


def _set_uniform(bucket: Bucket, value: Any) -> None:
    bucket.iam_configuration.uniform_bucket_level_access_enabled = value


def _set_public(bucket: Bucket, value: Any) -> None:
    bucket.iam_configuration.public_access_prevention = value


def _set_soft_delete(bucket: Bucket, value: Any) -> None:
    bucket.soft_delete_policy.retention_duration_seconds = value


_SET: Mapping[str, Callable[[Bucket, Any], None]] = {
    "versioning": lambda bucket, value: setattr(bucket, "versioning_enabled", value),
    "uniform access": _set_uniform,
    "public access": _set_public,
    "soft delete (s)": _set_soft_delete,
    "cors": lambda bucket, value: setattr(bucket, "cors", value),
    "lifecycle": lambda bucket, value: setattr(bucket, "lifecycle_rules", value),
}
