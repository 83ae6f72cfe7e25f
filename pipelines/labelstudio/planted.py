"""Predictions that hold one wrong region on purpose: how they are drawn, and whether people notice the region.

The ids of their regions mark them wherever they end up: `planted--<label>` is the wrong one, `gold--<label>` the
others.
"""

from collections.abc import Iterable, Sequence
from typing import cast

from pipelines.errors import AnnotationError
from pipelines.labelstudio.predictions import AT_RANDOM, with_reason
from pipelines.labelstudio.prelabel_diff import compare
from pipelines.labelstudio.render import prediction_json, region_id, version_of_region
from pipelines.labelstudio.schema import AnnotationJson, PredictionJson, RegionJson
from pipelines.records import ImageRef, Prediction

FOUND, MISSED = "found", "missed"
_PLANTED, _GOLD = "planted", "gold"  # where other regions' ids name a model version
_LEFT_ALONE = 0.9  # share of the planted pixels; whoever erases more of them has seen the region


def planted_json(prediction: Prediction, planted: str) -> PredictionJson:
    """Render a prediction whose region of the label `planted` is wrong, and whose other regions are right.

    It says that its photo was chosen at random, as many others do.
    """
    rendered = prediction_json(prediction)
    for region in rendered["result"]:
        label = region["value"]["brushlabels"][0]
        region["id"] = region_id(_PLANTED if label == planted else _GOLD, label)
    return with_reason(rendered, AT_RANDOM)


def is_planted(regions: Iterable[RegionJson]) -> bool:
    """Check whether any of these regions is of a prediction that `planted_json` made."""
    return any(_drawn_by(region) in (_PLANTED, _GOLD) for region in regions)


def outcome_of_planted(raw: AnnotationJson, image: ImageRef) -> str:
    """Return `missed` when the planted region was left as it was, `found` when it was not.

    `raw` is an annotation of an export. Returns an empty text when it did not start from a planted prediction: Label
    Studio keeps a copy of the prediction beside the annotation, and any region that stayed is marked by its id.
    """
    prediction = raw.get("prediction") if raw.get("parent_prediction") else None
    proposed = _regions(prediction.get("result")) if prediction else []
    submitted = _regions(raw.get("result"))
    if not is_planted([*proposed, *submitted]):
        return ""
    for region in proposed:
        if _drawn_by(region) == _PLANTED:
            return _outcome(region, submitted, image)
    return MISSED if any(_is_untouched(region) for region in submitted) else FOUND


def _outcome(planted: RegionJson, submitted: Sequence[RegionJson], image: ImageRef) -> str:
    """Compare by pixels: another region painted over the planted one, the ignore label's too, corrects it as well."""
    try:
        pixels = compare([planted], submitted, image, ignore_label=None).pixels
        drawn, _, left = pixels[planted["value"]["brushlabels"][0]]
    except (AnnotationError, TypeError, KeyError, AttributeError):  # JSON of any shape
        return MISSED if any(_is_untouched(region) for region in submitted) else FOUND
    return MISSED if left >= _LEFT_ALONE * drawn else FOUND


def _is_untouched(region: RegionJson) -> bool:
    return _drawn_by(region) == _PLANTED and region.get("origin") == "prediction"


def _drawn_by(region: RegionJson) -> str:
    return version_of_region(str(region.get("id", "")))


def _regions(result: object) -> list[RegionJson]:
    """Return the items of `result` that are JSON objects."""
    items = result if isinstance(result, list) else []
    return [cast(RegionJson, item) for item in items if isinstance(item, dict)]
