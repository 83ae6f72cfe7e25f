"""All access to Google Cloud Storage: list objects, read them at a generation, write them with preconditions.

Every function takes a `google.cloud.storage.Client`: Airflow tasks pass that of their `GCSHook`, all others that of
`connect`. The emulator ignores preconditions on reads and deletions and sends no checksums, so bytes are compared here
with the listed MD5.
"""

import base64
import gzip
import hashlib
import io
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from google.api_core.exceptions import NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud.storage import Blob, Bucket, Client
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter
from typing_extensions import Buffer

from pipelines.errors import (
    ConfigurationError,
    CredentialsError,
    ObjectChangedError,
    ObjectDamagedError,
    ObjectStalledError,
    ObjectUnusableError,
)
from pipelines.gcs.credentials import key_of
from pipelines.gcs.faults import explained, missing_bucket
from pipelines.records import ObjectRef
from pipelines.settings import Settings

EMBEDDINGS = "embeddings/"  # prefix in the target bucket
COPIES = "copies/"  # prefix in the target bucket: what browsers show instead of photos in other formats
# The client library would retry for two minutes when nobody answers; short faults end sooner, and the DAGs retry.
_REQUEST: dict[str, Any] = {
    "retry": DEFAULT_RETRY.with_delay(initial=0.25, multiplier=2, maximum=2).with_timeout(6),
    "timeout": (5, 60),  # seconds to connect, and between two pieces of a response
}
# A server that stops in the middle of an object is given up early, and the object is read again from its beginning.
_DOWNLOAD: dict[str, Any] = {**_REQUEST, "timeout": (5, 20)}
_READS = 3  # of an object that arrives damaged, or not to its end
_BILLING_PROJECT = "maskloop_billing_project"  # an attribute of the client


def connect(settings: Settings) -> Client:
    """Open a client for the local bucket server, or for Google Cloud Storage with the credentials that are set.

    Raises CredentialsError when Google's credentials cannot be found, ConfigurationError for a key that is none.
    """
    if settings.storage_endpoint:
        os.environ["STORAGE_EMULATOR_HOST"] = settings.storage_endpoint  # the client library reads it nowhere else
        client = Client(project="maskloop", credentials=AnonymousCredentials())
        return with_billing_project(client, settings)
    try:
        key = key_of(settings)
        return with_billing_project(Client.from_service_account_info(key) if key else Client(), settings)
    except (DefaultCredentialsError, OSError) as error:  # OSError: credentials without a project
        raise CredentialsError(
            "no Google credentials found; run `gcloud auth application-default login`, set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file or MASKLOOP_GOOGLE_KEY to one in base64, or set "
            "MASKLOOP_STORAGE_EMULATOR=true for a local bucket"
        ) from error


def with_billing_project(client: Client, settings: Settings) -> Client:
    """Make a client name the project that pays for its requests, where the settings have one; returns the client.

    Buckets whose requester pays refuse every request without it.
    """
    setattr(client, _BILLING_PROJECT, settings.billing_project or None)
    return client


def set_pool_size(client: Client, connections: int) -> None:
    """Set how many connections a client keeps open, one per thread; by default it keeps ten."""
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=connections))


