"""Photos with masks as a dataset that `train` and `evaluate` can work in."""

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.records import encode_mask
from pipelines.dataset.shards import shard_of
from pipelines.dataset.split import split_photos
from pipelines.errors import DataError, DatasetError
from pipelines.exchange.labelled_photos import Origin
from pipelines.exchange.masked_photos import MaskedPhotos
from pipelines.params import IGNORE, Params
from pipelines.photos.decode import decode_image, perceptual_hash, sha256_hex
from pipelines.records import IMPORTED_GROUP, IMPORTED_SPLIT

logger = logging.getLogger(__name__)


class PhotoSource(Protocol):
    """Photos by name, and their true masks: (H, W) uint8 in the ids of params.yaml."""

    def take(self, first: int, count: int) -> list[str]:
        """Return the names of `count` photos from position `first` on, or fewer when there are no more."""

    def photo(self, name: str) -> bytes:
        """Return the photo's file."""

    def truth(self, name: str) -> np.ndarray:
        """Return the true index mask."""


def write_dataset(dataset: Dataset, source: PhotoSource, params: Params, count: int = 1_000_000) -> pd.DataFrame:
    """Write at most `count` photos, their masks and the manifest, split as the project's own photos are.

    Photos keep the split and group that photos.csv beside them names, as in an import.
    Photos that cannot be read or do not fit their mask are left out with a line in the log; equal files count once.
    Raise DatasetError when none is left.
    """

    def write(name: str) -> dict[str, Any] | None:
        try:
            data, mask = source.photo(name), source.truth(name)
            photo = decode_image(data, max_megapixels=math.inf)
        except (OSError, DataError) as error:
            logger.warning("%s is left out: %s", name, error)
            return None
        if photo.shape[:2] != mask.shape:
            logger.warning("%s is left out: it has %s pixels, its mask %s", name, photo.shape[:2], mask.shape)
            return None
        sha256, png = sha256_hex(data), encode_mask(mask)
        dataset.write_photo(sha256, data)
        masks[sha256] = png
        origin = source.origin(name) if isinstance(source, MaskedPhotos) else Origin()
        return {
            "uri": name, "sha256": sha256, "phash": perceptual_hash(photo), "mask_sha256": sha256_hex(png),
            "class_ids": [int(value) for value in np.unique(mask) if value not in (0, IGNORE)],
            f"meta_{IMPORTED_SPLIT}": origin.split, f"meta_{IMPORTED_GROUP}": origin.group,
        }  # fmt: skip

    masks: dict[str, bytes] = {}
    with ThreadPoolExecutor() as pool:
        rows = [row for row in pool.map(write, source.take(0, count)) if row]
    if not rows:
        raise DatasetError("none of the photos can be used; the lines above say why")
    manifest = split_photos(pd.DataFrame(rows).drop_duplicates("sha256", ignore_index=True), None, params.split)
    for shard in sorted({shard_of(sha256) for sha256 in masks}):
        dataset.masks.write_shard(shard, {sha256: png for sha256, png in masks.items() if shard_of(sha256) == shard})
    dataset.write_table(MANIFEST, manifest)
    return manifest
