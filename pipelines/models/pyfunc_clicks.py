"""The registered click model as MLflow loads it: encoded photos and prompts in, masks out, all processing inside.

As in `pyfunc_model`, the modules that it needs are packed under a name of their own and imported when it is loaded.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.models
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

if TYPE_CHECKING:
    from pipelines.segmentation.prompts import Prompts

IMAGE, POINTS, LABEL, BOX, PREVIOUS = "image", "points", "label", "box", "previous"  # columns of the input
MASK, SCORE = "mask", "score"  # and of the output


class PromptedSegmenter(PythonModel):
    """Segments one garment per row with the network of a click model's files."""

    def load_context(self, context: Any) -> None:
        """Load the network from the model's own files."""
        from pipelines.segmentation.click_network import load_clicks
        from pipelines.segmentation.clicks import ClickModel

        self.model: ClickModel = ClickModel(*load_clicks(Path(context.artifacts["network"])), "")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return a row per garment.

        `image` holds the photo's file (PNG, JPEG or WebP) as bytes; `points` is JSON, a list of [x, y, 1 or 0] in
        pixels of the upright photo, 1 on the garment, the newest last; `label` is a label of the model, or empty;
        `box`, JSON [x1, y1, x2, y2], and `previous`, a mask as PNG bytes that is edited, may be left out. `mask` is
        PNG bytes of 0 and 255 at the photo's size, `score` the mean probability inside. Raises MlflowException for
        bytes that are not a photo and prompts that select nothing.
        """
        rows = [self._row(number, row) for number, row in enumerate(model_input.to_dict("records"))]
        return pd.DataFrame(rows, columns=[MASK, SCORE])

    def _row(self, number: int, row: dict[Any, Any]) -> dict[str, Any]:
        from pipelines.errors import DataError
        from pipelines.photos.decode import decode_image, encode_png

        try:
            predictor = self.model.predictor(decode_image(bytes(row[IMAGE])))
            mask, score = predictor.predict(_prompts(row, predictor.height, predictor.width))
        except (DataError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(f"row {number}: {error}") from error
        return {MASK: encode_png((mask * 255).astype("uint8")), SCORE: score}


def _prompts(row: dict[Any, Any], height: int, width: int) -> "Prompts":
    import numpy as np

    from pipelines.photos.decode import decode_image
    from pipelines.segmentation.prompts import Prompts

    points = np.array(json.loads(row[POINTS] or "[]"), np.float32).reshape(-1, 3)
    box, previous = row.get(BOX), row.get(PREVIOUS)
    mask = decode_image(bytes(previous))[..., 0] > 0 if isinstance(previous, bytes | bytearray) and previous else None
    if mask is not None and mask.shape != (height, width):
        raise ValueError(f"the previous mask is {mask.shape[1]}×{mask.shape[0]} pixels, the photo {width}×{height}")
    corners = np.array(json.loads(box), np.float32) if isinstance(box, str) and box else None
    return Prompts(points[:, :2], points[:, 2] > 0, corners, row.get(LABEL) or "", mask, corners is not None)


mlflow.models.set_model(PromptedSegmenter())
