"""Image embeddings of Segment Anything, kept in three tiers: memory, disk, bucket.

An embedding is encoded once per photo and checkpoint, however many people click meanwhile: the first caller computes,
the others wait for that photo alone. The result is written once, atomically, in half precision (a 256×64×64 embedding
is 2 MiB), survives restarts, and is shared with other processes and machines through the bucket.
"""

import io
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

import numpy as np

from pipelines.errors import MaskloopError
from pipelines.fs import PART_PATTERN, write_atomically
from pipelines.photos.decode import sha256_hex
from pipelines.segmentation.single_flight import Kept

logger = logging.getLogger(__name__)
_PART_S = 3600  # a file that has been half written for so long was left by a process that was killed


@dataclass(frozen=True)
class Embedding:
    """What the encoder made of one photo: `features` is (channels, h, w) float16; sizes are of the upright photo."""

    features: np.ndarray
    height: int
    width: int


class Shelf(Protocol):
    """A place that outlives the process and is shared by others, such as a bucket."""

    def fetch(self, name: str) -> bytes | None:
        """Give what was stored under a name, or None."""

    def store(self, name: str, data: bytes) -> None:
        """Store under a name; what is there already stays."""


class EmbeddingCache:
    """Embeddings by photo: in memory up to `memory_items`, on disk up to `disk_bytes`, and on a shelf without limit.

    `checkpoint` names the weights; embeddings of other weights are never mixed up with these.
    """

    def __init__(
        self,
        checkpoint: str,
        folder: Path,
        *,
        memory_items: int = 64,
        disk_bytes: int = 8 << 30,
        shelf: Shelf | None = None,
    ) -> None:
        self._checkpoint, self._folder, self._shelf = checkpoint, folder, shelf
        self._disk_bytes, self._memory = disk_bytes, Kept[Embedding](memory_items)

    def get(self, key: str, encode: Callable[[], Embedding]) -> Embedding:
        """Give the embedding of the photo that `key` identifies, from the nearest tier, or by calling `encode` once.

        An error of `encode` reaches every caller that waits for this photo, and the next caller tries again.
        """
        name = self.name_of(key)
        return self._memory.get(
            name, lambda: self._from_disk(name) or self._from_shelf(name) or self._new(name, encode)
        )

    def is_ready(self, key: str) -> bool:
        """Tell whether a click on this photo needs no encoder."""
        name = self.name_of(key)
        return name in self._memory or (self._folder / name).exists() or self._from_shelf(name) is not None

    def name_of(self, key: str) -> str:
        """Name the file of a photo's embedding."""
        return f"{sha256_hex(f'{self._checkpoint} {key}'.encode())}.npz"

    def _from_disk(self, name: str) -> Embedding | None:
        path = self._folder / name
        try:
            embedding = _parse(path.read_bytes())
            os.utime(path)  # the least recently used file makes room first
            return embedding
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            logger.warning("%s is damaged and is made again: %s", path, error)
            with suppress(OSError):  # the disk's trouble was told in the line above
                path.unlink(missing_ok=True)
            return None

    def _from_shelf(self, name: str) -> Embedding | None:
        if self._shelf is None:
            return None
        try:
            data = self._shelf.fetch(name)
            if data is None:
                return None
            embedding = _parse(data)
        except (MaskloopError, ValueError) as error:
            logger.warning("the shelf's %s cannot be used: %s", name, error)
            return None
        self._to_disk(name, data)
        return embedding

    def _new(self, name: str, encode: Callable[[], Embedding]) -> Embedding:
        embedding = encode()
        data = _serialise(embedding)
        self._to_disk(name, data)
        if self._shelf is not None:
            try:
                self._shelf.store(name, data)
            except MaskloopError as error:
                logger.warning("the embedding stays on this machine: %s", error)
        return embedding

    def _to_disk(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self._folder / name, data)
            self._make_room()
        except OSError as error:  # a full disk: the click is answered all the same
            logger.warning("the embedding is not kept on disk: %s", error)

    def _make_room(self) -> None:
        files = [(path, stat) for path in self._folder.glob("*.npz") if (stat := _stat(path)) is not None]
        total = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda pair: pair[1].st_mtime):
            if total <= self._disk_bytes:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size
        for path in self._folder.glob(PART_PATTERN):
            if (stat := _stat(path)) is not None and stat.st_mtime < time.time() - _PART_S:
                path.unlink(missing_ok=True)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process made room
        return None


def _serialise(embedding: Embedding) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, features=embedding.features.astype(np.float16), size=[embedding.height, embedding.width])
    return buffer.getvalue()


def _parse(data: bytes) -> Embedding:
    """Read what `_serialise` wrote; raises ValueError for anything else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            height, width = (int(value) for value in arrays["size"])
            return Embedding(arrays["features"], height, width)
    except (KeyError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"no embedding: {error!r}") from error
