"""From a network's class probabilities to the masks that people see: one label per garment, no specks, scores."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pipelines.records import RegionScore
from pipelines.segmentation.garments import one_label_per_garment
from pipelines.segmentation.transforms import classes_at_size, mask_size

_MIN_PART = 0.25  # of the largest part in a box; parts of this size belong to it, such as the second shoe
_PINHOLE = 0.002  # of a clicked region; smaller holes are noise of the segmenter


def classes_of_photo(probabilities: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale (C, h, w) float32 class probabilities to the pixels of a (height, width) photo, with one label per garment.

    Returns each pixel's channel, (height, width) uint8, and the probability of that channel alone, (h2, w2) float32, at
    `mask_size`.
    """
    garments = one_label_per_garment(probabilities)
    channel, confidence = classes_at_size(garments, *mask_size(height, width))
    if garments is not probabilities:
        for number in np.unique(channel):
            alone = cv2.resize(probabilities[number], channel.shape[::-1], interpolation=cv2.INTER_LINEAR)
            np.copyto(confidence, alone, where=channel == number)
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
    """Return a copy of a (H, W) uint8 index mask in which all labels but those of `regions` are background."""
    value_of = np.zeros(256, np.uint8)
    for region in regions:
        value_of[region.label_id] = region.label_id
    return value_of[index_mask]


def without_specks(index_mask: np.ndarray, min_pixels: float) -> np.ndarray:
    """Return a (H, W) uint8 index mask without 8-connected parts of one label of fewer than `min_pixels` pixels.

    They become background; holes stay. `index_mask` itself is not changed.
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
    """Return a (H, W) bool mask reduced to the one clean region that answers a click.

    It holds the 8-connected parts under `points` ((x, y) pixels), or the largest part where no point hits one. Without
    points, as for a box alone, parts that are not much smaller stay as well: a pair of shoes has two. Pinholes are
    filled; larger holes stay, and so do those with a `negative` point in them.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count > 2:
        hit = {int(parts[y, x]) for x, y in points} - {0}
        areas = stats[:, cv2.CC_STAT_AREA] * (np.arange(count) > 0)
        selected = areas >= areas.max() * (1 if points else _MIN_PART)
        if hit:
            selected = np.isin(np.arange(count), list(hit))
        mask = selected[parts]
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
    """Return a (h, w) float32 likelihood that exceeds `threshold` on one clean region only; see `clean_region`.

    Cleaning is the slowest step of a click, so it comes before the mask is enlarged to the photo's size. Outlines that
    do not change keep their likelihood, and with it their smoothness.
    """
    mask = likelihood > threshold
    region = clean_region(mask, points, negative)
    cleaned = likelihood.copy()
    cleaned[mask & ~region], cleaned[region & ~mask] = threshold - 1, threshold + 1
    return cleaned
