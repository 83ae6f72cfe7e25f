"""What people would do with a model's regions, learnt on photos whose masks no model drew any of.

What people do with a region follows from its IoU with the true mask (`params.effort`): they leave it as it is, correct
it, or delete it. Two logistic models say how likely that is from what the network says of the region;
`pipelines.segmentation.proposals` uses them when photos are pre-labelled.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipelines.params import EffortParams
from pipelines.segmentation.proposals import FEATURES, Proposals, RegionDescription, Seconds

COLUMNS = ("photo", "family", "label", "score", *FEATURES, "iou")  # of a table of regions
Rows = list[dict[str, Any]]


def region_rows(
    photo: str, family: str, descriptions: Sequence[RegionDescription], predicted: np.ndarray, truth: np.ndarray,
) -> Rows:  # fmt: skip
    """Return a row of COLUMNS per described region of one photo.

    `predicted` and `truth` are (H, W) uint8 index masks with the ids of `descriptions`; `predicted` is the mask that
    people would see, specks dropped. Pixels that are `IGNORE` in `truth` count for nothing.
    """
    raise NotImplementedError


def region_table(rows: Rows) -> pd.DataFrame:
    """Return rows of any number of photos as a table, which has its columns even when there is no row."""
    return pd.DataFrame(rows, columns=list(COLUMNS))


def fit_proposals(regions: pd.DataFrame, seconds: Seconds, effort: EffortParams) -> Proposals:
    """Fit the chances of regions on a table of regions (COLUMNS)."""
    raise NotImplementedError


def cross_fitted(regions: pd.DataFrame, seconds: Seconds, effort: EffortParams) -> pd.DataFrame:
    """Return the table with chances `accepted`, `corrected`, `deleted` by models that never saw the row's family."""
    raise NotImplementedError


def savings_by_photo(
    regions: pd.DataFrame, photos: Sequence[str], seconds: Seconds, effort: EffortParams
) -> np.ndarray:
    """Return the seconds that showing what pays saves on each photo, (N,) float64; 0 where nothing is shown.

    `regions` has chances as `cross_fitted` adds them: they decide what is shown, and the IoU what people do with it.
    """
    raise NotImplementedError


def calibration_error(chances: np.ndarray, happened: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error of (N,) chances 0..1 against what happened, (N,) bool: 0 (honest) to 1."""
    raise NotImplementedError


def estimate_seconds(manifest: pd.DataFrame, effort: EffortParams) -> Seconds:
    """Return people's own seconds as a dataset's manifest shows them, shrunk towards those of params.yaml."""
    raise NotImplementedError
