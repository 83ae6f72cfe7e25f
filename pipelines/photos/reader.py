"""Photos as pixels for both services: read at their generation, a bounded number of pixels in memory at a time."""

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from google.cloud.storage import Client

from pipelines.errors import ConfigurationError, DataError, MaskloopError, ObjectChangedError, StorageError
from pipelines.gcs.client import read, split_uri, stat
from pipelines.photos.decode import decode_image, image_megapixels
from pipelines.photos.memory_budget import Budget
from pipelines.records import ObjectRef, PhotoAddress

_MOST_BYTES = 256 << 20  # of a photo's file; before it is read, nobody knows what it is
_TIMEOUT = httpx.Timeout(30, connect=5)
_SIDE_BY_SIDE = 8  # photos read and worked on at once, so that a network never waits for one

logger = logging.getLogger(__name__)


class PhotoReader:
    """Open photos named by task data, whichever thread asks.

    Task data comes from people and must not reach other places: only objects of `bucket` are read, and https addresses
    of the `hosts` that the environment allows. Photos in use never have more than `max_megapixels` together, so a
    photo of that size is worked on alone and small ones side by side.
    """

    def __init__(self, client: Client, bucket: str, max_megapixels: float, hosts: Collection[str] = ()) -> None:
        self._client, self._bucket, self._hosts = client, bucket, frozenset(hosts)
        self._max_megapixels, self._budget = max_megapixels, Budget(max_megapixels)
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, "photo")

    def resolve(self, address: PhotoAddress) -> PhotoAddress:
        """Give the address with the photo's present generation or ETag where it names none.

        Raises DataError for a task without a photo, StorageError for photos that are elsewhere or gone.
        """
        if address.uri.startswith("https://"):
            return replace(address, etag=address.etag or self._etag(address.uri))
        bucket, name = self._object(address)
        if address.generation:
            return address
        there = stat(self._client, bucket, name)
        if there is None:
            raise ObjectChangedError(f"{address.uri} is gone; delete its task, or upload the photo again")
        return PhotoAddress(address.uri, there.generation)

    @contextmanager
    def open(self, address: PhotoAddress) -> Iterator[np.ndarray]:
        """Give a photo as (H, W, 3) uint8 RGB, upright; its memory is counted until the block ends.

        Raises DataError or StorageError like `resolve`, and ImageError for bytes that are no photo.
        """
        data = self._read(address)
        with self._budget.held(image_megapixels(data, max_megapixels=self._max_megapixels)):
            yield decode_image(data, max_megapixels=self._max_megapixels)

    def each(
        self, addresses: Sequence[PhotoAddress], work: Callable[[np.ndarray], Any]
    ) -> tuple[list[Any], dict[int, str]]:
        """Work on photos side by side; gives the results, None where there is none, and why, by position.

        One photo never costs the others theirs, whatever goes wrong with it.
        """
        problems: dict[int, str] = {}

        def one(position: int) -> Any:
            try:
                with self.open(addresses[position]) as photo:
                    return work(photo)
            except MaskloopError as error:
                problems[position] = str(error)
            except Exception as error:  # a library's own bug: one photo must not cost the others theirs
                logger.exception("photo %s", _plain(addresses[position].uri))
                problems[position] = f"an error of the service itself, see its log: {error!r}"
            return None

        return list(self._pool.map(one, range(len(addresses)))), problems

    def _object(self, address: PhotoAddress) -> tuple[str, str]:
        """Give bucket and object name of a photo in the bucket."""
        if not address.uri:
            raise DataError("the task's data has no «image»; photos become tasks with `maskloop ingest`")
        try:
            bucket, name = split_uri(address.uri)
        except ConfigurationError as error:
            raise DataError(f"{error}, or https://host/path for the hosts of MASKLOOP_IMAGE_HOSTS") from error
        if bucket != self._bucket:
            raise StorageError(f"{address.uri} is not in gs://{self._bucket}; only its photos are read")
        if not name:
            raise DataError(f"{address.uri} names no object; a photo looks like gs://{self._bucket}/name")
        return bucket, name

    def _read(self, address: PhotoAddress) -> bytes:
        if address.uri.startswith("https://"):
            return self._download(address.uri)
        bucket, name = self._object(address)
        generation = address.generation or self.resolve(address).generation
        return read(self._client, ObjectRef(bucket, name, generation), most_bytes=_MOST_BYTES)

    def _etag(self, url: str) -> str:
        # Asked for with GET, because signatures hold for one method only; the photo itself is not waited for.
        with self._asked(url) as answer:
            headers = answer.headers
        # Without either, every look is taken for another photo: slow, but never the wrong picture.
        return headers.get("etag") or headers.get("last-modified") or uuid.uuid4().hex

    def _download(self, url: str) -> bytes:
        data = bytearray()
        with self._asked(url) as answer:
            for part in answer.iter_bytes():
                data += part
                if len(data) > _MOST_BYTES:
                    raise StorageError(f"{_plain(url)} sends more than {_MOST_BYTES >> 20} MB; upload a smaller photo")
        return bytes(data)

    @contextmanager
    def _asked(self, url: str) -> Iterator[httpx.Response]:
        try:
            host = urlsplit(url).netloc
        except ValueError as error:
            raise DataError(f"{_plain(url)} is no address ({error}); correct the task's «image»") from error
        if host not in self._hosts:
            raise StorageError(
                f"{_plain(url)}: this host is not allowed; name it in MASKLOOP_IMAGE_HOSTS, or bring the photo into "
                f"gs://{self._bucket}"
            )
        try:
            # A redirect could lead anywhere, so it is not followed.
            with httpx.stream("GET", url, timeout=_TIMEOUT, follow_redirects=False) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise StorageError(
                        f"{_plain(url)} answered HTTP {answer.status_code}; give the task an address that answers with "
                        "the photo itself"
                    )
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StorageError(f"cannot read {_plain(url)} ({error}); try again, or upload the photo") from error


def _plain(url: str) -> str:
    """Leave out what may hold a signature."""
    return url.partition("?")[0]
