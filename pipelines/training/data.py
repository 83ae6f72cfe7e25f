"""Photos and masks of a dataset workspace as tensors, read the way the services read them."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch.utils.data import Dataset, Sampler
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


Draw = tuple[int, int]  # a photo's place, and the seed of its augmentation


class Photos(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Photos at the network's size, decoded once into a file without a name; masks hold channel numbers.

    An item is ((3, h, w) float32 normalised, (h, w) int64). The file takes h·w·4 bytes per photo on disk and is mapped:
    the system keeps of it in memory what there is room for, so memory does not grow with the number of photos. It is
    gone with this object, or with a killed process.
    """

    def __init__(self, photos: Sequence[str], card: ModelCard, *, augment: bool) -> None:
        self.card, self._augment = card, _augmentations() if augment else None
        channel_of = np.zeros(256, np.uint8)
        channel_of[card.index_of_channel] = np.arange(len(card.index_of_channel))
        size = len(photos), card.height, card.width, 4
        with tempfile.TemporaryFile(dir=".") as file:  # mapped, it stays after it is closed
            self._planes = np.memmap(file, np.uint8, "w+", shape=size) if photos else np.empty(size, np.uint8)
        self.pixels = np.zeros((len(photos), len(card.index_of_channel)), np.int64)  # of each channel, by photo

        def read(place: int) -> None:
            photo, mask = read_photo(photos[place])
            channels = channel_of[resize_mask(mask, card.height, card.width)]
            self._planes[place, :, :, :3] = resize_image(photo, card.height, card.width)
            self._planes[place, :, :, 3] = channels
            self.pixels[place] = np.bincount(channels.ravel(), minlength=self.pixels.shape[1])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in track(pool.map(read, range(len(photos))), "decoding", total=len(photos), transient=True):
                pass

    def __len__(self) -> int:
        """Count the photos."""
        return len(self._planes)

    def __getitem__(self, draw: int | Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Give one photo and its mask, moved together when augmented; what moves them follows from the draw's seed."""
        place, seed = draw if isinstance(draw, tuple) else (draw, 0)
        planes = torch.from_numpy(np.array(self._planes[place]))
        photo, mask = planes[..., :3].permute(2, 0, 1), planes[..., 3]
        if self._augment:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                photo, mask = self._augment(tv_tensors.Image(photo), tv_tensors.Mask(mask))
        pixels = normalize(photo.permute(1, 2, 0).numpy(), self.card.mean, self.card.std)
        return torch.from_numpy(pixels), mask.to(torch.int64)


class RepeatFactorSampler(Sampler[Draw]):
    """Draws photos so that those with rare labels come up more often; an epoch has as many draws as there are photos.

    A photo's weight is √(`repeat` / f) of its rarest label, at least 1, with f the share of photos that show the label:
    repeat factor sampling, Gupta, Dollár, Girshick: «LVIS» (CVPR 2019). With `repeat` 0 every photo comes once. An
    epoch's draws follow from `seed` and the epoch alone, each with a seed of its own: neither a resume nor how far
    ahead photos are loaded changes them. Processes that train together share them out.
    """

    def __init__(self, pixels: np.ndarray, repeat: float, seed: int) -> None:
        there = pixels[:, 1:] > 0
        rarity = np.sqrt(repeat / np.maximum(there.mean(0), 1e-9))
        weights = np.where(there, np.maximum(rarity, 1), 1).max(axis=1, initial=1)
        self.expected = weights / weights.sum() * len(weights)  # (N,) how often each photo comes in an epoch
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Count this process's draws of an epoch."""
        return len(self.expected) // _processes()[1]

    def __iter__(self) -> Iterator[Draw]:
        """Draw: every photo comes as often as expected, rounded up or down by chance, in random order."""
        random = np.random.default_rng((self.seed, self.epoch))
        shuffled = random.permutation(len(self.expected))
        edges = np.floor(np.cumsum(self.expected[shuffled]) + random.random()).astype(int)
        drawn = np.repeat(shuffled, np.diff(edges, prepend=0))[: len(self.expected)]
        places = random.permutation(drawn).tolist()
        draws = list(zip(places, random.integers(2**63, size=len(places)).tolist(), strict=True))
        rank, processes = _processes()
        return iter(draws[rank : len(self) * processes : processes])


def _processes() -> tuple[int, int]:
    """Give this process's rank among those that train together, and how many they are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _augmentations() -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.7, 1.4)),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05),
            v2.RandomGrayscale(0.1),
        ]
    )
