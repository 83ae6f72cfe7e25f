"""Backups of a server in a bucket: a folder each, whose parts are streamed there while they are made.

A folder is named after the moment it began. Its last object lists the parts with their sizes and SHA-256; a folder
without it is what an interrupted backup left, and is never restored. Nothing of a backup is on the server's own disk.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from google.cloud.storage import Client

from pipelines.errors import DataError, ObjectChangedError, ObjectDamagedError
from pipelines.gcs import client as gcs
from pipelines.gcs.faults import explained
from pipelines.records import ObjectRef

_LIST = "complete.json"
_STAMP = "%Y%m%dT%H%M%SZ"
_FOLDER = re.compile(r"^(\d{8}T\d{6}Z)/([\w.-]+)$")
_CHUNK = 8 << 20  # bytes that are held in memory, and sent again when a connection breaks


@dataclass(frozen=True)
class Part:
    """One file of a backup: its name, bytes, and SHA-256 in hexadecimal digits."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Backup:
    """A backup in a bucket; its parts are known when it is complete."""

    folder: str  # gs://bucket/prefix/20261130T020000Z
    begun_at: datetime
    objects: tuple[ObjectRef, ...]
    is_complete: bool

    @property
    def size(self) -> int:
        """Return the bytes of all its objects."""
        return sum(ref.size for ref in self.objects)


def store_part(client: Client, folder: str, name: str, stream: IO[bytes]) -> Part:
    """Stream a part to the bucket as it arrives, then its size and hash; what exists is never overwritten.

    Raise StorageError when the bucket refuses it. A stream that ends early is for its maker to report: the part then
    stays unlisted.
    """
    bucket, prefix = gcs.split_uri(folder)
    digest, size = hashlib.sha256(), 0
    if gcs.stat(client, bucket, f"{prefix}/{name}"):  # the emulator ignores the precondition below
        raise ObjectChangedError(f"{folder} has its {name} already; run `deploy/maskloop backup` again")
    with explained(f"{folder}/{name}", bucket):
        blob = client.bucket(bucket).blob(f"{prefix}/{name}")
        with blob.open("wb", chunk_size=_CHUNK, if_generation_match=0, content_type="application/octet-stream") as file:
            while data := stream.read(1 << 20):
                digest.update(data)
                size += file.write(data)
    part = Part(name, size, digest.hexdigest())
    gcs.write(client, bucket, f"{prefix}/{name}.json", _as_json(part), "application/json")
    return part


def complete(client: Client, folder: str, names: Sequence[str]) -> tuple[Part, ...]:
    """List a backup's parts, which makes it one that can be restored; raise DataError when one is missing or empty."""
    bucket, prefix = gcs.split_uri(folder)
    parts = []
    for name in names:
        ref, listed = (gcs.stat(client, bucket, f"{prefix}/{name}{ending}") for ending in ("", ".json"))
        part = _part(gcs.read(client, listed)) if listed else None
        if ref is None or part is None or not part.size or part.size != ref.size:
            raise DataError(f"{folder} has no whole {name}, so it is no backup; run `deploy/maskloop backup` again")
        parts.append(part)
    text = json.dumps([vars(part) for part in parts], indent=1) + "\n"
    gcs.write(client, bucket, f"{prefix}/{_LIST}", text.encode(), "application/json")
    return tuple(parts)


def list_backups(client: Client, root: str) -> list[Backup]:
    """Return the backups below `root`, the oldest first, interrupted ones as well."""
    bucket, prefix = gcs.split_uri(root.rstrip("/") + "/")
    objects: dict[str, list[ObjectRef]] = {}
    for ref in gcs.list_objects(client, bucket, prefix):
        if match := _FOLDER.match(ref.name.removeprefix(prefix)):
            objects.setdefault(match[1], []).append(ref)
    return [
        Backup(
            f"gs://{bucket}/{prefix}{stamp}", datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC), tuple(refs),
            any(ref.name.endswith(f"/{_LIST}") for ref in refs),
        )
        for stamp, refs in sorted(objects.items())
    ]  # fmt: skip


def find_backup(client: Client, address: str) -> Backup:
    """Return the backup at an address, or the newest complete one below it; raise DataError when there is none."""
    root, _, stamp = address.rstrip("/").rpartition("/")
    named = [backup for backup in list_backups(client, root) if backup.folder.endswith(f"/{stamp}")]
    candidates = [backup for backup in named or list_backups(client, address) if backup.is_complete]
    if not candidates:
        raise DataError(f"there is no complete backup at {address}; `maskloop backups list` shows those that there are")
    return candidates[-1]


def write_tar(client: Client, backup: Backup, file: IO[bytes]) -> None:
    """Write a backup's parts as one tar archive, in pieces; raise ObjectDamagedError when one is not what it was.

    The archive then has no end, and must not be restored.
    """
    refs = {ref.name.rpartition("/")[2]: ref for ref in backup.objects}
    parts = [Part(**part) for part in json.loads(gcs.read(client, refs[_LIST]))]
    archive = tarfile.open(fileobj=file, mode="w|")  # noqa: SIM115  # closed when all parts are whole, and not before
    for part in parts:
        if (ref := refs.get(part.name)) is None or ref.size != part.size:
            raise ObjectDamagedError(f"{backup.folder}/{part.name} is gone or cut short: restore an older backup")
        header = tarfile.TarInfo(part.name)
        header.size, header.mode = part.size, 0o600
        with explained(ref.uri, ref.bucket):
            blob = client.bucket(ref.bucket).blob(ref.name, generation=ref.generation)
            with blob.open("rb", chunk_size=_CHUNK) as stream:
                hashed = _Hashed(stream)
                archive.addfile(header, hashed)
        if hashed.digest.hexdigest() != part.sha256:
            raise ObjectDamagedError(f"{ref.uri} is not what was stored: restore an older backup")
    archive.close()


def drop_old(client: Client, root: str, keep: int) -> list[Backup]:
    """Delete all but the newest `keep` complete backups, and interrupted ones before the newest; return what went."""
    backups = list_backups(client, root)
    complete_ones = [backup for backup in backups if backup.is_complete]
    if not complete_ones:
        return []
    kept = {backup.folder for backup in complete_ones[-max(1, keep) :]}
    newest = complete_ones[-1].begun_at
    old = [backup for backup in backups if backup.folder not in kept and backup.begun_at < newest]
    for backup in old:
        # The list first, so that whoever is killed in between leaves no backup that looks whole.
        for ref in sorted(backup.objects, key=lambda ref: not ref.name.endswith(f"/{_LIST}")):
            gcs.delete(client, ref)
    return old


def newest_complete(backups: Iterable[Backup]) -> Backup | None:
    """Return the newest backup that can be restored."""
    return max((b for b in backups if b.is_complete), key=lambda backup: backup.begun_at, default=None)


class _Hashed:
    """A stream that hashes what is read of it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self.digest.update(data)
        return data


def _as_json(part: Part) -> bytes:
    return (json.dumps(vars(part)) + "\n").encode()


def _part(data: bytes) -> Part:
    return Part(**json.loads(data))
