"""From a model's class map to the regions that people see: specks dropped, holes kept, scores that mean something."""

from collections.abc import Mapping

import cv2
import numpy as np

from pipelines.records import RegionMask


def regions_from_classes(
    index_mask: np.ndarray, confidence: np.ndarray, label_names: Mapping[int, str], min_region_share: float
) -> tuple[RegionMask, ...]:
    """Cut a (H, W) uint8 index mask into one region per label, in id order.

    Connected parts smaller than `min_region_share` of the photo are specks and dropped; holes stay. A region's score
    is the mean of `confidence` ((H, W) float32, probability of the winning class) over its pixels: 0..1.
    """
    least = min_region_share * index_mask.size
    regions = []
    for label_id, name in sorted(label_names.items()):
        binary = index_mask == label_id
        if binary.any():
            mask = without_specks(binary, least)
            if mask.any():
                regions.append(RegionMask(name, mask, float(confidence[mask].mean())))
    return tuple(regions)


def without_specks(mask: np.ndarray, min_pixels: float) -> np.ndarray:
    """Drop 8-connected parts of a (H, W) bool mask that have fewer than `min_pixels` pixels."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2 and mask.sum() >= min_pixels:
        return mask
    keep = stats[:, cv2.CC_STAT_AREA] >= max(min_pixels, 1)
    keep[0] = False
    return keep[parts]


def image_score(index_mask: np.ndarray, confidence: np.ndarray) -> float:
    """Score a whole photo: mean confidence over the garment pixels, or over all pixels when there is no garment."""
    garment = index_mask > 0
    return float(confidence[garment].mean() if garment.any() else confidence.mean())


def label_map(regions: tuple[RegionMask, ...], label_ids: Mapping[str, int], height: int, width: int) -> np.ndarray:
    """Paint regions into one (height, width) uint8 index mask; later regions win."""
    index_mask = np.zeros((height, width), np.uint8)
    for region in regions:
        index_mask[region.mask] = label_ids[region.label]
    return index_mask
