"""GrabCut on points and boxes, which answers clicks where no Segment Anything checkpoint can be had.

Rother, Kolmogorov, Blake, "GrabCut: interactive foreground extraction using iterated graph cuts" (2004), as OpenCV
implements it. Where the champion's probabilities of a label are given, they are the prior that the cut starts from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.segmentation.editing import edit_mask
from pipelines.segmentation.postprocess import clean_region
from pipelines.segmentation.prompts import Prompts, pixels_at
from pipelines.segmentation.transforms import mask_at_photo_size

Prior = Mapping[str, np.ndarray]  # by label: the champion's probabilities, (h, w) uint8, 255 = certain

_LONG_SIDE = 512  # pixels; a larger copy takes longer and gives hardly better masks
_ITERATIONS = 4
# Shares of the long side.
_SEARCH_RADIUS = 0.4  # around a point without a box, within which its garment is searched
_POINT_RADIUS = 0.028  # of the disc around a point that surely has the point's label; it shows the garment's colours
_BORDER_WIDTH = 0.012  # by which the cut may move the prior's outline
# Probabilities, as uint8 of 255.
_IN_PRIOR = 127  # above this a pixel belongs to the prior's region
_MIN_PROBABILITY = 26  # below this a pixel is probably not of the label
_MIN_MEAN_PROBABILITY = 240  # of the clicked part, without a box: an uncertain prior is ignored
_MIN_PRIOR_COVERAGE = 0.15  # of a box: a prior that covers less of it has missed the garment and is ignored


@dataclass(frozen=True)
class GrabCutPredictor:
    """Predicts masks on one photo: `image` is a small copy, (h, w, 3) uint8 BGR; the size is the photo's own."""

    image: np.ndarray
    height: int
    width: int
    prior: Prior

    def predict(self, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Return a (height, width) bool mask of one clean region and a score 0..1.

        The score says how clearly colours inside and outside the region's border differ. With a mask to edit, only what
        is near the newest point changes.
        """
        if prompts.mask is not None and not prompts.redraws:
            return self._edit(prompts.mask, prompts)
        small = self._scaled(prompts)
        probability = self._prior_of(prompts.label)
        trimap = _trimap(self.image.shape[:2], small)
        if probability is not None:
            _apply_prior(trimap, probability, small)
        foreground = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
        if (
            foreground.any() and not foreground.all()
        ):  # GrabCut needs samples of both; negative points may cover a small box
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.setRNGSeed(0)
            no_rectangle = (0, 0, 0, 0)  # with GC_INIT_WITH_MASK only the trimap counts
            cv2.grabCut(self.image, trimap, no_rectangle, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
            foreground = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
        closed = cv2.morphologyEx(foreground.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool)
        region = clean_region(closed, small.positive, small.negative)
        mask = mask_at_photo_size(region.astype(np.float32), 0.5, self.height, self.width)
        return mask, _contrast(self.image, region)

    def _edit(self, mask: np.ndarray, prompts: Prompts) -> tuple[np.ndarray, float]:
        """Return the (height, width) bool mask after the newest point; pixels that did not change stay exactly."""
        height, width = self.image.shape[:2]
        small = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA).astype(bool)
        [point] = pixels_at(prompts.point_coords[-1:], (height, width), self.height, self.width)
        edited = edit_mask(self.image, small, point, positive=bool(prompts.point_labels[-1]))
        changed = mask_at_photo_size((edited != small).astype(np.float32), 0.5, self.height, self.width)
        is_garment = mask_at_photo_size(edited.astype(np.float32), 0.5, self.height, self.width)
        return np.where(changed, is_garment, mask), _contrast(self.image, edited)

    def _scaled(self, prompts: Prompts) -> "_SmallPrompts":
        size = self.image.shape[:2]

        def scale(points: np.ndarray) -> list[tuple[int, int]]:
            return pixels_at(points, (size[0], size[1]), self.height, self.width)

        corners = None if prompts.box is None else scale(prompts.box.reshape(2, 2))
        return _SmallPrompts(scale(prompts.positive), scale(prompts.negative), corners)

    def _prior_of(self, label: str) -> np.ndarray | None:
        """Return the label's probabilities at the small copy's size: (h, w) uint8, 255 = certain."""
        plane = self.prior.get(label)
        if plane is None:
            return None
        height, width = self.image.shape[:2]
        return cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)


def shrink(photo: np.ndarray, prior: Prior) -> GrabCutPredictor:
    """Return a predictor for a (H, W, 3) uint8 RGB photo; `prior` may be empty."""
    height, width = photo.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return GrabCutPredictor(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), height, width, prior)


@dataclass(frozen=True)
class _SmallPrompts:
    """Prompts in (x, y) pixels of the small copy; `box` holds the upper left and the lower right corner."""

    positive: list[tuple[int, int]]
    negative: list[tuple[int, int]]
    box: list[tuple[int, int]] | None


def _trimap(shape: tuple[int, int], prompts: _SmallPrompts) -> np.ndarray:
    """Return what the prompts say of each pixel: (h, w) uint8 of OpenCV's four classes."""
    long_side = max(shape)
    trimap = np.full(shape, cv2.GC_BGD, np.uint8)
    if prompts.box is not None:
        (x1, y1), (x2, y2) = prompts.box
        # Positive and negative points together tell the garments in a box apart better than the box itself.
        has_both = prompts.positive and prompts.negative
        trimap[y1 : y2 + 1, x1 : x2 + 1] = cv2.GC_PR_BGD if has_both else cv2.GC_PR_FGD
    else:
        for point in prompts.positive:
            cv2.circle(trimap, point, round(_SEARCH_RADIUS * long_side), cv2.GC_PR_BGD, -1)
    for value, points in ((cv2.GC_FGD, prompts.positive), (cv2.GC_BGD, prompts.negative)):
        for point in points:
            cv2.circle(trimap, point, max(1, round(_POINT_RADIUS * long_side)), value, -1)
    return trimap


def _apply_prior(trimap: np.ndarray, probability: np.ndarray, prompts: _SmallPrompts) -> None:
    """Mark the region of the prior in the trimap as probable foreground, which the cut starts from.

    `probability` is (h, w) uint8, 255 = certain. Pixels around points keep their class. The prior is ignored where it
    covers too little of a box, does not hold a point, or is uncertain and no box bounds its outline.
    """
    free = ~_point_discs(trimap.shape, prompts)
    region = probability > _IN_PRIOR
    if prompts.box is not None:
        free &= trimap != cv2.GC_BGD
        region &= free
        if np.count_nonzero(region) < _MIN_PRIOR_COVERAGE * np.count_nonzero(free):
            return
    elif not any(region[y, x] for x, y in prompts.positive):
        return
    part = clean_region(region, prompts.positive) if prompts.positive else region
    if prompts.box is None and probability[part].mean() < _MIN_MEAN_PROBABILITY:
        return
    steps = max(1, round(_BORDER_WIDTH * max(trimap.shape)))
    around = cv2.dilate(part.view(np.uint8), np.ones((3, 3), np.uint8), iterations=steps).view(bool)
    trimap[free & (trimap == cv2.GC_PR_FGD) & (probability < _MIN_PROBABILITY)] = cv2.GC_PR_BGD
    trimap[free & (trimap == cv2.GC_BGD) & around] = cv2.GC_PR_BGD  # so that the cut may move the outline
    trimap[free & part] = cv2.GC_PR_FGD


def _point_discs(shape: tuple[int, ...], prompts: _SmallPrompts) -> np.ndarray:
    discs = np.zeros(shape, np.uint8)
    for point in (*prompts.positive, *prompts.negative):
        cv2.circle(discs, point, max(1, round(_POINT_RADIUS * max(shape))), 1, -1)
    return discs.view(bool)


def _contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Return how much the mean colours on the two sides of a mask's border differ: 0..1."""
    binary, kernel = mask.astype(np.uint8), np.ones((9, 9), np.uint8)
    inside = mask & ~cv2.erode(binary, kernel).astype(bool)
    outside = cv2.dilate(binary, kernel).astype(bool) & ~mask
    if not inside.any() or not outside.any():
        return 0.0
    distance = np.linalg.norm(image[inside].mean(axis=0) - image[outside].mean(axis=0))
    return min(1.0, float(distance) / 128)
