"""Predictions that hold one wrong region on purpose: how they are drawn, and what became of the region.

The ids of their regions say so, wherever these end up: `planted--<label>` is the wrong one, `gold--<label>` the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.errors import AnnotationError, ContractError
from pipelines.labelstudio.prelabel_diff import compare
from pipelines.labelstudio.render import prediction_json, region_id, version_of_region
from pipelines.records import ImageRef, Prediction

FOUND, MISSED = "found", "missed"
_PLANTED, _GOLD = "planted", "gold"  # where other regions' ids name a model version
_LEFT_ALONE = 0.9  # of the planted pixels: who erases more of them has seen the region


def planted_json(prediction: Prediction, planted: str) -> dict[str, Any]:
    """Render a prediction whose region of the label `planted` is wrong, and whose other regions are right."""
    rendered = prediction_json(prediction)
    for region in rendered["result"]:
        label = str(region["value"]["brushlabels"][0])
        region["id"] = region_id(_PLANTED if label == planted else _GOLD, label)
    return rendered


def is_planted(regions: Iterable[Mapping[str, Any]]) -> bool:
    """Check whether any of these regions is of a prediction that `planted_json` made."""
    return any(_drawn_by(region) in (_PLANTED, _GOLD) for region in regions)


def fate_of_planted(raw: Mapping[str, Any], image: ImageRef) -> str:
    """Return `missed` when the planted region was left as it was, `found` when it was not.

    `raw` is an annotation of an export. Returns an empty text when it did not start from a planted prediction: Label
    Studio keeps a copy of the prediction beside the annotation, and any region that stayed tells by its id.
    """
    proposed = _regions((raw.get("prediction") or {}).get("result")) if raw.get("parent_prediction") else []
    submitted = _regions(raw.get("result"))
    if not is_planted([*proposed, *submitted]):
        return ""
    for region in proposed:
        if _drawn_by(region) == _PLANTED:
            return _fate(region, submitted, image)
    return MISSED if any(_is_untouched(region) for region in submitted) else FOUND


def _fate(planted: Mapping[str, Any], submitted: Sequence[Mapping[str, Any]], image: ImageRef) -> str:
    """Compare by pixels: another region painted over the planted one corrects it as well."""
    try:
        pixels = compare([planted], submitted, image).pixels
        label = str(planted["value"]["brushlabels"][0])
        drawn, _, left = pixels[label]
    except (AnnotationError, ContractError, TypeError, KeyError, AttributeError):  # JSON of any shape
        return MISSED if any(_is_untouched(region) for region in submitted) else FOUND
    return MISSED if left >= _LEFT_ALONE * drawn else FOUND


def _is_untouched(region: Mapping[str, Any]) -> bool:
    return _drawn_by(region) == _PLANTED and region.get("origin") == "prediction"


def _drawn_by(region: Mapping[str, Any]) -> str:
    return version_of_region(str(region.get("id", "")))


def _regions(result: object) -> list[Mapping[str, Any]]:
    return [region for region in result if isinstance(region, Mapping)] if isinstance(result, list) else []
