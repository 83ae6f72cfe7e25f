"""Photos and masks of a dataset workspace as tensors, read the way the services read them."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipelines.dataset.dataset import Dataset
from pipelines.errors import DatasetError
from pipelines.params import IGNORE
from pipelines.segmentation.model import ModelCard
from pipelines.segmentation.transforms import Area, normalize


def photos_in(dataset: Dataset, split: str) -> list[str]:
    """Return the SHA-256 of each photo in a split, in a fixed order.

    Raise DatasetError when train or test is empty.
    """
    photos = _rows_of(dataset, split)["sha256"].tolist()
    if not photos and split != "val":
        raise DatasetError(f"no photo is in the {split} split yet; label more photos, then run `maskloop sync`")
    return photos


def clean_photos(dataset: Dataset, split: str) -> list[str]:
    """Return the SHA-256 of each photo in a split whose mask is blind, that is drawn without a model; may be none.

    Manifests of older versions say only which prediction an annotation started from, or nothing at all.
    """
    table = _rows_of(dataset, split)
    if "blind" in table.columns:
        table = table[table["blind"].fillna(False).astype(bool)]
    elif "prediction_version" in table.columns:
        table = table[table["prediction_version"].fillna("") == ""]
    return list(table["sha256"])


def families_of(dataset: Dataset, photos: Sequence[str]) -> tuple[str, ...]:
    """Return for each photo its family: photos that look alike, and what of one group looks like them, share one.

    In manifests without families it is the group, and without groups each photo is one of its own.
    """
    table = dataset.manifest().set_index("sha256", drop=False)
    family = next((name for name in ("family", "group") if name in table.columns), "sha256")
    return tuple(table.loc[list(photos), family].fillna(table["sha256"]).astype(str))


def _rows_of(dataset: Dataset, split: str) -> pd.DataFrame:
    table = dataset.manifest()
    return table[table["split"] == split].sort_values("sha256")


def metadata_of(dataset: Dataset, photos: Sequence[str], columns: Sequence[str]) -> dict[str, list[str]]:
    """Return, for each of these catalogue columns that the dataset has, its value per photo; "–" if there is none."""
    table = dataset.manifest().set_index("sha256")
    known = {column: f"meta_{column}" for column in columns if f"meta_{column}" in table.columns}
    return {
        column: [str(value) for value in table.loc[list(photos), name].fillna("–")] for column, name in known.items()
    }


Draw = tuple[int, int]  # a photo's place, and the seed of its augmentation


class Photos(TorchDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Photos at the network's size, decoded once into a file without a name; masks hold channel numbers.

    An item is ((3, h, w) float32 normalised, (h, w) int64); pixels around the photo, and those that nobody can name,
    are `IGNORE`. The file takes h·w·4 bytes per photo on disk and is mapped: the system caches as much of it as
    fits, so memory does not grow with the number of photos. The file is gone with this object or its process.
    """

    def __init__(self, dataset: Dataset, photos: Sequence[str], card: ModelCard, *, augment: bool) -> None:
        self.card, self._augment = card, augment
        self._colors, self._moves = _changes_of_color(), _moves()
        self._padding = torch.tensor(card.padding, dtype=torch.float32)[:, None, None]
        channel_of = np.zeros(256, np.uint8)
        channel_of[card.index_of_channel] = np.arange(len(card.index_of_channel))
        channel_of[IGNORE] = IGNORE
        size = len(photos), card.height, card.width, 4
        with tempfile.TemporaryFile(dir=dataset.root) as file:  # mapped, it stays after it is closed
            self._planes = np.memmap(file, np.uint8, "w+", shape=size) if photos else np.empty(size, np.uint8)
        self._areas = [Area(0, 0, card.height, card.width)] * len(photos)
        self.pixels = np.zeros((len(photos), len(card.index_of_channel)), np.int64)  # of each channel, by photo

        def read(place: int) -> None:
            photo, mask = dataset.read_image(photos[place]), dataset.read_mask(photos[place])
            channels = channel_of[card.input_mask(mask)]
            self._planes[place, :, :, :3] = card.input_photo(photo)
            self._planes[place, :, :, 3] = channels
            self._areas[place] = card.area_of(*mask.shape)
            self.pixels[place] = np.bincount(channels.ravel(), minlength=256)[: self.pixels.shape[1]]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in track(pool.map(read, range(len(photos))), "decoding", total=len(photos), transient=True):
                pass

    def __len__(self) -> int:
        """Count the photos."""
        return len(self._planes)

    def __getitem__(self, draw: int | Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one photo and its mask, moved together when augmented; what changes them follows from the seed."""
        place, seed = draw if isinstance(draw, tuple) else (draw, 0)
        seen, area = self._seen(place, seed)
        planes = torch.from_numpy(seen)
        photo, mask = planes[..., :3].permute(2, 0, 1), planes[..., 3]
        if self._augment:
            inside = slice(None), *area.inside
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                photo[inside] = self._colors(photo[inside])  # what surrounds photos has one colour in serving as well
                # Around a moved photo there are zeros, so zero has to be what surrounds photos; torchvision's own
                # `fill` draws a dark seam there.
                shifted, mask = self._moves(tv_tensors.Image(photo - self._padding), tv_tensors.Mask(mask))
                photo = (shifted + self._padding).round().to(torch.uint8)
        pixels = normalize(photo.permute(1, 2, 0).numpy(), self.card.mean, self.card.std)
        return torch.from_numpy(pixels), mask.to(torch.int64)

    def _seen(self, place: int, seed: int) -> tuple[np.ndarray, Area]:  # others need the seed
        """Return a photo and its mask, (h, w, 4) uint8 that may be changed, and where it lies in them."""
        return np.array(self._planes[place]), self._areas[place]


class RepeatFactorSampler:
    """Draws photos so that those with rare labels come up more often; an epoch has as many draws as there are photos.

    A photo's weight is √(`repeat` / f) of its rarest label, at least 1, with f the share of photos that show the label:
    repeat factor sampling, Gupta, Dollár, Girshick: "LVIS" (CVPR 2019). With `repeat` 0 every photo comes once. An
    epoch's draws follow from `seed` and the epoch alone, each with a seed of its own: neither a resume nor how far
    ahead photos are loaded changes them. Processes that train together take turns.
    """

    def __init__(self, pixels: np.ndarray, repeat: float, seed: int) -> None:
        shows = pixels[:, 1:] > 0
        rarity = np.sqrt(repeat / np.maximum(shows.mean(0), 1e-9))
        weights = np.where(shows, np.maximum(rarity, 1), 1).max(axis=1, initial=1)
        self.expected = weights / weights.sum() * len(weights)  # (N,) how often each photo comes in an epoch
        self.seed = seed

    def __len__(self) -> int:
        """Count this process's draws of an epoch."""
        return len(self.expected) // processes()[1]

    def draws(self, epoch: int) -> list[Draw]:
        """Return an epoch's draws: every photo as often as expected, rounded by chance, in random order."""
        random = np.random.default_rng((self.seed, epoch))
        shuffled = random.permutation(len(self.expected))
        edges = np.floor(np.cumsum(self.expected[shuffled]) + random.random()).astype(int)
        drawn = np.repeat(shuffled, np.diff(edges, prepend=0))[: len(self.expected)]
        places = random.permutation(drawn).tolist()
        draws = list(zip(places, random.integers(2**63, size=len(places)).tolist(), strict=True))
        rank, together = processes()
        return draws[rank : len(self) * together : together]


class Batches(Sampler[list[Draw]]):
    """Batches of `size` draws without an end, from the step `first` on; what an epoch leaves over is dropped."""

    def __init__(self, order: RepeatFactorSampler, size: int, first: int = 0) -> None:
        self.order, self.size, self.first = order, size, first

    @property
    def per_epoch(self) -> int:
        """Count the batches of an epoch; fewer photos than a batch has are one."""
        return max(1, len(self.order) // self.size)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batch of each step."""
        epoch, place = divmod(self.first, self.per_epoch)
        while True:
            draws = self.order.draws(epoch)
            for start in range(place * self.size, self.per_epoch * self.size, self.size):
                yield draws[start : start + self.size]
            epoch, place = epoch + 1, 0


def processes() -> tuple[int, int]:
    """Return this process's rank among those that train together, and how many they are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _changes_of_color() -> v2.Transform:
    return v2.Compose([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05), v2.RandomGrayscale(0.1)])


def _moves() -> v2.Transform:
    """Flip, turn, move and scale; where there is nothing of a photo any more its colour is 0, and its mask `IGNORE`."""
    affine = v2.RandomAffine(
        degrees=10, translate=(0.08, 0.08), scale=(0.7, 1.4), interpolation=v2.InterpolationMode.BILINEAR,
        fill={tv_tensors.Image: None, tv_tensors.Mask: IGNORE},
    )  # fmt: skip
    return v2.Compose([v2.RandomHorizontalFlip(), affine])
