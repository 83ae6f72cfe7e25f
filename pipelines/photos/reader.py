"""Photos as pixels for both services: read at their generation, with a bounded number of pixels in memory."""

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
from google.cloud.storage import Client
from numpy.typing import NDArray

from pipelines.errors import ConfigurationError, DataError, MaskloopError, ObjectChangedError, StorageError
from pipelines.gcs.client import read, split_uri, stat
from pipelines.photos.decode import decode_image, image_megapixels
from pipelines.photos.memory_budget import Budget
from pipelines.records import ObjectRef, PhotoAddress

_MAX_BYTES = 256 << 20  # of a photo's file; before it is read, its content is unknown
_TIMEOUT = httpx.Timeout(30, connect=5)
_MAX_CONCURRENCY = 8  # photos that are read and worked on at a time, so that models never wait for a single read

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class PhotoReader:
    """Opens photos that task data names, from any number of threads.

    Task data comes from people, so it must not give access to anything else: only objects of `bucket` are read, and
    https addresses of the `hosts` that the environment allows. Photos in use never have more than `max_megapixels`
    together: a photo of that size is worked on alone, small ones concurrently.
    """

    def __init__(self, client: Client, bucket: str, max_megapixels: float, hosts: Collection[str] = ()) -> None:
        self._client, self._bucket, self._hosts = client, bucket, frozenset(hosts)
        self._max_megapixels, self._budget = max_megapixels, Budget(max_megapixels)
        self._pool = ThreadPoolExecutor(_MAX_CONCURRENCY, "photo")

    def resolve(self, address: PhotoAddress) -> PhotoAddress:
        """Return the address with the photo's current generation or ETag where it names none.

        Raises DataError for a task without a photo, StorageError for photos that are elsewhere or gone.
        """
        if address.uri.startswith("https://"):
            return replace(address, etag=address.etag or self._etag(address.uri))
        bucket, name = self._object(address)
        if address.generation:
            return address
        ref = stat(self._client, bucket, name)
        if ref is None:
            raise ObjectChangedError(f"{address.uri} is gone; delete its task, or upload the photo again")
        return PhotoAddress(address.uri, ref.generation)

    @contextmanager
    def open(self, address: PhotoAddress) -> Iterator[NDArray[np.uint8]]:
        """Yield a photo as (H, W, 3) uint8 RGB, upright; its memory is reserved until the block ends.

        Raises DataError or StorageError like `resolve`, and ImageError for bytes that are no photo.
        """
        data = self._read(address)
        with self._budget.reserve(image_megapixels(data, max_megapixels=self._max_megapixels)):
            yield decode_image(data, max_megapixels=self._max_megapixels)

    def each(
        self, addresses: Sequence[PhotoAddress], work: Callable[[NDArray[np.uint8], int], Result]
    ) -> tuple[list[Result | None], dict[int, str]]:
        """Work on photos concurrently; returns the results, None for photos that failed, and their errors by position.

        `work` takes a photo and its position.
        A photo that fails never costs the others their results.
        """
        problems: dict[int, str] = {}

        def work_on(position: int) -> Result | None:
            try:
                with self.open(addresses[position]) as photo:
                    return work(photo, position)
            except MaskloopError as error:
                problems[position] = str(error)
            except Exception as error:  # a library's own bug must not cost the other photos their results
                logger.exception("photo %s", _public(addresses[position].uri))
                problems[position] = f"an error of the service itself, see its log: {error!r}"
            return None

        return list(self._pool.map(work_on, range(len(addresses)))), problems

    def _object(self, address: PhotoAddress) -> tuple[str, str]:
        """Return bucket and object name of a photo in the bucket."""
        if not address.uri:
            raise DataError("the task's data has no `image`; photos become tasks with `maskloop ingest`")
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
        return read(self._client, ObjectRef(bucket, name, generation), max_bytes=_MAX_BYTES)

    def _etag(self, url: str) -> str:
        # With GET, because signatures are valid for one method only; the photo itself is not read.
        with self._get(url) as response:
            headers = response.headers
        # Without either, every request counts as another photo: slow, but never the wrong picture.
        return headers.get("etag") or headers.get("last-modified") or uuid.uuid4().hex

    def _download(self, url: str) -> bytes:
        data = bytearray()
        with self._get(url) as response:
            for part in response.iter_bytes():
                data += part
                if len(data) > _MAX_BYTES:
                    raise StorageError(f"{_public(url)} sends more than {_MAX_BYTES >> 20} MB; upload a smaller photo")
        return bytes(data)

    @contextmanager
    def _get(self, url: str) -> Iterator[httpx.Response]:
        try:
            host = urlsplit(url).netloc
        except ValueError as error:
            raise DataError(f"{_public(url)} is no address ({error}); correct the task's `image`") from error
        if host not in self._hosts:
            raise StorageError(
                f"{_public(url)}: this host is not allowed; name it in MASKLOOP_IMAGE_HOSTS, or bring the photo into "
                f"gs://{self._bucket}"
            )
        try:
            # A redirect could lead anywhere, so it is not followed.
            with httpx.stream("GET", url, timeout=_TIMEOUT, follow_redirects=False) as response:
                if response.status_code != httpx.codes.OK:
                    raise StorageError(
                        f"{_public(url)} answered HTTP {response.status_code}; give the task an address that "
                        "answers with the photo itself"
                    )
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StorageError(f"cannot read {_public(url)} ({error}); try again, or upload the photo") from error


def _public(url: str) -> str:
    """Return an address as messages may show it: without its query, which may hold a signature."""
    return url.partition("?")[0]
