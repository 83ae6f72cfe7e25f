"""Which segmenter answers clicks: Segment Anything where a checkpoint can be had, else GrabCut, and it says which."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.errors import ModelError
from pipelines.records import PhotoAddress
from pipelines.segmentation.embeddings import Shelf
from pipelines.segmentation.grabcut import Prior, SmallPhoto, shrink
from pipelines.segmentation.prompts import PhotoOpener, Prompts

logger = logging.getLogger(__name__)

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

    def ready(self, address: PhotoAddress, open_photo: PhotoOpener) -> ReadyPhoto:
        """Give a photo ready for clicks; `open_photo` is called only when it is not yet."""

    def is_ready(self, address: PhotoAddress) -> bool:
        """Tell whether a click on this photo is answered without such preparation."""


class GrabCutSegmenter:
    """GrabCut behind the same interface.

    The last `kept` photos stay in memory at the small size that GrabCut works at, each with what the champion thinks of
    it: `prior_of` is asked once per photo.
    """

    version = "grabcut"

    def __init__(self, prior_of: PriorOf = lambda address: {}, kept: int = 128) -> None:
        self._prior_of, self._kept = prior_of, kept
        self._photos: OrderedDict[str, SmallPhoto] = OrderedDict()
        self._lock = threading.Lock()

    def ready(self, address: PhotoAddress, open_photo: PhotoOpener) -> SmallPhoto:
        """Give the small photo, from memory or by reading the photo."""
        key = address.key
        with self._lock:
            if key in self._photos:
                self._photos.move_to_end(key)
                return self._photos[key]
        with open_photo() as photo:
            small = shrink(photo, self._prior_of(address))
        with self._lock:
            self._photos[key] = small
            while len(self._photos) > self._kept:
                self._photos.popitem(last=False)
        return small

    def is_ready(self, address: PhotoAddress) -> bool:
        """Tell whether the photo is in memory."""
        with self._lock:
            return address.key in self._photos


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
