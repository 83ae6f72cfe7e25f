"""How MLflow loads each kind of model: its code, what goes in and what comes out."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipelines.models.pyfunc_clicks import BOX, POINTS, PREVIOUS
from pipelines.models.pyfunc_clicks import LABEL as PICKED
from pipelines.models.pyfunc_model import IMAGE, MASK, REGIONS, SCORE
from pipelines.photos.decode import encode_png
from pipelines.segmentation.model import load_card

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


@dataclass(frozen=True)
class Entry:
    """The file of a model's code in this package, its signature, an example of its input, and its labels."""

    code: str
    signature: "Callable[[], ModelSignature]"
    example: Callable[[np.ndarray], pd.DataFrame]
    labels: Callable[[Path], dict[str, int]]


def _clothing_signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("binary", IMAGE)]),
        outputs=Schema([ColSpec("binary", MASK), ColSpec("string", REGIONS), ColSpec("double", SCORE)]),
    )


def _click_signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("binary", IMAGE), ColSpec("string", POINTS), ColSpec("string", PICKED),
                ColSpec("string", BOX, required=False), ColSpec("binary", PREVIOUS, required=False),
            ]
        ),
        outputs=Schema([ColSpec("binary", MASK), ColSpec("double", SCORE)]),
    )  # fmt: skip


def _click_example(photo: np.ndarray) -> pd.DataFrame:
    middle = [[photo.shape[1] // 2, photo.shape[0] // 2, 1]]
    return pd.DataFrame({IMAGE: [encode_png(photo)], POINTS: [json.dumps(middle)], PICKED: [""]})


def _click_labels(network: Path) -> dict[str, int]:
    from pipelines.segmentation.click_network import load_card as load_click_card

    return dict(load_click_card(network).labels)


CLOTHING_ENTRY = Entry(
    "pyfunc_model.py", _clothing_signature, lambda photo: pd.DataFrame({IMAGE: [encode_png(photo)]}),
    lambda network: dict(load_card(network).labels),
)  # fmt: skip
CLICK_ENTRY = Entry("pyfunc_clicks.py", _click_signature, _click_example, _click_labels)
