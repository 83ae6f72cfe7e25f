"""The figure being drawn: the record from which every part of it is painted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.demo.photos.canvas import Canvas, Cloth
from pipelines.demo.photos.figure import Pose
from pipelines.demo.photos.geometry import Point, mirrored, smooth
from pipelines.demo.photos.outfits import Outfit


@dataclass(frozen=True)
class DressedFigure:
    """A figure on a canvas: its pose, its outfit, the cloth of each label, skin and hair."""

    canvas: Canvas
    pose: Pose
    outfit: Outfit
    cloths: dict[str, Cloth]
    skin: Cloth
    hair: Cloth
    hair_style: str
    rng: np.random.Generator

    def wears(self, *labels: str) -> bool:
        """Return whether any of the labels is part of the outfit."""
        return any(label in self.outfit.worn for label in labels)

    def bent(self, points: Sequence[Point] | np.ndarray) -> np.ndarray:
        """Map points of the upright body onto the posed one; return (N, 2)."""
        return self.pose.bend(np.asarray(points, dtype=np.float64))

    def trunk(self, half: Sequence[Point], rounds: int = 2) -> np.ndarray:
        """Mirror a right half, round it and map it onto the posed body; return (N, 2)."""
        return self.bent(smooth(mirrored(half), rounds))
