"""Photos of the source bucket as pixels, for services and stations: read at their generation, decoded once."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.cloud.storage import Client

from pipelines.errors import StorageError
from pipelines.images import decode_image
from pipelines.records import ObjectRef
from pipelines.storage import read, split_uri


class PhotoReader:
    """Read photos named by task data; the last few are kept, because labelers click several times on each.

    Only objects of `bucket` are read: task data comes from people and must not reach other places.
    """

    def __init__(self, client: Client, bucket: str, max_megapixels: float, kept: int = 8) -> None:
        self._client, self._bucket, self._max_megapixels, self._kept = client, bucket, max_megapixels, kept
        self._photos: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, uri: str, generation: int = 0) -> np.ndarray:
        """Give a photo as (H, W, 3) uint8 RGB, upright; generation 0 reads the object as it is now.

        Raises StorageError for addresses outside of the bucket, ImageError for bytes that are no photo.
        """
        key = self.key(uri, generation)
        with self._lock:
            if key in self._photos:
                self._photos.move_to_end(key)
                return self._photos[key]
        bucket, name = split_uri(uri)
        if bucket != self._bucket:
            raise StorageError(
                f"{uri} is not in the source bucket gs://{self._bucket}; only photos from there are read"
            )
        photo = decode_image(
            read(self._client, ObjectRef(bucket, name, generation)), max_megapixels=self._max_megapixels
        )
        if generation:
            with self._lock:
                self._photos[key] = photo
                while len(self._photos) > self._kept:
                    self._photos.popitem(last=False)
        return photo

    @staticmethod
    def key(uri: str, generation: int) -> str:
        """Identify a photo's content: address and generation."""
        return f"{uri}#{generation}"


def generation_of(data: Mapping[str, Any]) -> int:
    """Give the generation that task data names, or 0 for tasks that Maskloop did not make."""
    text = str(data.get("generation", "0"))
    return int(text) if text.isdecimal() else 0
