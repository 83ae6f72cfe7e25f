"""Usage of a pre-label: an annotation compared with the copy of its prediction that Label Studio keeps beside it."""

from collections.abc import Sequence

import numpy as np

from pipelines.errors import AnnotationError
from pipelines.labelstudio.regions import compile_regions, region_label
from pipelines.labelstudio.schema import AnnotationJson, RegionJson
from pipelines.params import IGNORE
from pipelines.records import ImageRef, Proposal

_ALPHA_THRESHOLD = 128  # strokes have soft edges; for a statistic the middle will do
_MAX_LABELS = 254  # 0 is the background and 255 is IGNORE


def compare(
    proposed: Sequence[RegionJson], submitted: Sequence[RegionJson], image: ImageRef, ignore_label: str | None
) -> Proposal:
    """Compare the regions of a prediction with those of the annotation that started from it, at the photo's size.

    Both may have been drawn on a smaller copy of the photo: a region that nobody touched is equal at any size.
    Pixels of regions with the label `ignore_label` count for no label and not as background: nobody could say whether
    the prediction was right there. Neither do pixels of which an annotation says that something is there, but not what.
    With None, every label counts. Raises AnnotationError as `compile_regions` does.
    """
    labels = sorted({region_label(region) for region in (*proposed, *submitted)} - {ignore_label, ""})
    if len(labels) > _MAX_LABELS:
        raise AnnotationError(f"{image.uri}: regions hold {len(labels)} labels; at most {_MAX_LABELS} can be compared")
    ids = {label: number for number, label in enumerate(labels, start=1)}
    if ignore_label is not None:
        ids[ignore_label] = IGNORE
    before, after = (
        compile_regions(regions, ids, image.height, image.width, _ALPHA_THRESHOLD).mask.ravel()
        for regions in (proposed, submitted)
    )
    judged = (before != IGNORE) & (after != IGNORE)
    before, after = before[judged], after[judged]
    size = len(labels) + 1
    counts = np.bincount(before.astype(np.int32) * size + after, minlength=size * size).reshape(size, size)
    kept = {str(region.get("id")) for region in submitted}
    return Proposal(
        deleted=sum(str(region.get("id")) not in kept for region in proposed),
        pixels={
            label: (int(counts[number].sum()), int(counts[:, number].sum()), int(counts[number, number]))
            for number, label in enumerate(["", *labels])
        },
    )


def proposal_of(raw: AnnotationJson, image: ImageRef, ignore_label: str) -> Proposal | None:
    """Compare an exported annotation with the prediction beside it, as `compare` does.

    Returns None when a region of either cannot be read; the mask compiler reports the annotation's own regions.
    """
    prediction = raw.get("prediction")
    if prediction is None:
        return None
    try:
        return compare(prediction["result"], raw["result"], image, ignore_label)
    except (AnnotationError, TypeError, KeyError, AttributeError):  # JSON of any shape
        return None
