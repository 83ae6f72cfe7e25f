"""Regions of an annotation to index masks: how the mask compiler reads Label Studio's JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import AnnotationError, ContractError
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.controls import BOX, POINT
from pipelines.labelstudio.schema import RegionJson, RegionValue
from pipelines.labelstudio.shapes import bitmask_mask, ellipse_mask, polygon_mask, rectangle_mask
from pipelines.params import Params
from pipelines.records import Annotation

IMPORTED = "import-"  # prefix of the ids of regions that came with externally labelled photos
# By region type: value, height, width and alpha threshold → (height, width) bool.
_READERS: Mapping[str, Callable[[RegionValue, int, int, int], NDArray[np.bool_]]] = {
    "brushlabels": lambda value, height, width, alpha: rle_to_mask(value["rle"], height, width, threshold=alpha),
    "polygonlabels": lambda value, height, width, _: polygon_mask(value, height, width),
    "rectanglelabels": lambda value, height, width, _: rectangle_mask(value, height, width),
    "ellipselabels": lambda value, height, width, _: ellipse_mask(value, height, width),
    "bitmasklabels": bitmask_mask,
}


@dataclass(frozen=True)
class CompiledMask:
    """An index mask, with the origins of its regions."""

    mask: NDArray[np.uint8]  # (H, W), 0 = background, 255 = ignored
    painted: frozenset[int]  # ids of the regions; one that others cover wholly is not in the mask
    origins: Mapping[str, int]  # regions by origin: prediction (untouched), prediction-changed, manual
    overlap_pixels: int


def compile_regions(
    result: Sequence[RegionJson],
    region_ids: Mapping[str, int],
    height: int,
    width: int,
    alpha_threshold: int,
    priority: Sequence[str] = (),
) -> CompiledMask:
    """Paint the regions of one annotation in drawing order; the region painted last wins a pixel.

    `region_ids` maps the labels that regions may carry to pixel values; the ignore label is one of them, painted like
    any other. Brush, polygon, rectangle, ellipse and bitmask regions count; prompts of the smart tools do not.
    `priority` lists labels from the strongest on: an earlier one wins a pixel whatever was drawn last, and labels that
    it does not name are the weakest.
    Raises AnnotationError naming the region when its size is not the photo's or it cannot be read, and ContractError
    when params.yaml does not know its label: then no photo with that label could be trusted.
    """
    mask = np.zeros((height, width), np.uint8)
    origins: dict[str, int] = {}
    painted: set[int] = set()
    painted_pixels = 0
    for label, region, pixels in paint_order(result, region_ids, height, width, alpha_threshold, priority):
        painted.add(region_ids[label])
        painted_pixels += int(np.count_nonzero(pixels))
        np.copyto(mask, region_ids[label], where=pixels)
        origin = str(region.get("origin") or "manual")
        origins[origin] = origins.get(origin, 0) + 1
    overlap = painted_pixels - int(np.count_nonzero(mask))  # a pixel painted three times counts twice
    return CompiledMask(mask, frozenset(painted), origins, overlap)


def paint_order(
    result: Sequence[RegionJson],
    region_ids: Mapping[str, int],
    height: int,
    width: int,
    alpha_threshold: int,
    priority: Sequence[str] = (),
) -> Iterator[tuple[str, RegionJson, NDArray[np.bool_]]]:
    """Yield label, region and (height, width) bool pixels of each region in the order in which they are painted.

    Arguments and errors are those of `compile_regions`; all labels and sizes are checked before the first region.
    """
    strength = {label: len(priority) - rank for rank, label in enumerate(priority)}
    drawn = [(_label(region, region_ids, height, width), region) for region in result if not _is_prompt(region)]
    # The sort is stable: regions of equal strength stay in drawing order.
    for label, region in sorted(drawn, key=lambda labelled: strength.get(labelled[0], 0)):
        yield label, region, _read(region, height, width, alpha_threshold)


def compile_annotation(annotation: Annotation, params: Params) -> CompiledMask:
    """Paint an annotation as the parameters say, regions of the ignore label as `IGNORE`; raises as `compile_regions`.

    The mask is (height, width) of the upright photo.
    """
    image, options = annotation.image, params.compile
    return compile_regions(
        annotation.raw["result"], params.region_ids, image.height, image.width, options.alpha_threshold,
        options.strongest,
    )  # fmt: skip


def _is_prompt(region: RegionJson) -> bool:
    return region.get("type") == "keypointlabels" or region.get("from_name") in (POINT, BOX)


def _label(region: RegionJson, region_ids: Mapping[str, int], height: int, width: int) -> str:
    """Return the region's label after checking its kind, label and size."""
    where, kind = f"region {region.get('id')}", region.get("type")
    if kind not in _READERS:
        kinds = ", ".join(name.removesuffix("labels") for name in _READERS)
        raise AnnotationError(f"{where} is a {kind}; only {kinds} regions make masks: redraw it with one of these")
    try:
        label = str(cast(Mapping[str, Any], region["value"])[kind][0])
        size = int(region["original_height"]), int(region["original_width"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise AnnotationError(f"{where} lacks label or size ({error!r}); draw it again") from error
    if label not in region_ids:
        raise ContractError(
            f"{where} has the label {label!r}, unknown to params.yaml; add it to `labels` or relabel the region"
        )
    if size != (height, width):
        raise AnnotationError(
            f"{where} was drawn on {size[1]}×{size[0]} pixels, the photo has {width}×{height}: it belongs to another "
            "version of the photo; draw it again"
        )
    return label


def _read(region: RegionJson, height: int, width: int, alpha_threshold: int) -> NDArray[np.bool_]:
    try:
        return _READERS[region["type"]](region["value"], height, width, alpha_threshold)
    except AnnotationError as error:
        raise type(error)(f"region {region.get('id')}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(f"region {region.get('id')} lacks its outline ({error!r}); draw it again") from error
