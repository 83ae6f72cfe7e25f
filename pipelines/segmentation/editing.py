"""Edit a mask that is there by clicks: what a click may change, and a cut that changes nothing else.

A click in the middle of what is wrong is as far from the mask's outline as the wrong part is wide: the largest circle
around it that does not cross the outline lies within that part, or most of it does. So the mask's own outline says how
much a click means. Half of that circle is taken at the click's word, twice the circle is decided again by its colours,
and all other pixels stay. The cut is that of GrabCut's user editing (Rother, Kolmogorov, Blake 2004).
"""

import cv2
import numpy as np

_SURE = 0.5  # of the distance from the click to the outline: pixels this near surely are what the click says
_UNDECIDED = 2.0  # of that distance: pixels this near are decided again
_MIN_RADIUS, _MAX_RADIUS = 0.012, 0.12  # what that distance counts as at least and at most, as shares of the long side
_BORDER = 0.012  # share of the long side on both sides of the outline, which a click inside of the mask draws again
_ITERATIONS = 3


def edit_mask(image: np.ndarray, mask: np.ndarray, point: tuple[int, int], *, positive: bool) -> np.ndarray:
    """Return a (h, w) bool mask after a click at `point`, (x, y) pixels, on an (h, w, 3) uint8 BGR image.

    A positive click outside of the mask adds what belongs to it there; inside, it draws the outline again. A negative
    click inside takes away what does not belong to it there; just outside it counts as one on the outline, and
    elsewhere it changes nothing.
    """
    point = point if positive else _nearby(mask, point)
    x, y = point
    is_inside = bool(mask[y, x])
    if not positive and not is_inside:
        return mask
    long_side = max(mask.shape)
    radius = float(np.clip(distance_to_outline(mask, point), _MIN_RADIUS * long_side, _MAX_RADIUS * long_side))
    undecided = _border(mask) if positive and is_inside else _disc(mask.shape, point, _UNDECIDED * radius)
    trimap = np.where(mask, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    trimap[undecided & mask], trimap[undecided & ~mask] = cv2.GC_PR_FGD, cv2.GC_PR_BGD
    trimap[_disc(mask.shape, point, _SURE * radius)] = cv2.GC_FGD if positive else cv2.GC_BGD
    foreground = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if foreground.any() and not foreground.all():  # GrabCut needs samples of both
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(image, trimap, (0, 0, 0, 0), *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
        foreground = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return parts_of(foreground if positive else foreground & mask, mask, [point] if positive else [])


def parts_of(edited: np.ndarray, before: np.ndarray, points: list[tuple[int, int]]) -> np.ndarray:
    """Return the 8-connected parts of an edited (h, w) bool mask that were there before, or hold one of the points."""
    count, parts = cv2.connectedComponents(edited.astype(np.uint8), connectivity=8)
    stays = np.zeros(count, bool)
    stays[np.unique(parts[edited & before])] = True
    stays[[int(parts[y, x]) for x, y in points]] = True
    stays[0] = False
    return stays[parts]


def _nearby(mask: np.ndarray, point: tuple[int, int]) -> tuple[int, int]:
    """Return the pixel of the mask that is nearest to a point; the point itself where none is near."""
    x, y = point
    reach = round(_MIN_RADIUS * max(mask.shape))
    top, left = max(0, y - reach), max(0, x - reach)
    rows, columns = np.nonzero(mask[top : y + reach + 1, left : x + reach + 1])
    if mask[y, x] or not len(rows):
        return point
    nearest = int(((rows + top - y) ** 2 + (columns + left - x) ** 2).argmin())
    return int(columns[nearest]) + left, int(rows[nearest]) + top


def distance_to_outline(mask: np.ndarray, point: tuple[int, int]) -> float:
    """Return how many pixels a point, (x, y), is from the outline of a (h, w) bool mask."""
    x, y = point
    same = (mask if mask[y, x] else ~mask).astype(np.uint8)
    ends = 0 if mask[y, x] else 1  # beyond the photo there is no garment
    padded = cv2.copyMakeBorder(same, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=ends)
    return float(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[y + 1, x + 1])


def _disc(shape: tuple[int, ...], point: tuple[int, int], radius: float) -> np.ndarray:
    disc = np.zeros(shape, np.uint8)
    cv2.circle(disc, point, max(1, round(radius)), 1, -1)
    return disc.view(bool)


def _border(mask: np.ndarray) -> np.ndarray:
    """Return the pixels near the mask's outline."""
    kernel, steps = np.ones((3, 3), np.uint8), max(1, round(_BORDER * max(mask.shape)))
    binary = mask.astype(np.uint8)
    outer, inner = cv2.dilate(binary, kernel, iterations=steps), cv2.erode(binary, kernel, iterations=steps)
    return (outer > 0) & (inner == 0)
