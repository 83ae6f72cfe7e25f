"""All generations of objects, also noncurrent and soft-deleted ones: what a permanent deletion must reach."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from google.api_core.exceptions import NotFound
from google.cloud.storage import Client

from pipelines.gcs.client import _REQUEST, _bucket, _reference, find_bucket
from pipelines.gcs.faults import explained
from pipelines.records import ObjectRef

_ALL: Any = "true"  # the emulator does not understand Python's True


@dataclass(frozen=True)
class SoftDeleted:
    """A soft-deleted object: its generation can be restored until `until`, and nobody can delete it sooner."""

    ref: ObjectRef
    until: datetime | None


def list_generations(client: Client, bucket: str, prefix: str = "") -> Iterator[ObjectRef]:
    """Yield every generation of the objects below `prefix`: live and noncurrent ones."""
    with explained(f"gs://{bucket}/{prefix}", bucket):
        for blob in client.list_blobs(_bucket(client, bucket), prefix=prefix, versions=_ALL, **_REQUEST):
            yield _reference(blob)


def list_old_generations(client: Client, bucket: str, prefix: str = "") -> Iterator[ObjectRef]:
    """Yield generations below `prefix` that were deleted or overwritten; `stored_at` is when that was."""
    with explained(f"gs://{bucket}/{prefix}", bucket):
        for blob in client.list_blobs(_bucket(client, bucket), prefix=prefix, versions=_ALL, **_REQUEST):
            if blob.time_deleted:
                yield replace(_reference(blob), stored_at=blob.time_deleted)


def delete_generation(client: Client, ref: ObjectRef) -> None:
    """Delete one generation for good; one that is already gone is fine."""
    with explained(ref.uri, ref.bucket), suppress(NotFound):
        _bucket(client, ref.bucket).blob(ref.name, generation=ref.generation).delete(**_REQUEST)


def list_soft_deleted(client: Client, bucket: str, prefix: str = "") -> Iterator[SoftDeleted]:
    """Yield the soft-deleted objects below `prefix`; none where the bucket keeps none."""
    settings = find_bucket(client, bucket)
    if settings is None or not settings.soft_delete_policy.retention_duration_seconds:
        return
    with explained(f"gs://{bucket}/{prefix}", bucket):
        for blob in client.list_blobs(_bucket(client, bucket), prefix=prefix, soft_deleted=True, **_REQUEST):
            if blob.soft_delete_time is not None:  # an emulator lists live objects here
                yield SoftDeleted(_reference(blob), cast(datetime | None, blob.hard_delete_time))


def soft_delete_period(client: Client, bucket: str) -> timedelta:
    """Return for how long a bucket keeps what is deleted; zero when it keeps nothing or does not exist."""
    settings = find_bucket(client, bucket)
    seconds = settings.soft_delete_policy.retention_duration_seconds if settings else 0
    return timedelta(seconds=int(seconds or 0))


def delete_for_good(client: Client, ref: ObjectRef) -> None:
    """Delete exactly this generation, live or not; one that is already gone is fine.

    It is looked up first: an emulator ignores the generation of a deletion, and would delete another one.
    """
    if any(listed == ref for listed in list_generations(client, ref.bucket, ref.name)):
        delete_generation(client, ref)
