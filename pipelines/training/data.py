"""Photos and masks of a dataset workspace as tensors, read the way the services read them."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipelines.dataset.files import MANIFEST, image_path, mask_path, read_mask
from pipelines.errors import DatasetError
from pipelines.images import decode_image
from pipelines.segmentation.clothing import ModelCard
from pipelines.segmentation.transforms import normalize, resize_image, resize_mask


def photos_of(split: str) -> list[str]:
    """Give the sha256 of each photo on one side, in a fixed order.

    Raises DatasetError when the side is empty.
    """
    table = pd.read_parquet(MANIFEST)
    photos = sorted(table.loc[table["split"] == split, "sha256"])
    if not photos and split != "val":
        raise DatasetError(f"no photo is on the {split} side yet; label more photos, then run `maskloop sync`")
    return photos


def metadata_of(photos: Sequence[str], columns: Sequence[str]) -> dict[str, list[str]]:
    """Give, for each of these catalogue columns that the dataset has, its value per photo; «–» where there is none."""
    table = pd.read_parquet(MANIFEST).set_index("sha256")
    found = {column: f"meta_{column}" for column in columns if f"meta_{column}" in table.columns}
    return {
        column: [str(value) for value in table.loc[list(photos), name].fillna("–")] for column, name in found.items()
    }


def read_photo(sha256: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one photo, (H, W, 3) uint8 RGB upright, and its (H, W) uint8 index mask; ingest has checked its size."""
    return decode_image(Path(image_path(sha256)).read_bytes(), max_megapixels=math.inf), read_mask(mask_path(sha256))


class Photos(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Photos at the network's size, kept decoded in memory; masks hold channel numbers.

    An item is ((3, h, w) float32 normalised, (h, w) int64). Memory is h·w·4 bytes per photo.
    """

    def __init__(self, photos: list[str], card: ModelCard, *, augment: bool) -> None:
        self.card = card
        channel_of = np.zeros(256, np.uint8)
        channel_of[card.index_of_channel] = np.arange(len(card.index_of_channel))
        pairs = (read_photo(sha256) for sha256 in photos)
        self._items = [
            (resize_image(photo, card.height, card.width), channel_of[resize_mask(mask, card.height, card.width)])
            for photo, mask in pairs
        ]
        self._augment = _augmentations() if augment else None

    def __len__(self) -> int:
        """Count the photos."""
        return len(self._items)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Give one photo and its mask, moved together when augmented."""
        photo, mask = self._items[position]
        if self._augment:
            moved, moved_mask = self._augment(
                tv_tensors.Image(torch.from_numpy(photo).permute(2, 0, 1)), tv_tensors.Mask(torch.from_numpy(mask))
            )
            photo, mask = moved.permute(1, 2, 0).numpy(), moved_mask.numpy()
        pixels = normalize(photo, self.card.mean, self.card.std)
        return torch.from_numpy(pixels), torch.from_numpy(mask.astype(np.int64))


def _augmentations() -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(degrees=8, translate=(0.06, 0.06), scale=(0.85, 1.2)),
            v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.3, hue=0.04),
        ]
    )
