"""What segmenters have in common, and GrabCut as one of them; `choice` says who answers.

The methods are those of `SamPredictor` and `SAM2ImagePredictor`, with one difference: `set_image` returns a predictor
of its own, because a service works on many photos at the same time.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from pipelines.records import PhotoAddress
from pipelines.segmentation.grabcut import GrabCutPredictor, Prior, shrink
from pipelines.segmentation.prompts import PhotoOpener, Prompts
from pipelines.segmentation.single_flight import SingleFlightCache

_PRIOR_TTL_S, _NO_PRIOR_TTL_S = 300.0, 30.0

PriorOf = Callable[[PhotoAddress], Prior]


class ImagePredictor(Protocol):
    """Predicts masks on one photo; everything that does not depend on the prompts is computed already."""

    @property
    def height(self) -> int:
        """Return the upright photo's height in pixels."""

    @property
    def width(self) -> int:
        """Return the upright photo's width in pixels."""

    def predict(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Return a (height, width) bool mask of one clean region and a score 0..1."""


class InteractiveSegmenter(Protocol):
    """A promptable model; `version` is what Label Studio and `maskloop status` show."""

    version: str

    def set_image(self, address: PhotoAddress, open_photo: PhotoOpener, *, use_prior: bool = False) -> ImagePredictor:
        """Return a predictor for a photo; `open_photo` is called only when the photo is not cached.

        Without `use_prior` no clothing model may influence the masks.
        """

    def is_ready(self, address: PhotoAddress) -> bool:
        """Return whether `set_image` has this photo cached and need not open and encode it."""

    def warm_up(self) -> None:
        """Load what the first photo would otherwise wait for."""


class GrabCutSegmenter:
    """GrabCut as an interactive segmenter.

    The last `max_items` photos are cached in memory at the small size that GrabCut works at. `prior_of` returns the
    champion's probabilities of a photo, empty when there are none. They are cached for some minutes, an empty answer
    for a shorter time, because the champion may be new or may have been out of reach.
    """

    version = "grabcut"

    def __init__(self, prior_of: PriorOf = lambda address: {}, max_items: int = 128) -> None:
        self._prior_of, self._predictors = prior_of, SingleFlightCache[GrabCutPredictor](max_items)
        self._priors = SingleFlightCache[Prior](max_items, lambda prior: _PRIOR_TTL_S if prior else _NO_PRIOR_TTL_S)

    def set_image(self, address: PhotoAddress, open_photo: PhotoOpener, *, use_prior: bool = False) -> GrabCutPredictor:
        """Return a predictor for a photo, with the champion's probabilities as prior if asked for."""

        def read() -> GrabCutPredictor:
            with open_photo() as photo:
                return shrink(photo, {})

        predictor = self._predictors.get(address.key, read)
        if not use_prior:
            return predictor
        return replace(predictor, prior=self._priors.get(address.key, lambda: self._prior_of(address)))

    def is_ready(self, address: PhotoAddress) -> bool:
        """Return whether the photo is cached in memory."""
        return address.key in self._predictors

    def warm_up(self) -> None:
        """Do nothing: there is nothing to load."""
