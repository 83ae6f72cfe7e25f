"""Which segmenter answers clicks: Segment Anything where a checkpoint can be had, else GrabCut, and it says which."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.errors import ModelError
from pipelines.segmentation.embeddings import Shelf
from pipelines.segmentation.grabcut import grabcut_mask
from pipelines.segmentation.prompts import Prompts

logger = logging.getLogger(__name__)


class InteractiveSegmenter(Protocol):
    """Anything that turns prompts into one mask; `version` is what Label Studio and `maskloop status` show."""

    version: str

    def segment(self, key: str, load: Callable[[], np.ndarray], prompts: Prompts) -> tuple[np.ndarray, float]:
        """Give a (H, W) bool mask and a score 0..1 for the photo that `load` reads and `key` identifies."""

    def embed(self, key: str, load: Callable[[], np.ndarray]) -> object:
        """Do now what the first click on this photo would have to wait for."""

    def is_ready(self, key: str) -> bool:
        """Tell whether a click on this photo is answered without such preparation."""


class GrabCutSegmenter:
    """GrabCut behind the same interface."""

    version = "grabcut"

    def segment(self, key: str, load: Callable[[], np.ndarray], prompts: Prompts) -> tuple[np.ndarray, float]:
        """Segment with colour statistics alone; see `grabcut_mask`."""
        return grabcut_mask(load(), prompts)

    def embed(self, key: str, load: Callable[[], np.ndarray]) -> None:
        """Do nothing: GrabCut starts anew with every click."""

    def is_ready(self, key: str) -> bool:
        """Say yes: there is nothing to prepare."""
        return True


def choose_segmenter(checkpoint: str, folder: Path, shelf: Shelf | None = None) -> tuple[InteractiveSegmenter, str]:
    """Give the segmenter and, when it is the fallback, why.

    An empty `checkpoint` asks for GrabCut. A checkpoint that cannot be had or is damaged is logged and answered by
    GrabCut, so that labelers can go on; a model with random weights is never used.
    """
    if not checkpoint:
        return (
            GrabCutSegmenter(),
            "MASKLOOP_SAM_CHECKPOINT is not set (vit_b, vit_l, vit_h or a path gives Segment Anything)",
        )
    from pipelines.segmentation.sam import load_sam

    try:
        return load_sam(checkpoint, folder, shelf), ""
    except ModelError as error:
        logger.exception("Segment Anything is not available; GrabCut answers instead")
        return GrabCutSegmenter(), str(error)
