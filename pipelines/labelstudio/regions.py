"""Regions of an annotation to index masks: how the mask compiler reads Label Studio's JSON.

Nothing that a person drew becomes background silently. A mask whose label is not known, and a prompt of a smart tool
whose mask is missing, say where something is but not what: their pixels become `IGNORE`, and a note says why.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import AnnotationError
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.controls import BOX, POINT
from pipelines.labelstudio.schema import RegionJson, RegionValue
from pipelines.labelstudio.shapes import bitmask_mask, ellipse_mask, polygon_mask, rectangle_mask
from pipelines.params import IGNORE, Params
from pipelines.photos.copies import is_copy_size, resample_mask
from pipelines.records import Annotation

IMPORTED = "import-"  # prefix of the ids of regions that came with externally labelled photos
POINT_RADIUS = 0.1  # of the photo's long edge: what a click without its mask may have meant
_OF_PIXELS = ("brush", "bitmask")  # shapes that are stored pixel by pixel, at the size on which they were drawn
# By shape: value, height, width and alpha threshold → (height, width) bool.
_READERS: Mapping[str, Callable[[RegionValue, int, int, int], NDArray[np.bool_]]] = {
    "brush": lambda value, height, width, alpha: rle_to_mask(value["rle"], height, width, threshold=alpha),
    "polygon": lambda value, height, width, _: polygon_mask(value, height, width),
    "rectangle": lambda value, height, width, _: rectangle_mask(value, height, width),
    "ellipse": lambda value, height, width, _: ellipse_mask(value, height, width),
    "bitmask": bitmask_mask,
}
_KEYPOINT, _RELATION = "keypoint", "relation"
_ANSWERS = ("choices", "textarea", "rating", "number", "datetime", "taxonomy", "ranker", "pairwise")  # draw nothing
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # JSON of any shape
_LONGEST_LABEL = 60  # characters of a foreign label that a note shows


@dataclass(frozen=True)
class CompiledMask:
    """An index mask, with the origins of its regions and notes on what could not be used."""

    mask: NDArray[np.uint8]  # (H, W), 0 = background, 255 = ignored
    painted: frozenset[int]  # ids of the regions; one that others cover wholly is not in the mask
    origins: Mapping[str, int]  # regions by origin: prediction (untouched), prediction-changed, manual
    overlap_pixels: int
    odd: tuple[str, ...] = ()  # what of the annotation is no mask with a known label, in words, sorted


@dataclass(frozen=True)
class _Parts:
    """The items of an annotation's result by what they are; items that draw nothing are left out."""

    masks: list[tuple[str, RegionJson]]  # with their known labels
    unlabelled: list[tuple[str, RegionJson]]  # masks with another label, or an empty text
    prompts: list[tuple[str, RegionJson]]  # of smart tools, with their labels
    has_lost_relation: bool = False


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
    any other. Brush, polygon, rectangle, ellipse and bitmask regions count. `priority` lists labels from the strongest
    on: an earlier one wins a pixel whatever was drawn last, and labels that it does not name are the weakest.
    Regions that were drawn on a smaller copy of the photo are read at the photo's size: see `photos.copies`.
    What `uncertain_pixels` returns becomes `IGNORE` where no region is painted.
    Raises AnnotationError naming the region when its size is neither the photo's nor that of a copy, or it cannot be
    read, since its place is then unknown; and when nothing but odd parts is there, which does not mean that the photo
    shows no garment.
    """
    mask = np.zeros((height, width), np.uint8)
    origins: dict[str, int] = {}
    painted: set[int] = set()
    drawn: set[str] = set()  # labels with pixels
    painted_pixels, regions = 0, 0
    for label, region, pixels in paint_order(result, region_ids, height, width, alpha_threshold, priority):
        regions += 1
        painted.add(region_ids[label])
        if area := int(np.count_nonzero(pixels)):
            drawn.add(label)
        painted_pixels += area
        np.copyto(mask, region_ids[label], where=pixels)
        origin = str(region.get("origin") or "manual")
        origins[origin] = origins.get(origin, 0) + 1
    overlap = painted_pixels - int(np.count_nonzero(mask))  # a pixel painted three times counts twice
    uncertain, odd = uncertain_pixels(result, region_ids, height, width, alpha_threshold, drawn)
    if odd and not regions:
        raise AnnotationError(f"it holds no mask with a known label, only {', '.join(odd)}; draw the garments again")
    if odd and (unpainted := uncertain & (mask == 0)).any():
        mask[unpainted] = IGNORE
        painted.add(IGNORE)
    return CompiledMask(mask, frozenset(painted), origins, overlap, odd)


def paint_order(
    result: Sequence[RegionJson],
    region_ids: Mapping[str, int],
    height: int,
    width: int,
    alpha_threshold: int,
    priority: Sequence[str] = (),
) -> Iterator[tuple[str, RegionJson, NDArray[np.bool_]]]:
    """Yield label, region and (height, width) bool pixels of each region in the order in which they are painted.

    Arguments and errors are those of `compile_regions`; all sizes are checked before the first region. Parts without a
    known label are left out: `uncertain_pixels` has them.
    """
    strength = {label: len(priority) - rank for rank, label in enumerate(priority)}
    masks = _divide(result, region_ids, height, width).masks
    # The sort is stable: regions of equal strength stay in drawing order.
    for label, region in sorted(masks, key=lambda labelled: strength.get(labelled[0], 0)):
        yield label, region, _read(region, height, width, alpha_threshold)


def uncertain_pixels(
    result: Sequence[RegionJson],
    region_ids: Mapping[str, int],
    height: int,
    width: int,
    alpha_threshold: int,
    drawn: Collection[str],
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return where something is that nobody can name, (height, width) bool, and notes in words, sorted.

    That are masks without a label, or with one that `region_ids` lacks, and prompts of a label that is not among
    `drawn`, the labels of which the annotation has a mask: the box, or a disc around each positive point. Relations
    between regions that are not there are noted alone. Errors are those of `compile_regions`.
    """
    parts = _divide(result, region_ids, height, width)
    uncertain = np.zeros((height, width), bool)
    notes = {"a relation between masks that are not there"} if parts.has_lost_relation else set()
    for label, region in parts.unlabelled:
        notes.add(f"a mask with the unknown label {_shown(label)}" if label else "a mask without a label")
        uncertain |= _read(region, height, width, alpha_threshold)
    for label, region in parts.prompts:
        if label not in drawn:
            uncertain |= _prompted(region, height, width, alpha_threshold)
            what, its = ("points", "their") if _shape(region) == _KEYPOINT else ("a box", "its")
            notes.add(f"{what} of {_shown(label)} without {its} mask" if label else f"{what} without a label")
    return uncertain, tuple(sorted(notes))


