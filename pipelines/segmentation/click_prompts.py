"""Prompts as planes over the features' grid, the same in training and in use."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.segmentation.click_network import FINE_STRIDE, PROMPT_PLANES, STRIDE

_NEAR, _NEWEST, _WIDE = 1.5, 3.0, 8.0  # standard deviations around clicks, in pixels of the grid


@dataclass(frozen=True)
class Click:
    """A click at (x, y) pixels of the network's input; `positive` ones lie on the garment."""

    x: float
    y: float
    positive: bool


Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the network's input


def prompt_planes(
    size: tuple[int, int], clicks: Sequence[Click], box: Box | None, mask: np.ndarray | None
) -> np.ndarray:
    """Return the planes that `ClickNetwork.decode` takes: (13, h/4, w/4) float32 for an input of `size` (h, w).

    `clicks` are in order, the newest last. `mask` is the mask that is there already, as shares 0..1 of its pixels:
    (h/2, w/2) float32, or None. Planes 0 to 3 lie around positive and negative clicks, near and wide, 4 and 5 around
    the newest click, 6 and 7 hold the box and whether there is one, 8 to 11 the mask at twice the grid's resolution,
    12 whether there is one.
    """
    height, width = size[0] // STRIDE, size[1] // STRIDE
    planes = np.zeros((PROMPT_PLANES, height, width), np.float32)
    for click in clicks:
        for first, spread in ((0, _NEAR), (2, _WIDE)):
            plane = planes[first + (not click.positive)]
            np.maximum(plane, _around(click, spread, height, width), out=plane)
    if clicks:
        planes[4 + (not clicks[-1].positive)] = _around(clicks[-1], _NEWEST, height, width)
    if box is not None:
        x1, y1, x2, y2 = (round(value / STRIDE) for value in box)
        planes[6, max(0, y1) : max(y2, y1 + 1), max(0, x1) : max(x2, x1 + 1)] = 1
        planes[7] = 1
    if mask is not None:
        planes[8:12] = mask.reshape(height, 2, width, 2).transpose(1, 3, 0, 2).reshape(4, height, width)
        planes[12] = 1
    return planes


def as_shares(mask: np.ndarray) -> np.ndarray:
    """Return a (h, w) bool mask of the network's input as shares of pixels: (h/2, w/2) float32."""
    size = mask.shape[1] // FINE_STRIDE, mask.shape[0] // FINE_STRIDE
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def _around(click: Click, spread: float, height: int, width: int) -> np.ndarray:
    """Return a Gaussian around a click: (height, width) float32, 1 at its place."""
    x, y = (click.x + 0.5) / STRIDE - 0.5, (click.y + 0.5) / STRIDE - 0.5
    rows = np.exp(-((np.arange(height, dtype=np.float32) - y) ** 2) / (2 * spread**2))
    columns = np.exp(-((np.arange(width, dtype=np.float32) - x) ** 2) / (2 * spread**2))
    return np.outer(rows, columns)
