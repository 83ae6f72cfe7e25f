"""Simulated labelers: where they click next, which boxes they draw, and which masks they begin with.

A click falls on the largest part that is wrong, as in all benchmarks since Xu et al., "Deep interactive object
selection" (2016): in its middle, or as people do, somewhere in it and more often near the middle (RClicks, Antonov et
al., 2024).
"""

from typing import Literal

import cv2
import numpy as np

Aim = Literal["centre", "jittered", "human"]
_JITTER = 0.25  # of the distance from the middle to the outline of the wrong part
_BOX_JITTER = 0.06  # of a box's width and height


def next_click(
    mask: np.ndarray, truth: np.ndarray, chance: np.random.Generator | None = None, aim: Aim = "centre",
    judged: np.ndarray | None = None,
) -> tuple[int, int, bool] | None:  # fmt: skip
    """Return the next click on a (H, W) bool mask that should be `truth`: x, y, and whether it is positive.

    It falls into the largest 8-connected part that is missing or too much, measured by its largest circle. Pixels
    outside of `judged`, (H, W) bool, are never wrong. Return None when nothing is wrong. `chance` is needed for other
    aims than the centre.
    """
    best: tuple[float, np.ndarray, bool] | None = None
    for wrong, positive in ((truth & ~mask, True), (mask & ~truth, False)):
        if judged is not None:
            wrong = wrong & judged
        if not wrong.any():
            continue
        padded = cv2.copyMakeBorder(wrong.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
        if best is None or distance.max() > best[0]:
            best = float(distance.max()), distance, positive
    if best is None:
        return None
    _, distance, positive = best
    y, x = divmod(int(distance.argmax()), distance.shape[1])
    if chance is None or aim == "centre":
        return x, y, positive
    if aim == "jittered":
        dx, dy = chance.normal(0, _JITTER * distance[y, x], 2)
        jittered_x, jittered_y = (
            int(np.clip(x + dx, 0, distance.shape[1] - 1)), int(np.clip(y + dy, 0, distance.shape[0] - 1)),
        )  # fmt: skip
        return (jittered_x, jittered_y, positive) if distance[jittered_y, jittered_x] > 0 else (x, y, positive)
    _, parts = cv2.connectedComponents((distance > 0).view(np.uint8), connectivity=8)
    weights = np.where(parts == parts[y, x], distance, 0).ravel().astype(np.float64)
    place = int(np.searchsorted(np.cumsum(weights), chance.random() * weights.sum()))
    y, x = divmod(min(place, weights.size - 1), distance.shape[1])
    return x, y, positive


def box_around(truth: np.ndarray, chance: np.random.Generator | None = None) -> tuple[int, int, int, int]:
    """Return the box of a (H, W) bool mask that is not empty: x1, y1, x2, y2 pixels, the last two outside of it.

    With `chance` it is off by up to a few percent of its width and height.
    """
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    x1, y1, x2, y2 = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    if chance is not None:
        dx, dy = _BOX_JITTER * (x2 - x1), _BOX_JITTER * (y2 - y1)
        x1, x2 = x1 + chance.uniform(-dx, dx), x2 + chance.uniform(-dx, dx)
        y1, y2 = y1 + chance.uniform(-dy, dy), y2 + chance.uniform(-dy, dy)
    height, width = truth.shape
    left, top = int(np.clip(round(x1), 0, width - 1)), int(np.clip(round(y1), 0, height - 1))
    return left, top, max(left + 1, min(width, round(x2))), max(top + 1, min(height, round(y2)))


def damaged(truth: np.ndarray, others: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Return a (H, W) bool mask as a weak model draws it: parts missing, parts of other garments, outline off.

    `others` is (H, W) bool, where other garments are.
    """
    mask = truth.copy()
    rows, columns = np.nonzero(truth)
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    for _ in range(int(chance.integers(1, 4))):
        kind, place = chance.integers(4), chance.integers(len(rows))
        blob = _blob(truth.shape, (int(columns[place]), int(rows[place])), extent * chance.uniform(0.08, 0.45), chance)
        if kind == 0:
            mask &= ~blob
        elif kind == 1:
            mask |= blob & (others | (chance.random() < 0.5))
        elif kind == 2:
            mask = _moved_outline(mask, extent * chance.uniform(-0.06, 0.06))
        else:
            near = others & blob
            mask |= near if near.any() else blob
    return mask


def _moved_outline(mask: np.ndarray, pixels: float) -> np.ndarray:
    steps = max(1, round(abs(pixels)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * steps + 1, 2 * steps + 1))
    change = cv2.dilate if pixels > 0 else cv2.erode
    return change(mask.astype(np.uint8), kernel).astype(bool)


def _blob(shape: tuple[int, ...], middle: tuple[int, int], radius: float, chance: np.random.Generator) -> np.ndarray:
    """Return a roundish region with an irregular outline: (H, W) bool."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radii = radius * chance.uniform(0.5, 1.3, len(angles))
    stretch = chance.uniform(0.6, 1.6)
    corners = np.stack([middle[0] + radii * np.cos(angles), middle[1] + stretch * radii * np.sin(angles)], axis=1)
    blob = np.zeros(shape, np.uint8)
    cv2.fillPoly(blob, [corners.round().astype(np.int32)], 1)
    return blob.astype(bool)
