"""The registered model as MLflow loads it: encoded photos in, masks and regions out, all processing inside.

The modules of this project that it needs are packed under a name of their own (`packing`) and imported when the model
is loaded.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.models
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

if TYPE_CHECKING:
    from pipelines.segmentation.model import ClothingModel

IMAGE, MASK, REGIONS, SCORE = "image", "mask", "regions", "score"  # columns


class GarmentSegmenter(PythonModel):
    """Segments garments with the network of a clothing model's files."""

    def load_context(self, context: Any) -> None:
        """Load the network from the model's own files."""
        from pipelines.segmentation.model import load_model

        self.model = load_model(Path(context.artifacts["network"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return a row per photo.

        `image` holds each photo's file (PNG, JPEG or WebP) as bytes, of any size. `mask` is the index mask as PNG
        bytes, of the size of the upright photo; `regions` is JSON, a list of the labels in it: `label`, `id` (pixel
        value in the mask), `pixels`, `score` (mean probability) and `chance` that a person leaves the region as it is,
        null where that was never measured; `score` is the photo's mean probability. Raises MlflowException for bytes
        that are not a photo.
        """
        rows = [self._row(number, bytes(data)) for number, data in enumerate(model_input[IMAGE])]
        return pd.DataFrame(rows, columns=[MASK, REGIONS, SCORE])

    def _row(self, number: int, data: bytes) -> dict[str, Any]:
        from pipelines.errors import ImageError
        from pipelines.photos.decode import decode_image, encode_png
        from pipelines.segmentation.postprocess import classes_of_photo, score_regions
        from pipelines.segmentation.proposals import describe_regions

        model: ClothingModel = self.model
        try:
            photo = decode_image(data)
        except ImageError as error:
            raise MlflowException.invalid_parameter_value(f"photo {number}: {error}") from error
        probabilities = model.probabilities(photo)
        channel, confidence = classes_of_photo(probabilities, *photo.shape[:2])
        mask = model.card.index_of_channel[channel]
        names = {label_id: name for name, label_id in model.card.labels.items()}
        regions, score = score_regions(mask, confidence, names)
        described = describe_regions(probabilities, mask, model.card) if model.proposals else []
        chances = {region.label_id: model.proposals.chances(region).accepted for region in described if model.proposals}
        rows = [
            {
                "label": region.label, "id": region.label_id, "pixels": int((mask == region.label_id).sum()),
                "score": region.score, "chance": chances.get(region.label_id),
            }
            for region in regions
        ]  # fmt: skip
        return {MASK: encode_png(mask), REGIONS: json.dumps(rows), SCORE: score}


mlflow.models.set_model(GarmentSegmenter())
