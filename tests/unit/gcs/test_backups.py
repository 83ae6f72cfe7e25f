"""Backups in a bucket: streamed, complete only with their list, whole when they are restored."""

import io
import tarfile
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from google.cloud.storage import Client

from pipelines.errors import ConfigurationError, DataError, MaskloopError, ObjectDamagedError
from pipelines.gcs import backups
from pipelines.gcs import client as gcs
from pipelines.gcs.backups import (
    Backup,
    complete,
    drop_old,
    find_backup,
    list_backups,
    newest_complete,
    store_part,
    write_tar,
)

BEGIN = datetime(2026, 11, 30, 2, tzinfo=UTC)
PARTS = {"secrets.tar": b"secret", "mlflow.dump": Random(3).randbytes(3 << 20), "volumes.tar": b"files"}


def new_folder(root: str, begun_at: datetime) -> str:
    """Return the folder of a backup that began at this time, as `deploy/maskloop backup` names it."""
    return f"{root}/{begun_at:%Y%m%dT%H%M%SZ}"


@pytest.fixture
def root(empty_bucket: str) -> str:
    return f"gs://{empty_bucket}/maskloop"


def store(client: Client, root: str, day: int = 0, parts: dict[str, bytes] = PARTS, *, whole: bool = True) -> str:
    """Store a backup of a day; return its folder."""
    folder = new_folder(root, BEGIN + timedelta(days=day))
    for name, data in parts.items():
        store_part(client, folder, name, io.BytesIO(data))
    if whole:
        complete(client, folder, list(parts))
    return folder


def read(client: Client, backup: Backup) -> dict[str, bytes]:
    file = io.BytesIO()
    write_tar(client, backup, file)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]  # files


def damage(client: Client, folder: str, name: str, data: bytes) -> None:
    bucket, prefix = gcs.split_uri(folder)
    gcs.put(client, bucket, f"{prefix}/{name}", data, "application/octet-stream")


def test_what_was_stored_comes_back(bucket_client: Client, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "_CHUNK", 1 << 20)  # so that the large part is sent and read in pieces
    folder = store(bucket_client, root)

    [backup] = list_backups(bucket_client, root)

    assert (backup.folder, backup.begun_at, backup.is_complete) == (folder, BEGIN, True)
    assert backup.size > sum(map(len, PARTS.values()))
    assert read(bucket_client, backup) == PARTS


def test_a_part_is_never_overwritten(bucket_client: Client, root: str) -> None:
    folder = store(bucket_client, root)

    with pytest.raises(MaskloopError, match=r"secrets\.tar"):
        store_part(bucket_client, folder, "secrets.tar", io.BytesIO(b"another"))

    assert read(bucket_client, find_backup(bucket_client, folder)) == PARTS


@pytest.mark.parametrize("lost", ["secrets.tar", "secrets.tar.json", None])
def test_a_backup_without_all_its_parts_is_none(bucket_client: Client, root: str, lost: str | None) -> None:
    folder = store(bucket_client, root, parts=PARTS if lost else PARTS | {"secrets.tar": b""}, whole=False)
    if lost:
        bucket, prefix = gcs.split_uri(folder)
        ref = gcs.stat(bucket_client, bucket, f"{prefix}/{lost}")
        assert ref is not None
        gcs.delete(bucket_client, ref)

    with pytest.raises(DataError, match=r"no whole secrets\.tar"):
        complete(bucket_client, folder, list(PARTS))

    assert newest_complete(list_backups(bucket_client, root)) is None
    with pytest.raises(DataError, match="no complete backup"):
        find_backup(bucket_client, root)


def test_the_newest_whole_one_is_taken_unless_another_is_named(bucket_client: Client, root: str) -> None:
    first, second = (store(bucket_client, root, day) for day in (0, 1))
    interrupted = store(bucket_client, root, 2, whole=False)

    assert find_backup(bucket_client, root).folder == second
    assert find_backup(bucket_client, root + "/").folder == second
    assert find_backup(bucket_client, first).folder == first
    with pytest.raises(DataError, match="no complete backup"):
        find_backup(bucket_client, interrupted)


@pytest.mark.parametrize("data", [b"sfcret", b"sec", b"secret and more"])
def test_a_damaged_part_is_named_and_the_archive_has_no_end(bucket_client: Client, root: str, data: bytes) -> None:
    folder = store(bucket_client, root)
    damage(bucket_client, folder, "secrets.tar", data)
    file = io.BytesIO()

    with pytest.raises(ObjectDamagedError, match=r"secrets\.tar is (not what was stored|gone or cut short)"):
        write_tar(bucket_client, find_backup(bucket_client, root), file)

    assert not file.getvalue().endswith(bytes(1024))


def test_the_newest_stay_and_what_was_interrupted_before_them_goes(bucket_client: Client, root: str) -> None:
    folders = [store(bucket_client, root, day, whole=day not in (1, 4)) for day in range(5)]

    gone = drop_old(bucket_client, root, keep=1)

    assert [backup.folder for backup in gone] == folders[:3]
    assert [backup.folder for backup in list_backups(bucket_client, root)] == folders[3:], "the last one may go on"
    assert drop_old(bucket_client, root, keep=1) == []
    assert read(bucket_client, find_backup(bucket_client, root)) == PARTS


def test_without_a_whole_one_nothing_is_deleted(bucket_client: Client, root: str) -> None:
    folder = store(bucket_client, root, whole=False)

    assert drop_old(bucket_client, root, keep=1) == []
    assert [backup.folder for backup in list_backups(bucket_client, root)] == [folder]


def test_a_deletion_that_is_killed_leaves_nothing_that_looks_whole(
    bucket_client: Client, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (0, 1):
        store(bucket_client, root, day)
    delete, calls = gcs.delete, iter(range(100))

    def killed(*arguments: Any) -> None:
        if next(calls):
            raise KeyboardInterrupt
        delete(*arguments)

    monkeypatch.setattr(gcs, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_old(bucket_client, root, keep=1)

    assert [backup.is_complete for backup in list_backups(bucket_client, root)] == [False, True]


def test_other_objects_are_none_of_its_business(bucket_client: Client, root: str) -> None:
    bucket, prefix = gcs.split_uri(root)
    for name in (f"{prefix}/readme.txt", f"{prefix}/20261130T020000Z", f"{prefix}/yesterday/volumes.tar"):
        gcs.put(bucket_client, bucket, name, b"mine", "text/plain")
    for day in (0, 1):
        store(bucket_client, root, day)

    drop_old(bucket_client, root, keep=1)

    assert len(list_backups(bucket_client, root)) == 1
    assert len([ref for ref in gcs.list_objects(bucket_client, bucket) if ref.size == 4]) == 3


def test_an_address_that_is_none_is_said(bucket_client: Client) -> None:
    with pytest.raises(ConfigurationError, match="gs://bucket/name"):
        list_backups(bucket_client, "/var/backups")
