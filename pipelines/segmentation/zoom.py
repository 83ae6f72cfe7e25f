"""Which part of a photo a network looks at, so that what is asked for fills its input.

In the line of the zoom-in of f-BRS (Sofiiuk et al., CVPR 2020) and the target crop of FocalClick (Chen et al., 2022).
Windows lie on a grid of places and sizes, so that the clicks on one garment share a window, and what is computed of it.
"""

from collections.abc import Iterable

import numpy as np

from pipelines.segmentation.transforms import Area

_MARGIN = 1.4  # the window's sides, in those of what it shows
_STEP = 2**0.5  # between two sizes
_SIZES = 6  # the smallest window's sides are an eighth of the photo's
_PLACES = 12  # of a window's sides: how finely it is moved
Rectangle = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels, the last two outside


def whole(height: int, width: int) -> Area:
    """Return the window that shows a whole photo."""
    return Area(0, 0, height, width)


def window_around(shown: Rectangle, height: int, width: int, aspect: float) -> Area:
    """Return the window of a (height, width) photo that shows a rectangle with a margin around it.

    `aspect` is the network's height by its width. The window is of one of six sizes, the whole photo among them, and
    ends where the photo does.
    """
    x1, y1, x2, y2 = shown
    largest = max(width, height / aspect)  # width of the window that holds the whole photo
    wanted = _MARGIN * max(x2 - x1, (y2 - y1) / aspect)
    sizes = [largest / _STEP**step for step in range(1, _SIZES + 1)]
    # A window that is moved by a part of a step must hold the rectangle all the same.
    fitting = [size for size in sizes if size >= wanted + size / _PLACES]
    if not fitting:
        return whole(height, width)
    across = fitting[-1]
    down = across * aspect
    left, right = _span((x1 + x2) / 2, across, width)
    top, bottom = _span((y1 + y2) / 2, down, height)
    return Area(top, left, bottom - top, right - left)


def _span(middle: float, size: float, length: int) -> tuple[int, int]:
    """Return where a span of `size` around `middle` begins and ends, on the grid and within `length`."""
    if size >= length:
        return 0, length
    step = size / _PLACES
    begin = min(max(0.0, round((middle - size / 2) / step) * step), length - size)
    return int(begin), min(length, round(begin + size))


def rectangle_of(mask: np.ndarray | None, points: Iterable[tuple[float, float]]) -> Rectangle | None:
    """Return what holds a (H, W) bool mask and (x, y) points; None where there is neither."""
    xs, ys = [], []
    if mask is not None and mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        xs, ys = [columns[0], columns[-1] + 1], [rows[0], rows[-1] + 1]
    for x, y in points:
        xs += [x, x + 1]
        ys += [y, y + 1]
    return (float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))) if xs else None
