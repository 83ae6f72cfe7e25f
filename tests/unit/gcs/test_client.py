"""The seam to Google Cloud Storage, against a real bucket server."""

import socket
import time
from dataclasses import replace
from uuid import uuid4

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from pipelines.errors import ConfigurationError, ObjectChangedError, StorageError
from pipelines.gcs import client as gcs
from pipelines.records import ObjectRef
from pipelines.settings import Settings

PNG = "image/png"


@pytest.fixture
def bucket_with_photos(bucket_client: Client, empty_bucket: str) -> str:
    """Three photos, one of which is outside of photos/, and a text."""
    for name in ("photos/b.JPG", "photos/a.png", "photos/notes.txt", "other/c.png"):
        gcs.write(bucket_client, empty_bucket, name, name.encode(), "application/octet-stream")
    return empty_bucket


@pytest.fixture
def overwritten(bucket_client: Client, empty_bucket: str) -> tuple[ObjectRef, ObjectRef]:
    """One object's reference before and after somebody overwrote it."""
    before = gcs.write(bucket_client, empty_bucket, "photo.png", b"old", PNG)
    return before, gcs.write(bucket_client, empty_bucket, "photo.png", b"new", PNG, replaces=before.generation)


class TestConnect:
    def test_the_emulator_of_the_settings_is_used(self, bucket_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
        port = int(bucket_server.rpartition(":")[2])
        client = gcs.connect(Settings(_env_file=None, storage_emulator=True, host="127.0.0.1", storage_port=port))
        assert gcs.ensure_bucket(client, f"bucket-{uuid4().hex[:12]}")

    @pytest.mark.parametrize("uri", ["archive/a.png", "s3://archive/a.png", "gs://", "gs:///a.png", ""])
    def test_other_addresses_are_refused(self, uri: str) -> None:
        with pytest.raises(ConfigurationError, match="gs://bucket/name"):
            gcs.split_uri(uri)

    def test_an_address_has_bucket_and_name(self) -> None:
        assert gcs.split_uri("gs://archive/photos/a b#1.png") == ("archive", "photos/a b#1.png")


class TestList:
    def test_objects_come_in_name_order(self, bucket_client: Client, bucket_with_photos: str) -> None:
        names = [ref.name for ref in gcs.list_objects(bucket_client, bucket_with_photos)]
        assert names == ["other/c.png", "photos/a.png", "photos/b.JPG", "photos/notes.txt"]

    def test_prefix_and_suffixes_choose_whatever_the_case(self, bucket_client: Client, bucket_with_photos: str) -> None:
        refs = gcs.list_objects(bucket_client, bucket_with_photos, "photos/", [".png", ".jpg"])
        assert [ref.name for ref in refs] == ["photos/a.png", "photos/b.JPG"]

    def test_a_reference_tells_size_and_content(self, bucket_client: Client, bucket_with_photos: str) -> None:
        ref = next(gcs.list_objects(bucket_client, bucket_with_photos, "photos/a"))
        assert (ref.size, ref.md5) == (12, gcs.md5_base64(b"photos/a.png"))
        assert ref.uri == f"gs://{bucket_with_photos}/photos/a.png"
        assert ref == gcs.stat(bucket_client, bucket_with_photos, "photos/a.png")

    def test_nothing_below_the_prefix_is_fine(self, bucket_client: Client, bucket_with_photos: str) -> None:
        assert list(gcs.list_objects(bucket_client, bucket_with_photos, "nothing/")) == []


class TestRead:
    def test_the_generation_that_was_listed(
        self, bucket_client: Client, overwritten: tuple[ObjectRef, ObjectRef]
    ) -> None:
        assert gcs.read(bucket_client, overwritten[1]) == b"new"

    def test_an_overwritten_object_has_changed(
        self, bucket_client: Client, overwritten: tuple[ObjectRef, ObjectRef]
    ) -> None:
        with pytest.raises(ObjectChangedError, match=rf"{overwritten[0].generation} is gone.*next ingest run"):
            gcs.read(bucket_client, overwritten[0])

    def test_generation_zero_is_the_object_as_it_is_now(
        self, bucket_client: Client, overwritten: tuple[ObjectRef, ObjectRef]
    ) -> None:
        assert gcs.read(bucket_client, replace(overwritten[0], generation=0, md5="")) == b"new"

    def test_other_bytes_than_listed_are_refused(
        self, bucket_client: Client, overwritten: tuple[ObjectRef, ObjectRef]
    ) -> None:
        with pytest.raises(StorageError, match="3 bytes arrived whose MD5 is not"):
            gcs.read(bucket_client, replace(overwritten[1], md5=gcs.md5_base64(b"else")))

    @pytest.mark.parametrize("name", ["a b.png", "ä/ö#1?.png", "100%.png", "a+b&c=d.png", "..hidden"])
    def test_names_may_hold_anything(self, bucket_client: Client, empty_bucket: str, name: str) -> None:
        gcs.write(bucket_client, empty_bucket, name, b"x", PNG)
        [ref] = gcs.list_objects(bucket_client, empty_bucket)
        assert ref.name == name
        assert gcs.read(bucket_client, ref) == b"x"

    def test_an_empty_object_has_no_bytes(self, bucket_client: Client, empty_bucket: str) -> None:
        assert gcs.read(bucket_client, gcs.write(bucket_client, empty_bucket, "empty", b"", PNG)) == b""


class TestWrite:
    def test_an_object_of_somebody_else_is_never_overwritten(
        self, bucket_client: Client, overwritten: tuple[ObjectRef, ObjectRef]
    ) -> None:
        before, after = overwritten
        for generation in (0, before.generation):
            with pytest.raises(ObjectChangedError, match="written by somebody else; run again"):
                gcs.write(bucket_client, after.bucket, after.name, b"ours", PNG, replaces=generation)
        assert gcs.read(bucket_client, after) == b"new"

    def test_a_write_whose_answer_was_lost_counts_as_done(
        self, bucket_client: Client, overwritten: tuple[ObjectRef, ObjectRef]
    ) -> None:
        before, after = overwritten
        again = gcs.write(bucket_client, after.bucket, after.name, b"new", PNG, replaces=before.generation)
        assert again == after

    def test_put_writes_once(self, bucket_client: Client, empty_bucket: str) -> None:
        first = gcs.put(bucket_client, empty_bucket, "photo.png", b"old", PNG)
        assert gcs.put(bucket_client, empty_bucket, "photo.png", b"old", PNG).generation == first.generation

    def test_put_replaces_whatever_was_there(self, bucket_client: Client, empty_bucket: str) -> None:
        first = gcs.put(bucket_client, empty_bucket, "photo.png", b"old", PNG)
        second = gcs.put(bucket_client, empty_bucket, "photo.png", b"new", PNG)
        assert second.generation > first.generation
        assert gcs.read(bucket_client, second) == b"new"


class TestDelete:
    def test_a_deleted_object_is_gone(self, bucket_client: Client, empty_bucket: str) -> None:
        ref = gcs.put(bucket_client, empty_bucket, "photo.png", b"x", PNG)
        gcs.delete(bucket_client, ref)
        assert gcs.stat(bucket_client, ref.bucket, ref.name) is None
        with pytest.raises(ObjectChangedError):
            gcs.read(bucket_client, ref)

    def test_deleting_again_is_fine(self, bucket_client: Client, empty_bucket: str) -> None:
        ref = gcs.put(bucket_client, empty_bucket, "photo.png", b"x", PNG)
        gcs.delete(bucket_client, ref)
        gcs.delete(bucket_client, ref)


class TestBuckets:
    def test_a_bucket_is_created_once(self, bucket_client: Client) -> None:
        name = f"bucket-{uuid4().hex[:12]}"
        assert [gcs.ensure_bucket(bucket_client, name) for _ in range(2)] == [True, False]
        gcs.require_bucket(bucket_client, name)

    def test_a_missing_bucket_is_named_with_the_remedy(self, bucket_client: Client) -> None:
        for use in (
            lambda: gcs.require_bucket(bucket_client, "no-such-bucket"),
            lambda: list(gcs.list_objects(bucket_client, "no-such-bucket")),
            lambda: gcs.write(bucket_client, "no-such-bucket", "a", b"x", PNG),
        ):
            with pytest.raises(
                StorageError, match=r"gs://no-such-bucket does not exist; create it with `maskloop buckets"
            ):
                use()


def test_a_server_out_of_reach_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken but not listened on: connections are refused
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{held.getsockname()[1]}")
        client = Client(project="test", credentials=AnonymousCredentials())
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"cannot reach the bucket server for gs://archive/a.*maskloop doctor"):
            gcs.read(client, ObjectRef("archive", "a", 1))
        assert time.monotonic() - started < 10
