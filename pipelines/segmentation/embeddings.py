"""Image embeddings of Segment Anything, cached in three tiers: memory, disk, bucket.

A photo is encoded once per checkpoint, however many people click meanwhile: the first caller computes, and the others
wait for that photo only. The embedding is written once, atomically, in half precision (256×64×64 values are 2 MiB; the
three feature maps of SAM 2 are 8 MiB), survives restarts, and is shared with other processes and machines through the
bucket.
"""

import io
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from pipelines.errors import MaskloopError
from pipelines.fs import PART_PATTERN, write_atomically
from pipelines.photos.decode import sha256_hex
from pipelines.segmentation.single_flight import SingleFlightCache

logger = logging.getLogger(__name__)
_FINE = "fine"  # and the level: names of arrays in a file
_PART_S = 3600  # an unfinished file of this age was left by a killed process


@dataclass(frozen=True)
class Embedding:
    """The encoder's output for one photo: `features` is (channels, h, w) float16; the size is the upright photo's.

    `fine` holds the larger feature maps of encoders that have some, such as SAM 2's, the largest first. `photo` is the
    photo, or a smaller copy, (h, w, 3) uint8 RGB, where parts of it are encoded later.
    """

    features: np.ndarray
    height: int
    width: int
    fine: tuple[np.ndarray, ...] = ()
    photo: np.ndarray | None = None


class BlobStore(Protocol):
    """Storage that outlives the process and is shared with others, such as a bucket."""

    def fetch(self, name: str) -> bytes | None:
        """Return the bytes stored under a name, or None."""

    def store(self, name: str, data: bytes) -> None:
        """Store bytes under a name, unless there are some already."""


class EmbeddingCache:
    """Embeddings by photo: in memory up to `max_items`, in `cache_dir` up to `max_bytes`, in a store without limit.

    `checkpoint` names the weights; embeddings of other weights have other names.
    """

    def __init__(
        self,
        checkpoint: str,
        cache_dir: Path,
        *,
        max_items: int = 64,
        max_bytes: int = 8 << 30,
        blob_store: BlobStore | None = None,
    ) -> None:
        self._checkpoint, self._cache_dir, self._blob_store = checkpoint, cache_dir, blob_store
        self._max_bytes, self._memory = max_bytes, SingleFlightCache[Embedding](max_items)

    def get(self, key: str, encode: Callable[[], Embedding]) -> Embedding:
        """Return the embedding of the photo that `key` identifies, from the nearest tier, or by calling `encode` once.

        An error of `encode` reaches every caller that waits for this photo; the next call tries again.
        """
        name = self.name_of(key)
        return self._memory.get(
            name, lambda: self._from_disk(name) or self._from_blob_store(name) or self._encoded(name, encode)
        )

    def is_ready(self, key: str) -> bool:
        """Return whether a click on this photo needs no encoder."""
        name = self.name_of(key)
        return name in self._memory or (self._cache_dir / name).exists() or self._from_blob_store(name) is not None

    def name_of(self, key: str) -> str:
        """Return the file name of a photo's embedding."""
        return embedding_name(self._checkpoint, key)

    def _from_disk(self, name: str) -> Embedding | None:
        path = self._cache_dir / name
        try:
            embedding = _parse(path.read_bytes())
            os.utime(path)  # the least recently used file is evicted first
            return embedding
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            logger.warning("%s is damaged and is made again: %s", path, error)
            with suppress(OSError):  # the warning above names the disk's error
                path.unlink(missing_ok=True)
            return None

    def _from_blob_store(self, name: str) -> Embedding | None:
        if self._blob_store is None:
            return None
        try:
            data = self._blob_store.fetch(name)
            if data is None:
                return None
            embedding = _parse(data)
        except (MaskloopError, ValueError) as error:
            logger.warning("the stored embedding %s cannot be used: %s", name, error)
            return None
        self._to_disk(name, data)
        return embedding

    def _encoded(self, name: str, encode: Callable[[], Embedding]) -> Embedding:
        embedding = encode()
        data = _serialise(embedding)
        self._to_disk(name, data)
        if self._blob_store is not None:
            try:
                self._blob_store.store(name, data)
            except MaskloopError as error:
                logger.warning("the embedding is stored on this machine only: %s", error)
        return embedding

    def _to_disk(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self._cache_dir / name, data)
            self._evict()
        except OSError as error:  # a full disk: the click is answered all the same
            logger.warning("the embedding is not cached on disk: %s", error)

    def _evict(self) -> None:
        files = [(path, stat) for path in self._cache_dir.glob("*.npz") if (stat := _stat(path)) is not None]
        total = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda pair: pair[1].st_mtime):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size
        for path in self._cache_dir.glob(PART_PATTERN):
            if (stat := _stat(path)) is not None and stat.st_mtime < time.time() - _PART_S:
                path.unlink(missing_ok=True)


def embedding_name(checkpoint: str, key: str) -> str:
    """Return the file name of the embedding that a checkpoint makes of the photo that `key` identifies."""
    return f"{sha256_hex(f'{checkpoint} {key}'.encode())}.npz"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process evicted it
        return None


def _serialise(embedding: Embedding) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"{_FINE}{level}": array.astype(np.float16) for level, array in enumerate(embedding.fine)}
    arrays |= {"features": embedding.features.astype(np.float16), "size": [embedding.height, embedding.width]}
    if embedding.photo is not None:
        arrays["photo"] = embedding.photo
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _parse(data: bytes) -> Embedding:
    """Read what `_serialise` wrote; raises ValueError for anything else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            height, width = (int(value) for value in arrays["size"])
            fine = tuple(arrays[name] for name in sorted(arrays.files) if name.startswith(_FINE))
            photo = arrays["photo"] if "photo" in arrays.files else None
            return Embedding(arrays["features"], height, width, fine, photo)
    except (KeyError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"no embedding: {error!r}") from error
