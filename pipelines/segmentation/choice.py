"""Which segmenter answers which kind of prompt: the one that needed the fewest clicks when it was measured.

Measured are those that are there, on photos of the archive's own whose masks no model drew any part of
(`pipelines.training.clicks_gate`). Before that Segment Anything answers where it is loaded, a learned model where there
is one, and GrabCut otherwise.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.records import PhotoAddress
from pipelines.segmentation.interactive import GrabCutSegmenter, ImagePredictor, InteractiveSegmenter
from pipelines.segmentation.prompts import PhotoOpener, Prompts

logger = logging.getLogger(__name__)
POINT, BOX, EDIT = "point", "box", "edit"  # kinds of prompts: clicks that make a mask, a box, clicks on a mask
KINDS = (POINT, BOX, EDIT)
SAM, TUNED_SAM, LEARNED, GRABCUT = "sam", "tuned_sam", "clicks", "grabcut"
_UNMEASURED = (SAM, LEARNED, GRABCUT)  # the first of these that is there answers what was never measured

Found = Callable[[], InteractiveSegmenter | None]


def kind_of(prompts: Prompts) -> str:
    """Return the kind of prompts: `edit` for clicks on a mask, `box` for a box, `point` otherwise."""
    if prompts.mask is not None and not prompts.redraws:
        return EDIT
    return POINT if prompts.box is None else BOX


def parse_answers(text: str) -> dict[str, str]:
    """Return by kind of prompts which segmenter was measured best, from a click model's tag; unknown is left out."""
    try:
        fields: Any = json.loads(text or "{}")
    except ValueError:
        logger.warning("which segmenter answers best cannot be read: %s", text)
        return {}
    if not isinstance(fields, dict):
        return {}
    known = (*_UNMEASURED, TUNED_SAM)
    return {kind: str(name) for kind, name in fields.items() if kind in KINDS and name in known}


def describe_measures(text: str) -> str:
    """Return in a line what the segmenters were measured at, from the same tag; empty where that is not known."""
    try:
        measured = json.loads(text or "{}")["measured"]
        return "clicks to an IoU of 0.85: " + ", ".join(f"{name} {float(noc):.1f}" for name, noc in measured.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


class ChosenSegmenter:
    """The segmenters that are there, each for the prompts that it answers best.

    `learned`, `sam` and `tuned_sam` return a segmenter once it is loaded, and None before; `answers` returns the
    measured choice, as `parse_answers` does.
    """

    def __init__(
        self, grabcut: GrabCutSegmenter, learned: Found, sam: Found, tuned_sam: Found,
        answers: Callable[[], Mapping[str, str]],
    ) -> None:  # fmt: skip
        self._found: dict[str, Found] = {SAM: sam, TUNED_SAM: tuned_sam, LEARNED: learned, GRABCUT: lambda: grabcut}
        self._answers = answers

    @property
    def version(self) -> str:
        """Return the versions of those that answer, such as `clicks:v3`, joined by `+`."""
        return "+".join(dict.fromkeys(self.by_kind.values()))

    @property
    def by_kind(self) -> dict[str, str]:
        """Return the version that answers each kind of prompts."""
        return {kind: self.segmenter(kind).version for kind in KINDS}

    def segmenter(self, kind: str) -> InteractiveSegmenter:
        """Return the segmenter that answers a kind of prompts."""
        names = (*filter(None, (self._answers().get(kind),)), *_UNMEASURED)
        return next(segmenter for name in names if (segmenter := self._found[name]()))

    def set_image(
        self, address: PhotoAddress, open_photo: PhotoOpener, *, use_prior: bool = False
    ) -> "ChosenPredictor":
        """Return a predictor for a photo, which is opened and encoded for each segmenter when it first answers."""
        segmenters = {kind: self.segmenter(kind) for kind in KINDS}

        def predictor_for(kind: str) -> ImagePredictor:
            return segmenters[kind].set_image(address, open_photo, use_prior=use_prior)

        return ChosenPredictor(predictor_for, predictor_for(POINT))

    def is_ready(self, address: PhotoAddress) -> bool:
        """Return whether no click on this photo has to wait until it is encoded."""
        return all(segmenter.is_ready(address) for segmenter in self._in_use())

    def prepare(self, address: PhotoAddress, open_photo: PhotoOpener) -> None:
        """Encode a photo for all segmenters that may be asked, before the first click."""
        for segmenter in self._in_use():
            segmenter.set_image(address, open_photo)

    def warm_up(self) -> None:
        """Do nothing: segmenters that are there are warm."""

    def _in_use(self) -> list[InteractiveSegmenter]:
        return list({id(segmenter): segmenter for segmenter in map(self.segmenter, KINDS)}.values())


@dataclass(frozen=True)
class ChosenPredictor:
    """Predicts masks on one photo, each with the segmenter for its kind of prompts."""

    predictor_for: Callable[[str], ImagePredictor]
    for_points: ImagePredictor

    @property
    def height(self) -> int:
        """Return the upright photo's height in pixels."""
        return self.for_points.height

    @property
    def width(self) -> int:
        """Return the upright photo's width in pixels."""
        return self.for_points.width

    def predict(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Return a (height, width) bool mask and a score 0..1."""
        kind = kind_of(prompts)
        predictor = self.for_points if kind == POINT else self.predictor_for(kind)
        return predictor.predict(prompts)