def split_uri(uri: str) -> tuple[str, str]:
    """Split `gs://bucket/name` into bucket and object name; raises ConfigurationError for anything else."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise ConfigurationError(f"{uri!r} is no bucket address; it must look like gs://bucket/name")
    return bucket, name


def browser_address(settings: Settings, bucket: str, name: str) -> str:
    """Return the address at which a person with access opens an object in a browser."""
    if settings.storage_endpoint:
        return f"{settings.storage_endpoint}/{bucket}/{quote(name)}"
    return f"https://storage.cloud.google.com/{bucket}/{quote(name)}"


def list_objects(client: Client, bucket: str, prefix: str = "", suffixes: Iterable[str] = ()) -> Iterator[ObjectRef]:
    """Yield objects below `prefix` in name order, only those with one of `suffixes` (lower case) if any are given."""
    endings = tuple(suffixes)
    with explained(f"gs://{bucket}/{prefix}", bucket):
        for blob in client.list_blobs(_bucket(client, bucket), prefix=prefix, **_REQUEST):
            if not endings or blob.name.lower().endswith(endings):
                yield _reference(blob)


def read(client: Client, ref: ObjectRef, *, max_bytes: int | None = None) -> bytes:
    """Return the bytes of exactly this generation.

    What is stored as gzip (`Content-Encoding`) comes as it was before. Bytes that arrive damaged, or stop in the middle
    for 20 s, are read three times. Raises ObjectChangedError when the generation is gone, ObjectUnusableError when the
    bytes do not match the listed MD5, cannot be decrypted or are more than `max_bytes`, ObjectStalledError when the
    server stops each time, CredentialsError and StorageError for what the server refuses.
    """
    for _ in range(_READS - 1):
        with suppress(ObjectDamagedError, ObjectStalledError):
            return _read(client, ref, max_bytes)
    return _read(client, ref, max_bytes)


def _read(client: Client, ref: ObjectRef, max_bytes: int | None) -> bytes:
    blob = _bucket(client, ref.bucket).blob(ref.name, generation=ref.generation or None)
    with explained(ref.uri, ref.bucket):
        try:
            file = _Bounded(ref.uri, max_bytes)
            blob.download_to_file(file, raw_download=True, **_DOWNLOAD)
            data = file.getvalue()
        except NotFound as error:
            raise ObjectChangedError(
                f"{ref.uri} at generation {ref.generation} is gone: it was deleted, moved or overwritten; "
                "the next ingest run finds its bytes if they are elsewhere in the bucket"
            ) from error
    if ref.md5 and md5_base64(data) != ref.md5:
        raise ObjectDamagedError(
            f"{ref.uri}: {len(data)} bytes arrived whose MD5 is not {ref.md5}, {_READS} times; upload it again"
        )
    if (blob.content_encoding or "").lower() == "gzip" and data.startswith(_GZIP):
        return _unpacked(data, ref.uri, max_bytes)
    return data  # GZIP as a label of bytes that are none changes nothing


_GZIP = b"\x1f\x8b"


def _unpacked(data: bytes, uri: str, max_bytes: int | None) -> bytes:
    unpacked = _Bounded(uri, max_bytes)
    try:
        with gzip.open(io.BytesIO(data)) as packed:
            shutil.copyfileobj(packed, unpacked)
    except (OSError, EOFError, zlib.error) as error:
        raise ObjectUnusableError(f"{uri} is stored as gzip that is damaged ({error}); upload it again") from error
    return unpacked.getvalue()


def _bucket(client: Client, name: str) -> Bucket:
    return client.bucket(name, user_project=getattr(client, _BILLING_PROJECT, None))


class _Bounded(io.BytesIO):
    """A file in memory that refuses to grow beyond its limit."""

    def __init__(self, uri: str, max_bytes: int | None) -> None:
        super().__init__()
        self._uri, self._max_bytes = uri, max_bytes

    def write(self, part: Buffer, /) -> int:
        written = super().write(part)
        if self._max_bytes is not None and self.tell() > self._max_bytes:
            raise ObjectUnusableError(f"{self._uri} has more than {self._max_bytes >> 20} MB; upload a smaller photo")
        return written


def stat(client: Client, bucket: str, name: str) -> ObjectRef | None:
    """Return the object as it is now, or None when there is none."""
    with explained(f"gs://{bucket}/{name}", bucket):
        blob = _bucket(client, bucket).get_blob(name, **_REQUEST)
    return _reference(blob) if blob else None


def write(client: Client, bucket: str, name: str, data: bytes, content_type: str, *, replaces: int = 0) -> ObjectRef:
    """Write an object if it still is at generation `replaces` (0: does not exist yet).

    When the precondition fails but the stored bytes are these, the response to the first try was lost, and the write
    counts as done. Raises ObjectChangedError when somebody else wrote other bytes first.
    """
    blob = _bucket(client, bucket).blob(name)
    with explained(f"gs://{bucket}/{name}", bucket):
        try:
            blob.upload_from_string(
                data, content_type=content_type, if_generation_match=replaces, checksum="md5", **_REQUEST
            )
        except PreconditionFailed as error:
            stored = stat(client, bucket, name)
            if stored is None or stored.md5 != md5_base64(data):
                raise ObjectChangedError(f"gs://{bucket}/{name} was written by somebody else; run again") from error
            return stored
    return _reference(blob)


def put(client: Client, bucket: str, name: str, data: bytes, content_type: str) -> ObjectRef:
    """Make the object hold these bytes, whatever it holds now; nothing is written when it already does."""
    stored = stat(client, bucket, name)
    if stored and stored.md5 == md5_base64(data):
        return stored
    return write(client, bucket, name, data, content_type, replaces=stored.generation if stored else 0)


def delete(client: Client, ref: ObjectRef) -> None:
    """Delete the object at this generation; an object that is already gone is fine.

    Raises ObjectChangedError when the object was overwritten since it was listed.
    """
    with explained(ref.uri, ref.bucket):
        try:
            _bucket(client, ref.bucket).blob(ref.name).delete(if_generation_match=ref.generation, **_REQUEST)
        except NotFound:
            return
        except PreconditionFailed as error:
            raise ObjectChangedError(f"{ref.uri} was overwritten since it was listed; run again") from error


class BucketBlobStore:
    """A folder of a bucket for blobs that are made once and shared, such as embeddings."""

    def __init__(self, client: Client, bucket: str, prefix: str) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix

    def fetch(self, name: str) -> bytes | None:
        """Return what was stored under a name, or None; raises StorageError when the bucket cannot be read."""
        ref = stat(self._client, self._bucket, self._prefix + name)
        return read(self._client, ref) if ref else None

    def store(self, name: str, data: bytes) -> None:
        """Store under a name, unless something is stored there already; raises StorageError when that fails."""
        if stat(self._client, self._bucket, self._prefix + name) is None:
            with suppress(ObjectChangedError):  # another process stored the same blob at this moment
                write(self._client, self._bucket, self._prefix + name, data, "application/octet-stream")


def ensure_bucket(client: Client, bucket: str) -> bool:
    """Create the bucket if it does not exist; True when it was created."""
    if find_bucket(client, bucket) is not None:
        return False
    with explained(f"gs://{bucket}", bucket):
        client.create_bucket(bucket, **_REQUEST)
        return True


def find_bucket(client: Client, bucket: str) -> Bucket | None:
    """Return a bucket with its settings, or None when there is none."""
    with explained(f"gs://{bucket}", bucket):
        return client.lookup_bucket(_bucket(client, bucket), **_REQUEST)


def require_bucket(client: Client, bucket: str) -> None:
    """Raise StorageError with the remedy when the bucket does not exist."""
    if find_bucket(client, bucket) is None:
        raise missing_bucket(bucket)


def md5_base64(data: bytes) -> str:
    """Return the base64 of the MD5 digest, as Google Cloud Storage writes it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _reference(blob: Blob) -> ObjectRef:
    return ObjectRef(
        blob.bucket.name, blob.name, int(blob.generation or 0), int(blob.size or 0), blob.md5_hash or "",
        (blob.content_encoding or "").lower(), blob.time_created,
    )  # fmt: skip
