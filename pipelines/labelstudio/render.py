"""Records to Label Studio's JSON: brush regions and predictions, as the editor draws them and both services answer."""

import re

from pipelines.labelstudio.brush_rle import label_map_to_rles, mask_to_rle
from pipelines.labelstudio.controls import BRUSH, IMAGE
from pipelines.labelstudio.schema import PredictionJson, RegionJson
from pipelines.records import Prediction, RegionMask

_UNSAFE = re.compile("[^A-Za-z0-9-]")  # characters that the editor might not accept in an id


def prediction_json(prediction: Prediction) -> PredictionJson:
    """Render a prediction as Label Studio's JSON: brush regions with scores, and the model version."""
    rles = label_map_to_rles(prediction.mask, [region.label_id for region in prediction.regions])
    height, width = prediction.mask.shape
    regions = [
        _region(
            region_id(prediction.model_version, region.label), region.label, rles[region.label_id], region.score,
            height, width,
        )
        for region in prediction.regions
    ]  # fmt: skip
    return {"result": regions, "score": prediction.score, "model_version": prediction.model_version}


def region_id(model_version: str, label: str) -> str:
    """Return an id for a predicted region that names its model wherever it ends up; see `version_of_region`."""
    return f"{re.sub(_UNSAFE, lambda sign: f'_{ord(sign[0]):02x}', model_version)}--{re.sub(_UNSAFE, '-', label)}"


def version_of_region(region_id: str) -> str:
    """Return the model version that a region's id names; an empty text for regions that people drew."""
    version, _, label = region_id.partition("--")
    return re.sub("_([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), version) if label else ""


def region_json(region: RegionMask, region_id: str) -> RegionJson:
    """Render one region as a brush region."""
    height, width = region.mask.shape
    return _region(region_id, region.label, mask_to_rle(region.mask), region.score, height, width)


def _region(region_id: str, label: str, rle: list[int], score: float, height: int, width: int) -> RegionJson:
    return {
        "id": region_id,
        "from_name": BRUSH,
        "to_name": IMAGE,
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": rle, "brushlabels": [label]},
        "score": round(score, 4),
    }
