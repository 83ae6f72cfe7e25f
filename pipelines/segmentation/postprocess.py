"""From a network's class probabilities to what people see: specks dropped, holes kept, scores that mean something."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pipelines.records import RegionScore
from pipelines.segmentation.transforms import classes_at_size, decided_size

_PART = 0.25  # of a box's largest part; parts of this size belong to what was boxed, such as the second shoe
_PINHOLE = 0.002  # a hole smaller than this share of a clicked region is the segmenter's noise


def classes_of_photo(probabilities: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Bring (C, h, w) float32 class probabilities back to the pixels of a (height, width) photo.

    Gives the most probable channel per pixel, (height, width) uint8, and its probability, (h2, w2) float32, at
    `decided_size`.
    """
    channel, confidence = classes_at_size(probabilities, *decided_size(height, width))
    if channel.shape != (height, width):
        channel = cv2.resize(channel, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return channel, confidence


def score_regions(
    index_mask: np.ndarray, confidence: np.ndarray, label_names: Mapping[int, str]
) -> tuple[tuple[RegionScore, ...], float]:
    """Score the labels of a (H, W) uint8 index mask, in id order, and the photo.

    `confidence` is float32 0..1 at the mask's size or a smaller one. A label's score is the mean over its pixels; the
    photo's is the mean over all garment pixels, or over all pixels where there is no garment.
    """
    if confidence.shape != index_mask.shape:
        index_mask = cv2.resize(index_mask, confidence.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    flat = index_mask.ravel().astype(np.intp)  # what is counted below, twice
    pixels = np.bincount(flat, minlength=256)
    sums = np.bincount(flat, weights=confidence.ravel(), minlength=256)
    regions = tuple(
        RegionScore(name, label_id, float(sums[label_id] / pixels[label_id]))
        for label_id, name in sorted(label_names.items())
        if pixels[label_id]
    )
    garment = slice(1, None) if pixels[1:].any() else slice(None)
    return regions, float(sums[garment].sum() / pixels[garment].sum())


def only_regions(index_mask: np.ndarray, regions: Sequence[RegionScore]) -> np.ndarray:
    """Turn all labels of a (H, W) uint8 index mask but these regions' into background; gives a new mask."""
    kept = np.zeros(256, np.uint8)
    for region in regions:
        kept[region.label_id] = region.label_id
    return kept[index_mask]


def without_specks(index_mask: np.ndarray, min_pixels: float) -> np.ndarray:
    """Turn 8-connected parts of one label with fewer than `min_pixels` pixels into background; holes stay.

    `index_mask` is (H, W) uint8 and is not changed.
    """
    cleaned = index_mask
    for label_id in np.flatnonzero(np.bincount(index_mask.ravel(), minlength=256)):
        if label_id == 0:
            continue
        binary = (index_mask == label_id).view(np.uint8)
        x, y, width, height = cv2.boundingRect(binary)
        box = np.s_[y : y + height, x : x + width]
        _, parts, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(binary[box]), connectivity=8)
        small = stats[:, cv2.CC_STAT_AREA] < min_pixels
        small[0] = False
        if small.any():
            cleaned = index_mask.copy() if cleaned is index_mask else cleaned
            cleaned[box][small[parts]] = 0
    return cleaned


def clean_region(
    mask: np.ndarray, points: Sequence[tuple[int, int]], negative: Sequence[tuple[int, int]] = ()
) -> np.ndarray:
    """Make one clean region of a (H, W) bool mask that answers a click.

    Keeps the 8-connected parts under `points` ((x, y) pixels), or the largest part where no point hits one. Without
    points, which is what a box gives, parts that are not much smaller stay as well: a pair of shoes is two. Pinholes
    are filled; holes that somebody would see stay, and so do those that a `negative` point asked for.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count > 2:
        hit = {int(parts[y, x]) for x, y in points} - {0}
        areas = stats[:, cv2.CC_STAT_AREA] * (np.arange(count) > 0)
        kept = areas >= areas.max() * (1 if points else _PART)
        if hit:
            kept = np.isin(np.arange(count), list(hit))
        mask = kept[parts]
    elif count < 2:
        return mask
    _, gaps, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    tiny = stats[:, cv2.CC_STAT_AREA] < _PINHOLE * np.count_nonzero(mask)
    tiny[0] = False
    tiny[[gaps[y, x] for x, y in negative]] = False
    for number in np.flatnonzero(tiny):
        left, top, width, height = stats[number, : cv2.CC_STAT_AREA]
        at_border = left == 0 or top == 0 or left + width == mask.shape[1] or top + height == mask.shape[0]
        tiny[number] = not at_border
    return mask | tiny[gaps] if tiny.any() else mask


def clean_likelihood(
    likelihood: np.ndarray, threshold: float, points: Sequence[tuple[int, int]], negative: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Change a (h, w) float32 likelihood so that what exceeds `threshold` is one clean region; see `clean_region`.

    Cleaning costs more than anything else a click does, so it is done before a mask is enlarged to the photo's size;
    outlines that are right keep their likelihood, and with it their smoothness.
    """
    mask = likelihood > threshold
    region = clean_region(mask, points, negative)
    cleaned = likelihood.copy()
    cleaned[mask & ~region], cleaned[region & ~mask] = threshold - 1, threshold + 1
    return cleaned
