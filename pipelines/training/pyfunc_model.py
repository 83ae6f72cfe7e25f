"""The registered model as MLflow loads it: photos in, index masks out, pre- and post-processing inside."""

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
from mlflow.pyfunc.model import PythonModel

from pipelines.segmentation.clothing import load_model


class GarmentSegmenter(PythonModel):
    """Segments garments; the network comes from weights.safetensors and model.json."""

    def load_context(self, context: Any) -> None:
        """Load the network from the model's own files."""
        self.model = load_model(Path(context.artifacts["network"]))

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Give (N, H, W) uint8 index masks for (N, H, W, 3) uint8 RGB photos."""
        return np.stack([self.model.index_mask(photo) for photo in np.asarray(model_input, dtype=np.uint8)])


mlflow.models.set_model(GarmentSegmenter())
