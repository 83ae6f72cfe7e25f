"""What a labeler points at: points and boxes, in pixels of the upright photo."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from pipelines.errors import PromptError

PhotoOpener = Callable[[], AbstractContextManager[np.ndarray]]  # opens a (H, W, 3) uint8 RGB photo, upright


def already_open(photo: np.ndarray) -> PhotoOpener:
    """Return an opener of a photo that is in memory: (H, W, 3) uint8 RGB, upright."""
    return lambda: nullcontext(photo)


@dataclass(frozen=True)
class Prompts:
    """Points and at most one box for one garment; the names are those of Segment Anything's predictors.

    `point_coords` is (N, 2) float32 in (x, y) pixel order; `point_labels` is (N,) bool, True for points on the garment
    and False for points on what does not belong to it; `box` is (4,) float32 as x1, y1, x2, y2 with x1 < x2 and
    y1 < y2, or None. `label` names the garment. `mask` is the (H, W) bool mask that is edited, or None for a new one;
    then the last point is the newest, unless `redraws`, with which the box stands for the whole garment again. With
    `from_clicks` these points made the mask from nothing, so that all of it may change.
    """

    point_coords: np.ndarray
    point_labels: np.ndarray
    box: np.ndarray | None
    label: str
    mask: np.ndarray | None = None
    redraws: bool = False
    from_clicks: bool = False

    def __post_init__(self) -> None:
        """Raise PromptError for prompts that select nothing."""
        edits = self.mask is not None and len(self.point_coords) > 0
        if self.box is None and not self.point_labels.any() and not edits:
            raise PromptError("no positive point and no box: click inside the garment or draw a box around it")

    @property
    def positive(self) -> np.ndarray:
        """Return the points on the garment: (P, 2) float32 in (x, y) pixels."""
        return self.point_coords[self.point_labels]

    @property
    def negative(self) -> np.ndarray:
        """Return the points on what does not belong to the garment: (N - P, 2) float32 in (x, y) pixels."""
        return self.point_coords[~self.point_labels]


def pixels_at(points: np.ndarray, size: tuple[int, int], height: int, width: int) -> list[tuple[int, int]]:
    """Scale (N, 2) points in (x, y) pixels of a (height, width) photo to whole pixels of a copy of another size.

    `size` is the copy's (h, w); points at the border stay inside.
    """
    scaled = points * np.array([size[1] / width, size[0] / height])
    inside = np.clip(scaled, 0, np.array([size[1] - 1, size[0] - 1])).astype(int)
    return [(int(x), int(y)) for x, y in inside]


def to_pixels(x_percent: float, y_percent: float, height: int, width: int) -> tuple[float, float]:
    """Convert percent of the photo (0..100) to pixel coordinates, clipped to the photo.

    Raises PromptError for NaN and infinity, which JSON readers let through.
    """
    if not np.isfinite([x_percent, y_percent]).all():
        raise PromptError(f"({x_percent}, {y_percent}) is no place on the photo")
    return (
        float(np.clip(x_percent / 100 * width, 0, width - 1)),
        float(np.clip(y_percent / 100 * height, 0, height - 1)),
    )
