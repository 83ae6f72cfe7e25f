"""Photos for services and stations: only from the source bucket, at their generation, and decoded once."""

import cv2
import numpy as np
import pytest
from google.cloud.storage import Client

from pipelines.errors import ConfigurationError, DataError, ImageError, ObjectChangedError, StorageError
from pipelines.photos import PhotoReader
from pipelines.records import ObjectRef, PhotoAddress
from pipelines.storage import delete, ensure_bucket, put

BUCKET = "photo-reader"


@pytest.fixture
def bucket(bucket_client: Client) -> Client:
    ensure_bucket(bucket_client, BUCKET)
    return bucket_client


@pytest.fixture
def reader(bucket: Client) -> PhotoReader:
    return PhotoReader(bucket, BUCKET, max_megapixels=1, kept=2)


def upload(client: Client, name: str, shade: int) -> ObjectRef:
    return put(
        client, BUCKET, name, cv2.imencode(".png", np.full((4, 3, 3), shade, np.uint8))[1].tobytes(), "image/png"
    )


def address_of(ref: ObjectRef) -> PhotoAddress:
    return PhotoAddress(ref.uri, ref.generation)


def test_a_photo_is_read_upright_in_rgb(reader: PhotoReader, bucket: Client) -> None:
    photo = reader.read(address_of(upload(bucket, "a.png", 7)))

    assert (photo.shape, photo.dtype) == ((4, 3, 3), np.uint8)
    assert (photo == 7).all()


def test_a_photo_that_was_just_read_is_kept(reader: PhotoReader, bucket: Client) -> None:
    ref = upload(bucket, "kept.png", 7)
    first = reader.read(address_of(ref))
    delete(bucket, ref)

    assert reader.read(address_of(ref)) is first


def test_the_photo_longest_unused_makes_room(reader: PhotoReader, bucket: Client) -> None:
    first, second, third = (upload(bucket, f"{shade}.png", shade) for shade in (1, 2, 3))
    for ref in (first, second, first, third):
        reader.read(address_of(ref))
    for ref in (first, second):
        delete(bucket, ref)

    assert (reader.read(address_of(first)) == 1).all()
    with pytest.raises(ObjectChangedError):
        reader.read(address_of(second))


def test_without_a_generation_the_object_is_read_as_it_is_now(reader: PhotoReader, bucket: Client) -> None:
    address = PhotoAddress(upload(bucket, "now.png", 1).uri, 0)
    before = reader.read(address)
    upload(bucket, "now.png", 2)

    assert (before == 1).all()
    assert (reader.read(address) == 2).all()


def test_other_buckets_are_out_of_reach(reader: PhotoReader, bucket: Client) -> None:
    ensure_bucket(bucket, "photo-reader-private")
    ref = put(bucket, "photo-reader-private", "a.png", b"secret", "image/png")

    with pytest.raises(StorageError, match=f"not in gs://{BUCKET}"):
        reader.read(address_of(ref))


@pytest.mark.parametrize("uri", ["/etc/passwd", "http://127.0.0.1/a.png", "file:///etc/passwd", "gs://"])
def test_what_is_no_bucket_address_is_refused(reader: PhotoReader, uri: str) -> None:
    with pytest.raises(ConfigurationError, match="is no bucket address"):
        reader.read(PhotoAddress(uri, 0))


def test_a_task_without_a_photo_is_told_so(reader: PhotoReader) -> None:
    with pytest.raises(DataError, match="no «image»"):
        reader.read(PhotoAddress("", 0))


def test_a_photo_beyond_the_limit_is_refused(bucket: Client) -> None:
    ref = upload(bucket, "large.png", 1)

    with pytest.raises(ImageError, match="megapixels"):
        PhotoReader(bucket, BUCKET, max_megapixels=0.000_001).read(address_of(ref))