def compile_annotation(annotation: Annotation, params: Params) -> CompiledMask:
    """Paint an annotation as the parameters say, regions of the ignore label as `IGNORE`; raises as `compile_regions`.

    The mask is (height, width) of the upright photo.
    """
    image, options = annotation.image, params.compile
    return compile_regions(
        annotation.raw["result"], params.region_ids, image.height, image.width, options.alpha_threshold,
        options.strongest,
    )  # fmt: skip


def region_label(region: RegionJson) -> str:
    """Return the first label of a region or prompt; an empty text when it has none, and for other items."""
    value: Any = None if _shape(region) in _ANSWERS else region.get("value")
    labels = value.get(str(region.get("type"))) if isinstance(value, Mapping) else None
    texts = [str(label) for label in labels if label is not None] if isinstance(labels, list) else []
    return next((text for text in texts if text.strip()), "")


def _divide(result: Sequence[RegionJson], region_ids: Mapping[str, int], height: int, width: int) -> _Parts:
    """Sort the items of a result by what they are, after checking their kind and the sizes of masks."""
    if not isinstance(result, list) or not all(isinstance(region, Mapping) for region in result):
        raise AnnotationError("its result is no list of regions; draw the photo again")
    parts = _Parts([], [], [])
    relations = []
    for region in result:
        shape = _shape(region)
        if shape == _RELATION:
            relations.append(cast(Mapping[str, Any], region))
        elif shape in _ANSWERS:
            continue
        elif shape == _KEYPOINT or region.get("from_name") in (POINT, BOX):
            parts.prompts.append((region_label(region), region))
        else:
            _check(region, height, width)
            label = region_label(region)
            (parts.masks if label in region_ids else parts.unlabelled).append((label, region))
    ids = {str(region.get("id")) for region in result if _shape(region) != _RELATION}
    lost = any(str(relation.get(end)) not in ids for relation in relations for end in ("from_id", "to_id"))
    return _Parts(parts.masks, parts.unlabelled, parts.prompts, lost)


def _shape(region: RegionJson) -> str:
    """Return the type of a region without the word that says that it has labels."""
    return str(region.get("type")).removesuffix("labels")


def _check(region: RegionJson, height: int, width: int) -> None:
    """Raise AnnotationError unless a mask's kind is known and it was drawn on a photo of this size, or on a copy."""
    where = f"region {region.get('id')}"
    if _shape(region) not in _READERS:
        kinds = ", ".join(_READERS)
        raise AnnotationError(
            f"{where} is a {region.get('type')}; only {kinds} regions make masks: redraw it with one of these"
        )
    if not isinstance(region.get("value"), Mapping):
        raise AnnotationError(f"{where} lacks its outline; draw it again")
    try:
        size = _size(region)
    except _MALFORMED as error:
        raise AnnotationError(f"{where} lacks its size ({error!r}); draw it again") from error
    if not is_copy_size(size, (height, width)):
        raise AnnotationError(
            f"{where} was drawn on {size[1]}×{size[0]} pixels, the photo has {width}×{height}: it belongs to another "
            "version of the photo; draw it again"
        )


def _size(region: RegionJson) -> tuple[int, int]:
    return int(region["original_height"]), int(region["original_width"])


def _read(region: RegionJson, height: int, width: int, alpha_threshold: int) -> NDArray[np.bool_]:
    try:
        shape = _shape(region)
        size = _size(region) if shape in _OF_PIXELS else (height, width)
        return resample_mask(_READERS[shape](region["value"], *size, alpha_threshold), height, width)
    except AnnotationError as error:
        raise type(error)(f"region {region.get('id')}: {error}") from error
    except _MALFORMED as error:
        raise AnnotationError(f"region {region.get('id')} lacks its outline ({error!r}); draw it again") from error


def _prompted(region: RegionJson, height: int, width: int, alpha_threshold: int) -> NDArray[np.bool_]:
    """Return what a prompt may have meant, (height, width) bool: its shape, or a disc around a positive point."""
    if _shape(region) != _KEYPOINT:
        return _read(region, height, width, alpha_threshold)
    if not region.get("is_positive", True):
        return np.zeros((height, width), bool)
    radius = 100 * POINT_RADIUS * max(height, width)
    try:
        value = region["value"]
        disc: RegionValue = {
            "x": value["x"], "y": value["y"], "radiusX": radius / width, "radiusY": radius / height,
        }  # fmt: skip
        return ellipse_mask(disc, height, width)
    except _MALFORMED as error:
        raise AnnotationError(f"point {region.get('id')} lacks its place ({error!r}); draw it again") from error


def _shown(label: str) -> str:
    text = " ".join(label.encode(errors="replace").decode().split())
    return text if len(text) <= _LONGEST_LABEL else f"{text[:_LONGEST_LABEL]}…"
