"""Regions of an annotation to index masks: the mask compiler's reading of Label Studio's JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import AnnotationError, ContractError
from pipelines.labelstudio.brush import rle_to_mask

_SMART = ("keypointlabels", "rectanglelabels")  # prompts for the interactive service, never labels


@dataclass(frozen=True)
class CompiledMask:
    """An index mask with how its regions came to be."""

    mask: np.ndarray  # (H, W) uint8, 0 = background
    origins: Mapping[str, int]  # regions by origin: prediction (untouched), prediction-changed, manual
    overlap_pixels: int


def compile_regions(
    result: list[Mapping[str, Any]], label_ids: Mapping[str, int], height: int, width: int, alpha_threshold: int
) -> CompiledMask:
    """Paint the brush regions of one annotation in drawing order; the region drawn last wins a pixel.

    Raises AnnotationError naming the region when its size is not the photo's or its stroke cannot be decoded, and
    ContractError when params.yaml does not know its label: then no photo with that label could be trusted.
    """
    mask = np.zeros((height, width), np.uint8)
    origins: dict[str, int] = {}
    overlap = 0
    for region in result:
        if region.get("type") in _SMART:
            continue
        label, drawn = _read_brush(region, label_ids, height, width, alpha_threshold)
        overlap += int(np.count_nonzero(mask[drawn]))
        mask[drawn] = label_ids[label]
        origin = str(region.get("origin") or "manual")
        origins[origin] = origins.get(origin, 0) + 1
    return CompiledMask(mask, origins, overlap)


def _read_brush(
    region: Mapping[str, Any], label_ids: Mapping[str, int], height: int, width: int, threshold: int
) -> tuple[str, np.ndarray]:
    where = f"region {region.get('id')}"
    if region.get("type") != "brushlabels":
        raise AnnotationError(
            f"{where} is a {region.get('type')}; only brush regions make masks: redraw it with the brush"
        )
    try:
        label = str(region["value"]["brushlabels"][0])
        rle = region["value"]["rle"]
        size = int(region["original_height"]), int(region["original_width"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AnnotationError(f"{where} lacks label, stroke or size ({error!r}); draw it again") from error
    if label not in label_ids:
        raise ContractError(
            f"{where} has the label {label!r}, unknown to params.yaml; add it to `labels` or relabel the region"
        )
    if size != (height, width):
        raise AnnotationError(
            f"{where} was drawn on {size[1]}×{size[0]} pixels, the photo has {width}×{height}: it belongs to another "
            "version of the photo; draw it again"
        )
    return label, rle_to_mask(rle, height, width, threshold=threshold)
