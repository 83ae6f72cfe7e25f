"""A dataset in a folder: the object through which pipelines and DVC stages read and write its files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, LEFT_OUT, MANIFEST, MASKS, PHOTOS
from pipelines.dataset.records import decode_mask
from pipelines.dataset.shards import AnnotationShards, MaskShards, shard_of
from pipelines.errors import DatasetError
from pipelines.fs import write_atomically
from pipelines.photos.decode import decode_image


class Dataset:
    """The dataset in a folder `root`; its files have the names of `pipelines.dataset.files`, relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.annotations = AnnotationShards(root / ANNOTATIONS)
        self.masks = MaskShards(root / MASKS)
        self._last_shard: tuple[object, dict[str, bytes]] = (None, {})

    def path(self, name: Path) -> Path:
        """Return the path of a file of the dataset, given its name in `pipelines.dataset.files`."""
        return self.root / name

    def image_path(self, sha256: str) -> Path:
        """Return the file of a photo's bytes."""
        return self.root / IMAGES / sha256

    def read_image(self, sha256: str) -> np.ndarray:
        """Return a photo, (H, W, 3) uint8 RGB upright; raise DatasetError when its file is missing."""
        path = self.image_path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing; run `dvc pull` in {self.root}") from error
        return decode_image(data, max_megapixels=math.inf)  # ingest checked its size

    def read_mask(self, sha256: str) -> np.ndarray:
        """Return a photo's (H, W) uint8 index mask; raise DatasetError when it is missing or damaged."""
        return decode_mask(self.mask_png(sha256), f"the mask of {sha256} in {self.root}")

    def mask_png(self, sha256: str) -> bytes:
        """Return a photo's mask as PNG; no bytes when there is none.

        Versions of an older layout have a file per mask.
        """
        older = self.root / MASKS / f"{sha256}.png"
        if older.exists():
            return older.read_bytes()
        shard, (known, masks) = shard_of(sha256), self._last_shard
        state = self.masks.state_of(shard)
        if known != state:  # readers go through photos in order of their hashes, so a shard is read once
            masks = self.masks.read_shard(shard)
            self._last_shard = state, masks
        return masks.get(sha256, b"")

    def write_photo(self, sha256: str, data: bytes) -> None:
        """Write a photo's bytes."""
        write_atomically(self.image_path(sha256), data)

    def manifest(self) -> pd.DataFrame:
        """Return the manifest: a row per photo, with its split."""
        return pd.read_parquet(self.root / MANIFEST)

    def photos(self) -> pd.DataFrame:
        """Return the table of photos, before they are split."""
        return pd.read_parquet(self.root / PHOTOS)

    def left_out(self) -> dict[str, str]:
        """Return why annotations could not be used, by their UUIDs; nothing in versions that do not record it.

        Raise DatasetError when the file is damaged.
        """
        path = self.root / LEFT_OUT
        try:
            return {str(uuid): str(reason) for uuid, reason in json.loads(path.read_text(encoding="utf-8")).items()}
        except FileNotFoundError:
            return {}
        except (AttributeError, OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read ({error}); run `git checkout -- {LEFT_OUT}` there") from error

    def write_left_out(self, reasons: Mapping[str, str]) -> None:
        """Write why annotations could not be used, by their UUIDs. Equal reasons give equal bytes."""
        text = json.dumps(dict(reasons), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomically(self.root / LEFT_OUT, text.encode())

    def before(self) -> pd.DataFrame | None:
        """Return the last published version's manifest, or None when there is none yet."""
        path = self.root / BEFORE
        return pd.read_parquet(path) if path.stat().st_size else None

    def write_table(self, name: Path, table: pd.DataFrame) -> None:
        """Write a table as Parquet. The file is replaced, not overwritten: DVC may have linked it with its cache."""
        write_atomically(self.root / name, table.to_parquet(index=False))
