"""Which segmenter answers clicks: Segment Anything where a checkpoint can be had, else GrabCut, and it says which."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.errors import ModelError
from pipelines.records import PhotoAddress
from pipelines.segmentation.embeddings import Shelf
from pipelines.segmentation.grabcut import Prior, SmallPhoto, shrink
from pipelines.segmentation.prompts import PhotoOpener, Prompts
from pipelines.segmentation.single_flight import Kept

logger = logging.getLogger(__name__)

_PRIOR_S, _SILENCE_S = 300.0, 30.0

PriorOf = Callable[[PhotoAddress], Prior]


class ReadyPhoto(Protocol):
    """A photo for which everything was done that does not depend on the click; sizes are upright, in pixels."""

    @property
    def height(self) -> int:
        """Give the photo's height."""

    @property
    def width(self) -> int:
        """Give the photo's width."""

    def segment(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Give a (height, width) bool mask of one clean region and a score 0..1."""


class InteractiveSegmenter(Protocol):
    """Anything that turns prompts into one mask; `version` is what Label Studio and `maskloop status` show."""

    version: str

    def ready(self, address: PhotoAddress, open_photo: PhotoOpener, *, ask_champion: bool = False) -> ReadyPhoto:
        """Give a photo ready for clicks; `open_photo` is called only when it is not yet.

        Without `ask_champion` no clothing model may have a say in what a click gives.
        """

    def is_ready(self, address: PhotoAddress) -> bool:
        """Tell whether a click on this photo is answered without such preparation."""

    def warm_up(self) -> None:
        """Load what the first photo would have to wait for."""


class GrabCutSegmenter:
    """GrabCut behind the same interface.

    The last `kept` photos stay in memory at the small size that GrabCut works at. What the champion thinks of a photo,
    which `prior_of` tells where that may count, is asked again when it is older than a few minutes, or soon when
    nothing was told: the champion may be new, or may have been out of reach.
    """

    version = "grabcut"

    def __init__(self, prior_of: PriorOf = lambda address: {}, kept: int = 128) -> None:
        self._prior_of, self._photos = prior_of, Kept[SmallPhoto](kept)
        self._priors = Kept[Prior](kept, lambda prior: _PRIOR_S if prior else _SILENCE_S)

    def ready(self, address: PhotoAddress, open_photo: PhotoOpener, *, ask_champion: bool = False) -> SmallPhoto:
        """Give the small photo, from memory or by reading the photo, with the champion's opinion if asked for."""

        def read() -> SmallPhoto:
            with open_photo() as photo:
                return shrink(photo, {})

        small = self._photos.get(address.key, read)
        if not ask_champion:
            return small
        return replace(small, prior=self._priors.get(address.key, lambda: self._prior_of(address)))

    def is_ready(self, address: PhotoAddress) -> bool:
        """Tell whether the photo is in memory."""
        return address.key in self._photos

    def warm_up(self) -> None:
        """Do nothing: there is nothing to load."""


def choose_segmenter(
    checkpoint: str, folder: Path, shelf: Shelf | None = None, prior_of: PriorOf = lambda address: {}
) -> tuple[InteractiveSegmenter, str]:
    """Give the segmenter and, when it is the fallback, why.

    An empty `checkpoint` asks for GrabCut. A checkpoint that cannot be had or is damaged is logged and answered by
    GrabCut, so that labelers can go on; a model with random weights is never used. `prior_of` is for GrabCut alone.
    """
    if not checkpoint:
        return (
            GrabCutSegmenter(prior_of),
            "MASKLOOP_SAM_CHECKPOINT is not set (vit_b, vit_l, vit_h or a path gives Segment Anything)",
        )
    from pipelines.segmentation.sam import load_sam

    try:
        return load_sam(checkpoint, folder, shelf), ""
    except ModelError as error:
        logger.exception("Segment Anything is not available; GrabCut answers instead")
        return GrabCutSegmenter(prior_of), str(error)
