"""GrabCut on points and boxes: what answers clicks where no Segment Anything checkpoint can be had.

Rother, Kolmogorov, Blake: «GrabCut – interactive foreground extraction using iterated graph cuts» (2004), as OpenCV
implements it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.segmentation.postprocess import clean_region
from pipelines.segmentation.prompts import Prompts, pixels_at
from pipelines.segmentation.transforms import mask_at_photo_size

Prior = Mapping[str, np.ndarray]  # by label: the champion's probabilities, (h, w) uint8, 255 = certain

_LONG_SIDE = 512  # pixels; the cut's time grows with the area, its use hardly
_ITERATIONS = 4
_REACH = 0.4  # a lone point's garment is looked for within this share of the long side
_WORTH_BELIEVING = 0.15  # of a box; a champion that sees less than this in it has missed the garment
_RIM = 0.012  # share of the long side by which the cut may move the champion's outline
_UNSEEN = 26  # of 255: below this the champion does not see the label at all
_SURE = 240  # of 255, on average over the part that is clicked
_DOT = 0.028  # a point vouches for a disc of this share of the long side; it shows the garment's colours


@dataclass(frozen=True)
class SmallPhoto:
    """A photo at the size GrabCut works at: `image` is (h, w, 3) uint8 BGR; `height`, `width` are the photo's own."""

    image: np.ndarray
    height: int
    width: int
    prior: Prior

    def segment(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Answer one click.

        Gives a (height, width) bool mask of one clean region and a score 0..1: how clearly colours inside and outside
        its border differ.
        """
        small = self._at_this_size(prompts)
        belief = self._belief(prompts.label)
        trimap = _trimap(self.image.shape[:2], small)
        if belief is not None:
            _believe(trimap, belief, small)
        chosen = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
        if chosen.any() and not chosen.all():  # GrabCut needs samples of both; negative points may cover a small box
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.setRNGSeed(0)
            nowhere = (0, 0, 0, 0)  # the trimap says where to look
            cv2.grabCut(self.image, trimap, nowhere, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
            chosen = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
        closed = cv2.morphologyEx(chosen.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool)
        region = clean_region(closed, small.positive, small.negative)
        mask = mask_at_photo_size(region.astype(np.float32), 0.5, self.height, self.width)
        return mask, _contrast(self.image, region)

    def _at_this_size(self, prompts: Prompts) -> "_SmallPrompts":
        size = self.image.shape[:2]

        def at(points: np.ndarray) -> list[tuple[int, int]]:
            return pixels_at(points, (size[0], size[1]), self.height, self.width)

        corners = None if prompts.box is None else at(prompts.box.reshape(2, 2))
        return _SmallPrompts(at(prompts.points[prompts.positive]), at(prompts.points[~prompts.positive]), corners)

    def _belief(self, label: str) -> np.ndarray | None:
        plane = self.prior.get(label)
        if plane is None:
            return None
        height, width = self.image.shape[:2]
        return cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)


def shrink(photo: np.ndarray, prior: Prior) -> SmallPhoto:
    """Make a (H, W, 3) uint8 RGB photo ready for clicks; `prior` may be empty."""
    height, width = photo.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return SmallPhoto(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), height, width, prior)


@dataclass(frozen=True)
class _SmallPrompts:
    """Prompts in (x, y) pixels of the small photo; `box` is its first and its last corner."""

    positive: list[tuple[int, int]]
    negative: list[tuple[int, int]]
    box: list[tuple[int, int]] | None


def _trimap(shape: tuple[int, int], prompts: _SmallPrompts) -> np.ndarray:
    long_side = max(shape)
    trimap = np.full(shape, cv2.GC_BGD, np.uint8)
    if prompts.box is not None:
        (x1, y1), (x2, y2) = prompts.box
        # Points that say both «this» and «not this» tell the garments in a box apart better than the box itself.
        told_apart = prompts.positive and prompts.negative
        trimap[y1 : y2 + 1, x1 : x2 + 1] = cv2.GC_PR_BGD if told_apart else cv2.GC_PR_FGD
    else:
        for place in prompts.positive:
            cv2.circle(trimap, place, round(_REACH * long_side), cv2.GC_PR_BGD, -1)
    for value, places in ((cv2.GC_FGD, prompts.positive), (cv2.GC_BGD, prompts.negative)):
        for place in places:
            cv2.circle(trimap, place, max(1, round(_DOT * long_side)), value, -1)
    return trimap


def _believe(trimap: np.ndarray, belief: np.ndarray, prompts: _SmallPrompts) -> None:
    """Start the cut from where the champion sees the label too; where it does not, the prompts alone decide.

    `belief` is (h, w) uint8, 255 = certain. What a point says stays as it is. Without a box to hold its outline in
    bounds, a champion in doubt spoils more than it mends and is not asked.
    """
    undecided = ~_dots(trimap.shape, prompts)
    seen = belief > 127
    if prompts.box is not None:
        undecided &= trimap != cv2.GC_BGD
        seen &= undecided
        if np.count_nonzero(seen) < _WORTH_BELIEVING * np.count_nonzero(undecided):
            return
    elif not any(seen[y, x] for x, y in prompts.positive):
        return
    part = clean_region(seen, prompts.positive) if prompts.positive else seen
    if prompts.box is None and belief[part].mean() < _SURE:
        return
    rim = np.ones((3, 3), np.uint8)
    around = cv2.dilate(part.view(np.uint8), rim, iterations=max(1, round(_RIM * max(trimap.shape)))).view(bool)
    trimap[undecided & (trimap == cv2.GC_PR_FGD) & (belief < _UNSEEN)] = cv2.GC_PR_BGD
    trimap[undecided & (trimap == cv2.GC_BGD) & around] = cv2.GC_PR_BGD  # so that the cut may move the outline
    trimap[undecided & part] = cv2.GC_PR_FGD


def _dots(shape: tuple[int, ...], prompts: _SmallPrompts) -> np.ndarray:
    dots = np.zeros(shape, np.uint8)
    for place in (*prompts.positive, *prompts.negative):
        cv2.circle(dots, place, max(1, round(_DOT * max(shape))), 1, -1)
    return dots.view(bool)


def _contrast(image: np.ndarray, mask: np.ndarray) -> float:
    binary, kernel = mask.astype(np.uint8), np.ones((9, 9), np.uint8)
    inside = mask & ~cv2.erode(binary, kernel).astype(bool)
    outside = cv2.dilate(binary, kernel).astype(bool) & ~mask
    if not inside.any() or not outside.any():
        return 0.0
    distance = np.linalg.norm(image[inside].mean(axis=0) - image[outside].mean(axis=0))
    return min(1.0, float(distance) / 128)
