"""What became of a pre-label: the prediction that Label Studio keeps beside an annotation, against that annotation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import AnnotationError, ContractError
from pipelines.labelstudio.regions import compile_regions
from pipelines.records import ImageRef, Proposal

_ALPHA = 128  # strokes are antialiased; for a statistic the middle will do


def compare(proposed: Sequence[Mapping[str, Any]], submitted: Sequence[Mapping[str, Any]], image: ImageRef) -> Proposal:
    """Compare the regions of a prediction with those of the annotation that started from it.

    Raises AnnotationError or ContractError when some region cannot be read.
    """
    labels = sorted({label for region in (*proposed, *submitted) for label in _labels(region)})
    if len(labels) > 254:
        raise AnnotationError(f"{image.uri}: regions hold {len(labels)} labels; 254 can be told apart")
    ids = {label: number for number, label in enumerate(labels, start=1)}
    size = len(labels) + 1
    before, after = (
        compile_regions(one, ids, image.height, image.width, _ALPHA).mask.ravel() for one in (proposed, submitted)
    )
    counts = np.bincount(before.astype(np.int32) * size + after, minlength=size * size).reshape(size, size)
    kept = {str(region.get("id")) for region in submitted}
    return Proposal(
        deleted=sum(str(region.get("id")) not in kept for region in proposed),
        pixels={
            label: (int(counts[place].sum()), int(counts[:, place].sum()), int(counts[place, place]))
            for place, label in enumerate(["", *labels])
        },
    )


def proposal_of(raw: Mapping[str, Any], image: ImageRef) -> Proposal | None:
    """Compare an annotation of an export with the prediction beside it; None when that is not the one it started from.

    Neither is it known when a region cannot be read: the mask compiler says so, of the same annotation.
    """
    try:
        return compare(raw["prediction"]["result"], raw["result"], image)
    except (AnnotationError, ContractError, TypeError, KeyError, AttributeError):  # JSON of any shape
        return None


def _labels(region: Mapping[str, Any]) -> Sequence[str]:
    labels = (region.get("value") or {}).get(str(region.get("type")))
    return [str(label) for label in labels[:1]] if isinstance(labels, list) else []
