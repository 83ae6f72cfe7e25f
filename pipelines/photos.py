"""Photos of the source bucket as pixels, for services and stations: read at their generation, decoded once."""

import threading
from collections import OrderedDict

import numpy as np
from google.cloud.storage import Client

from pipelines.errors import DataError, ObjectChangedError, StorageError
from pipelines.images import decode_image
from pipelines.records import ObjectRef, PhotoAddress
from pipelines.storage import read, split_uri, stat


class PhotoReader:
    """Read photos named by task data; the last few are kept, because labelers click several times on each.

    Only objects of `bucket` are read: task data comes from people and must not reach other places.
    """

    def __init__(self, client: Client, bucket: str, max_megapixels: float, kept: int = 8) -> None:
        self._client, self._bucket, self._max_megapixels, self._kept = client, bucket, max_megapixels, kept
        self._photos: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, address: PhotoAddress) -> PhotoAddress:
        """Give the address with the object's present generation where it names none.

        Raises DataError for a task without a photo, StorageError for photos outside of the bucket or gone.
        """
        if not address.uri:
            raise DataError("the task's data has no «image»; photos become tasks with `maskloop ingest`")
        bucket, name = split_uri(address.uri)
        if bucket != self._bucket:
            raise StorageError(f"{address.uri} is not in gs://{self._bucket}; only its photos are read")
        if address.generation:
            return address
        there = stat(self._client, bucket, name)
        if there is None:
            raise ObjectChangedError(f"{address.uri} is gone; delete its task, or upload the photo again")
        return PhotoAddress(address.uri, there.generation)

    def read(self, address: PhotoAddress) -> np.ndarray:
        """Give a photo as (H, W, 3) uint8 RGB, upright.

        Raises DataError or StorageError like `resolve`, and ImageError for bytes that are no photo.
        """
        address = self.resolve(address)
        with self._lock:
            if address.key in self._photos:
                self._photos.move_to_end(address.key)
                return self._photos[address.key]
        data = read(self._client, ObjectRef(*split_uri(address.uri), address.generation))
        photo = decode_image(data, max_megapixels=self._max_megapixels)
        with self._lock:
            self._photos[address.key] = photo
            while len(self._photos) > self._kept:
                self._photos.popitem(last=False)
        return photo
