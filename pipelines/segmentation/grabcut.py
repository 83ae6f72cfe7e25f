"""GrabCut on points and boxes: what answers clicks where no Segment Anything checkpoint can be had.

Rother, Kolmogorov, Blake: «GrabCut – interactive foreground extraction using iterated graph cuts» (2004), as OpenCV
implements it.
"""

import cv2
import numpy as np

from pipelines.segmentation.prompts import Prompts

_LONG_SIDE = 512  # pixels; the cut's time grows with the area, its use hardly
_ITERATIONS = 4
_REACH = 0.3  # a lone point's garment is looked for within this share of the long side
_CORE = 0.035  # what is this near to a point shows the garment's colours; a larger disc often holds other colours too
_DOT = 0.012  # a point vouches for a disc of this share of the long side


def grabcut_mask(image: np.ndarray, prompts: Prompts) -> tuple[np.ndarray, float]:
    """Segment the prompted garment of a (H, W, 3) uint8 RGB photo.

    Gives a (H, W) bool mask and a score 0..1: how clearly colours inside and outside its border differ.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    trimap = _trimap(small.shape[:2], prompts, scale)
    chosen = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if chosen.any() and not chosen.all():  # GrabCut needs samples of both; negative points may cover a small box
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        nowhere = (0, 0, 0, 0)  # the trimap says where to look
        cv2.grabCut(small, trimap, nowhere, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
        chosen = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
    chosen = _keep_prompted_parts(chosen, prompts, scale)
    score = _contrast(small, chosen)
    enlarged = cv2.resize(chosen.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return enlarged > 0.5, score


def _trimap(shape: tuple[int, int], prompts: Prompts, scale: float) -> np.ndarray:
    long_side = max(shape)
    positive = _scaled(prompts.points[prompts.positive], scale)
    trimap = np.full(shape, cv2.GC_BGD, np.uint8)
    if prompts.box is not None:
        x1, y1, x2, y2 = (prompts.box * scale).round().astype(int)
        # Points that say both «this» and «not this» tell the garments in a box apart better than the box itself.
        told_apart = positive and not prompts.positive.all()
        trimap[y1 : y2 + 1, x1 : x2 + 1] = cv2.GC_PR_BGD if told_apart else cv2.GC_PR_FGD
    else:
        for place in positive:
            cv2.circle(trimap, place, round(_REACH * long_side), cv2.GC_PR_BGD, -1)
    for place in positive:
        cv2.circle(trimap, place, round(_CORE * long_side), cv2.GC_PR_FGD, -1)
    for place, is_positive in zip(_scaled(prompts.points, scale), prompts.positive, strict=True):
        value = cv2.GC_FGD if is_positive else cv2.GC_BGD
        cv2.circle(trimap, place, max(1, round(_DOT * long_side)), value, -1)
    return trimap


def _keep_prompted_parts(chosen: np.ndarray, prompts: Prompts, scale: float) -> np.ndarray:
    """Keep the parts under positive points, or the largest part of a box; fill pinholes."""
    chosen = cv2.morphologyEx(chosen.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(chosen, connectivity=8)
    if count <= 1:
        return chosen.astype(bool)
    hit = {int(parts[y, x]) for x, y in _scaled(prompts.points[prompts.positive], scale)} - {0}
    if not hit:
        hit = {1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))}
    return np.isin(parts, list(hit))


def _scaled(points: np.ndarray, scale: float) -> list[tuple[int, int]]:
    return [(int(x * scale), int(y * scale)) for x, y in points]


def _contrast(image: np.ndarray, mask: np.ndarray) -> float:
    binary, kernel = mask.astype(np.uint8), np.ones((9, 9), np.uint8)
    inside = mask & ~cv2.erode(binary, kernel).astype(bool)
    outside = cv2.dilate(binary, kernel).astype(bool) & ~mask
    if not inside.any() or not outside.any():
        return 0.0
    distance = np.linalg.norm(image[inside].mean(axis=0) - image[outside].mean(axis=0))
    return min(1.0, float(distance) / 128)
