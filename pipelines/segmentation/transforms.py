"""Pre-processing and its inverse, used by training, evaluation and serving alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

BACKGROUND = 0
# Masks of larger photos are computed at this many pixels and enlarged: a network sees far fewer, and memory stays
# within bounds.
_MAX_MASK_PIXELS = 16_000_000


@dataclass(frozen=True)
class Area:
    """A rectangle of pixels, such as where a photo lies in a network's input: its corner and its size."""

    top: int
    left: int
    height: int
    width: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Return the rows and the columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @property
    def corner(self) -> np.ndarray:
        """Return the upper left corner: (2,) as x, y."""
        return np.array([self.left, self.top])


def fitting_area(height: int, width: int, input_height: int, input_width: int) -> Area:
    """Return the largest area in the middle of the input that has the aspect ratio of a (height, width) photo."""
    scale = min(input_height / height, input_width / width)
    rows = min(input_height, max(1, round(height * scale)))
    columns = min(input_width, max(1, round(width * scale)))
    return Area((input_height - rows) // 2, (input_width - columns) // 2, rows, columns)


def use_single_threaded_opencv() -> None:
    """Make OpenCV run on its caller's thread: threads of its own slow down a process that has many photos in work."""
    cv2.setNumThreads(1)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a (H, W, 3) uint8 RGB photo to (height, width) pixels, whatever its aspect ratio."""
    shrinks = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a (H, W) uint8 index mask; every output pixel holds a value of the input."""
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def normalize(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Turn (h, w, 3) uint8 RGB into (3, h, w) float32: (x / 255 − mean) / std per channel."""
    values = np.arange(256, dtype=np.float32)[:, None] / 255
    normalized = (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)  # per value, not per pixel
    return np.stack([normalized[:, channel].take(image[..., channel]) for channel in range(3)])


def classes_at_size(probabilities: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge class probabilities and return the most probable class of each pixel.

    `probabilities` is (C, h, w) float32 in 0..1. Returns the most probable channel per pixel, (height, width) uint8,
    and its probability, (height, width) float32. One channel is enlarged at a time, so that memory is a few photo-sized
    planes however many classes there are.
    """
    best = np.full((height, width), -1, np.float32)
    channel = np.zeros((height, width), np.uint8)
    for number, plane in enumerate(probabilities):
        if number != BACKGROUND and plane.max() < 1 / len(probabilities):
            continue  # cannot win anywhere: some other class is at least this probable
        enlarged = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
        np.copyto(channel, np.uint8(number), where=enlarged > best)
        np.maximum(best, enlarged, out=best)
    return channel, best


def mask_size(height: int, width: int) -> tuple[int, int]:
    """Return the size at which masks are computed: the photo's own, or at most 16 megapixels of the same shape."""
    shrink = min(1.0, (_MAX_MASK_PIXELS / (height * width)) ** 0.5)
    return max(1, int(height * shrink)), max(1, int(width * shrink))


def mask_at_photo_size(likelihood: np.ndarray, threshold: float, height: int, width: int) -> np.ndarray:
    """Enlarge a (h, w) float32 likelihood to a (height, width) bool mask of where it exceeds `threshold`."""
    computed = mask_size(height, width)
    mask = cv2.resize(likelihood, computed[::-1], interpolation=cv2.INTER_LINEAR) > threshold
    if computed == (height, width):
        return mask
    return cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT).view(bool)
