"""Instances of a photo: which region of its annotation each pixel of its mask belongs to.

A mask says what a pixel is, and the annotation's regions say which: two shoes drawn as two regions are two instances.
A region that another one divides stays one instance. All instances together are the mask, whatever regions say.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS
from pipelines.dataset.records import parse_annotation_json
from pipelines.errors import AnnotationError, DatasetError
from pipelines.labelstudio.regions import paint_order, region_label
from pipelines.params import IGNORE, Params
from pipelines.records import Annotation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instances:
    """The instances of one photo.

    `numbers` is (height, width) int32: 0 where the mask is background or ignored, else an instance's number from 1 on;
    `label_ids` holds the label of each instance, in the order of the numbers.
    """

    numbers: np.ndarray
    label_ids: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield label id and (height, width) bool mask of each instance that has pixels."""
        for number, label_id in enumerate(self.label_ids, start=1):
            mask = self.numbers == number
            if mask.any():
                yield label_id, mask


def find_annotation(dataset: Dataset, row: Mapping[str, Any]) -> Annotation | None:
    """Return the newest annotation that made a photo's mask, by its row of the manifest; None when it cannot be read.

    Versions of an older layout have a file per annotation.
    """
    uuid = str(row["annotations"][-1]) if len(row["annotations"]) else ""
    older = dataset.path(ANNOTATIONS) / f"{uuid}.json"
    try:
        if older.exists():
            return parse_annotation_json(older.read_bytes(), str(older))
        of_photo = dataset.annotations.of_photos({str(row["sha256"])})
        return next((annotation for annotation in of_photo if annotation.uuid == uuid), None)
    except DatasetError as error:
        logger.warning("%s", error)
        return None


def find_instances(mask: np.ndarray, annotation: Annotation | None, params: Params) -> Instances | None:
    """Divide a (H, W) uint8 index mask by the annotation's regions; return None when these cannot be read.

    Pixels that no region of their label covers, as where several people's masks were merged, go to the instance of the
    label that they touch most, or are an instance for each connected part.
    """
    if annotation is None:
        return None
    try:
        numbers, label_ids = _regions(mask, annotation, params)
    except (AnnotationError, LookupError, TypeError, AttributeError) as error:
        logger.warning("%s: the regions of its annotation cannot be read: %s", annotation.image.uri, error)
        return None
    return _completed(mask, numbers, label_ids)


def parts_as_instances(mask: np.ndarray) -> Instances:
    """Return each connected part of a label as an instance."""
    return _completed(mask, np.zeros(mask.shape, np.int32), [])


def _regions(mask: np.ndarray, annotation: Annotation, params: Params) -> tuple[np.ndarray, list[int]]:
    """Return the number of the region that was painted last on each pixel, where the mask agrees, and their labels."""
    result, (height, width) = annotation.raw["result"], mask.shape
    # Whatever name a label had when the region was drawn, the mask shows its id.
    names = {label: 0 for region in result if (label := region_label(region))}
    painted = np.zeros(mask.shape, np.int32)
    labels = []
    options = params.compile
    for label, _, pixels in paint_order(result, names, height, width, options.alpha_threshold, options.strongest):
        labels.append(label)
        painted[pixels] = len(labels)
    numbers, label_ids = np.zeros_like(painted), []
    for number, label in enumerate(labels, start=1):
        visible = painted == number
        label_id = _label_id(mask[visible], label, params)
        if label_id:
            label_ids.append(label_id)
            numbers[visible & (mask == label_id)] = len(label_ids)
    return numbers, label_ids


def _label_id(values: np.ndarray, label: str, params: Params) -> int:
    """Return the label id of a region, given the mask's values in it; 0 when it has no pixels of any."""
    counts = np.bincount(values, minlength=256)
    counts[[0, IGNORE]] = 0
    known = params.label_ids.get(label, 0)
    if counts[known] or label == params.ignore.name:
        return known
    return int(counts.argmax())


def _completed(mask: np.ndarray, numbers: np.ndarray, label_ids: list[int]) -> Instances:
    """Return instances in which pixels without a number belong to the instance they touch most, or to a new one."""
    labels = [*label_ids]
    for label_id in np.unique(mask[(mask != 0) & (mask != IGNORE) & (numbers == 0)]).tolist():
        of_label = np.where(mask == label_id, numbers, 0)
        count, parts = cv2.connectedComponents(((mask == label_id) & (numbers == 0)).astype(np.uint8), connectivity=8)
        for part in range(1, count):
            pixels = parts == part
            around = cv2.dilate(pixels.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            touched = of_label[around & (of_label > 0)]
            if not touched.size:
                labels.append(int(label_id))
            numbers[pixels] = np.bincount(touched).argmax() if touched.size else len(labels)
    return Instances(numbers, tuple(labels))
