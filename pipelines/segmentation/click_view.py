"""Photos' pixels and a click network's: where prompts and masks of a window lie in the network's input."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from pipelines.segmentation.click_network import FINE_STRIDE
from pipelines.segmentation.click_prompts import Box, Click, as_shares
from pipelines.segmentation.model import ModelCard
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.transforms import Area


@dataclass(frozen=True)
class View:
    """A window of a photo as a click network sees it."""

    network: ModelCard
    window: Area

    @property
    def input_size(self) -> tuple[int, int]:
        """Return height and width of the network's input."""
        return self.network.height, self.network.width

    @cached_property
    def area(self) -> Area:
        """Return where the window lies in the network's input."""
        return self.network.area_of(self.window.height, self.window.width)

    @property
    def answer(self) -> tuple[slice, slice]:
        """Return where the window lies in the network's answer."""
        bottom, right = self.area.top + self.area.height, self.area.left + self.area.width
        return (
            slice(self.area.top // FINE_STRIDE, -(-bottom // FINE_STRIDE)),
            slice(self.area.left // FINE_STRIDE, -(-right // FINE_STRIDE)),
        )

    def shares(self, mask: np.ndarray) -> np.ndarray:
        """Return a window's (H, W) bool mask as `prompt_planes` takes it."""
        size = self.area.width, self.area.height
        canvas = np.zeros(self.input_size, bool)
        canvas[self.area.inside] = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
        return as_shares(canvas)

    def clicks(self, prompts: Prompts) -> list[Click]:
        """Return the prompts' clicks, in order; those outside of the window lie outside of the input."""
        places = self._at_input(prompts.point_coords) if len(prompts.point_coords) else ()
        return [
            Click(float(x), float(y), bool(positive))
            for (x, y), positive in zip(places, prompts.point_labels, strict=True)
        ]

    def box(self, prompts: Prompts) -> Box | None:
        """Return the prompts' box, if there is one."""
        if prompts.box is None:
            return None
        (x1, y1), (x2, y2) = self._at_input(prompts.box.reshape(2, 2)).tolist()
        return x1, y1, x2, y2

    def _at_input(self, points: np.ndarray) -> np.ndarray:
        """Move (N, 2) points in (x, y) pixels of the photo to pixels of the network's input."""
        scale = np.array([self.area.width / self.window.width, self.area.height / self.window.height])
        return (points - self.window.corner + 0.5) * scale - 0.5 + np.array([self.area.left, self.area.top])
