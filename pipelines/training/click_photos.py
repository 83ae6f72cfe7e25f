"""Photos as the click network sees them in use: whole, or in a window around a garment (see `segmentation.zoom`)."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from pipelines.dataset.dataset import Dataset
from pipelines.params import IGNORE
from pipelines.segmentation.model import ModelCard
from pipelines.segmentation.transforms import Area, resize_image, resize_mask
from pipelines.training.data import Photos

_DETAIL = 2.1  # size at which photos are kept, in those of the network's input: windows show more of them
_WINDOWS = 0.6  # share of the draws that show a window
_MARGIN = 1.15, 2.4  # least and greatest size of a window, in those of its garment
_LEAST = 0.12  # size of the smallest window, in those of the photo
_ASIDE = 0.25  # by which a garment is off the middle, in sizes of the margin


class WindowedPhotos(Photos):
    """Photos at the network's size, as a whole or a window of each, chosen by the draw's seed and then augmented."""

    def __init__(self, dataset: Dataset, photos: Sequence[str], card: ModelCard) -> None:
        self._size = card.height, card.width
        height, width = (32 * round(size * _DETAIL / 32) for size in self._size)
        super().__init__(dataset, photos, replace(card, height=height, width=width), augment=True)

    def _seen(self, place: int, seed: int) -> tuple[np.ndarray, Area]:
        planes, area = self._planes[place], self._areas[place]
        chance = np.random.default_rng(seed)
        top, left, height, width = 0, 0, planes.shape[0], planes.shape[1]
        if chance.random() < _WINDOWS:
            top, left, height, width = _window(planes[..., 3], chance)
        part = planes[top : top + height, left : left + width]
        seen = np.dstack(
            [resize_image(part[..., :3], *self._size), resize_mask(np.ascontiguousarray(part[..., 3]), *self._size)]
        )
        return seen, _scaled(area, (top, left, height, width), self._size)


def _window(mask: np.ndarray, chance: np.random.Generator) -> tuple[int, int, int, int]:
    """Return a window around a garment of a (H, W) uint8 mask of channels: top, left, height, width."""
    rows, columns = mask.shape
    present = np.unique(mask)
    present = present[(present > 0) & (present != IGNORE)]
    if not len(present):
        return 0, 0, rows, columns
    x, y, across, down = cv2.boundingRect((mask == chance.choice(present)).astype(np.uint8))
    size = max(across / columns, down / rows, _LEAST / _MARGIN[0]) * chance.uniform(*_MARGIN)
    if size >= 1:
        return 0, 0, rows, columns
    height, width = round(size * rows), round(size * columns)
    aside = chance.uniform(-_ASIDE, _ASIDE, 2) * (height - down, width - across)
    top = int(np.clip(y + (down - height) / 2 + aside[0], 0, rows - height))
    left = int(np.clip(x + (across - width) / 2 + aside[1], 0, columns - width))
    return top, left, height, width


def _scaled(area: Area, window: tuple[int, int, int, int], size: tuple[int, int]) -> Area:
    """Return where the photo lies in a window, in pixels of its copy of another size."""
    top, left, height, width = window
    first, last = max(area.top - top, 0), min(area.top + area.height - top, height)
    begin, end = max(area.left - left, 0), min(area.left + area.width - left, width)
    down, across = size[0] / height, size[1] / width
    y1, y2, x1, x2 = (
        round(first * down),
        round(max(first, last) * down),
        round(begin * across),
        round(max(begin, end) * across),
    )
    return Area(y1, x1, y2 - y1, x2 - x1)
