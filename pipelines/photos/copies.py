"""Smaller copies of large photos, on which people draw, and masks between such a copy and its photo.

A copy shows the whole photo at fewer pixels: pixel i of a row of w pixels covers the photo's columns from i·W/w to
(i + 1)·W/w. A pixel of a mask takes the value of the pixel in which its centre lies, computed in whole numbers.
"""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)


def copy_size(height: int, width: int, megapixels: float) -> tuple[int, int]:
    """Return height and width of a photo's copy of at most `megapixels`, in pixels.

    That is the photo's own size when it has no more pixels, and when `megapixels` is 0.
    """
    if not exceeds(height, width, megapixels):
        return height, width
    factor = math.sqrt(megapixels * 1e6 / (height * width))
    return max(1, math.floor(height * factor)), max(1, math.floor(width * factor))


def exceeds(height: int, width: int, megapixels: float) -> bool:
    """Return whether a photo has more than `megapixels`; 0 is no limit."""
    return megapixels > 0 and height * width > megapixels * 1e6


def is_copy_size(size: tuple[int, int], photo: tuple[int, int]) -> bool:
    """Return whether `size` is a photo's own, or that of a smaller copy: same shape up to a pixel; (height, width)."""
    (height, width), (photo_height, photo_width) = size, photo
    if size == photo:
        return True
    # Copies are smaller in both directions, unless there is but one pixel in one.
    smaller = all(0 < own < whole or own == whole == 1 for own, whole in zip(size, photo, strict=True))
    return smaller and abs(width * photo_height - height * photo_width) < max(photo)


def resample_mask(mask: NDArray[Value], height: int, width: int) -> NDArray[Value]:
    """Return a (H, W) mask at (height, width): each pixel takes the value at its centre.

    Enlarging a mask and reducing it again gives the same mask.
    """
    if mask.shape == (height, width):
        return mask
    rows, columns = _nearest(mask.shape[0], height), _nearest(mask.shape[1], width)
    if height < mask.shape[0]:
        return mask.take(rows, axis=0).take(columns, axis=1)
    return mask.take(columns, axis=1).take(rows, axis=0)


def _nearest(count: int, wanted: int) -> NDArray[np.int64]:
    """Return for each of `wanted` pixels of a line which of its `count` pixels holds the centre."""
    return (2 * np.arange(wanted) + 1) * count // (2 * wanted)
