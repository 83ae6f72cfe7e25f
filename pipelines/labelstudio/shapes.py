"""Polygons, rectangles, ellipses and bitmasks of Label Studio as masks at the photo's resolution.

Coordinates are percent of the photo (x of its width, y of its height; y points down), rotations are degrees clockwise.
A pixel belongs to a shape when its centre lies inside: shapes that share an edge leave no gap and never overlap.
"""

import base64
import binascii
import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import AnnotationError
from pipelines.labelstudio.schema import RegionValue

_PNG_URL = "data:image/png;base64,"


def polygon_mask(value: RegionValue, height: int, width: int) -> NDArray[np.bool_]:
    """Fill the polygon `points`, a list of (x, y), by the even-odd rule; returns (height, width) bool."""
    points = np.array([[float(x), float(y)] for x, y in value["points"]]).reshape(-1, 2)
    return fill(points / 100 * (width, height), height, width)


def rectangle_mask(value: RegionValue, height: int, width: int) -> NDArray[np.bool_]:
    """Fill the rectangle at `x`, `y` with its `width` and `height`, turned by `rotation` around its first corner.

    Returns (height, width) bool.
    """
    x, y, across, down = _fractions(value["x"], value["y"], value["width"], value["height"])
    angle = math.radians(float(value.get("rotation") or 0))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (across * width, down * height)
    return fill(corners @ turn + (x * width, y * height), height, width)


def ellipse_mask(value: RegionValue, height: int, width: int) -> NDArray[np.bool_]:
    """Fill the ellipse around `x`, `y` with `radiusX` and `radiusY`, turned by `rotation` around its centre.

    Returns (height, width) bool. Raises AnnotationError for an ellipse without extent.
    """
    x, y, across, down = _fractions(value["x"], value["y"], value["radiusX"], value["radiusY"])
    _require(math.isfinite(x + y + across + down) and across > 0 and down > 0, "an ellipse without extent")
    a, b, angle = across * width, down * height, math.radians(float(value.get("rotation") or 0))
    below = np.arange(height) + 0.5 - y * height
    # Along a row the equation is quadratic in x; its roots are where the row enters and leaves the ellipse.
    square = (math.cos(angle) / a) ** 2 + (math.sin(angle) / b) ** 2
    half_linear = below * math.cos(angle) * math.sin(angle) * (1 / a**2 - 1 / b**2)
    constant = below**2 * ((math.sin(angle) / a) ** 2 + (math.cos(angle) / b) ** 2) - 1
    under_root = half_linear**2 - square * constant
    [row] = np.nonzero(under_root >= 0)
    middle, reach = x * width - half_linear[row] / square, np.sqrt(under_root[row]) / square
    return _between(np.tile(row, 2), np.concatenate([middle - reach, middle + reach]), height, width)


def bitmask_mask(value: RegionValue, height: int, width: int, alpha_threshold: int) -> NDArray[np.bool_]:
    """Read `imageDataURL`, a PNG of the photo's size that is transparent outside of the region.

    Returns (height, width) bool: True where alpha >= `alpha_threshold` (0..255). Raises AnnotationError for anything
    else than such a PNG.
    """
    url = str(value["imageDataURL"])
    _require(url.startswith(_PNG_URL), f"a bitmask that is no PNG data URL but {url[:30]!r}")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(url.removeprefix(_PNG_URL), validate=True)), formats=("PNG",))
        # Checked before the pixels are decoded: a small file may declare a huge picture.
        _require(picture.size == (width, height), f"a bitmask of {picture.width}×{picture.height} pixels")
        _require("A" in picture.getbands() or "transparency" in picture.info, "a bitmask without transparency")
        return np.asarray(picture.convert("RGBA").getchannel("A")) >= alpha_threshold
    except (binascii.Error, OSError, SyntaxError) as error:
        raise AnnotationError(f"a bitmask that cannot be decoded ({error})") from error


def fill(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Fill a closed outline, (N, 2) as x, y in pixels with (0, 0) at the photo's corner, by the even-odd rule.

    Scan conversion by parity: every edge flips all pixels to its right in the rows whose centre it crosses.
    Returns (height, width) bool. Raises AnnotationError for fewer than three points or one that is no finite number.
    """
    _require(len(points) >= 3 and bool(np.isfinite(points).all()), "an outline without three points")
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    # Rows whose centre lies in the half-open span of an edge, so that a corner between two edges counts once.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    edge = np.repeat(np.arange(len(points)), stop - first)
    row = np.arange(edge.size) - np.repeat(np.cumsum(stop - first) - stop, stop - first)
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    return _between(row, crossing, height, width)


def _between(row: NDArray[np.int64], crossing: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie right of an odd number of their row's `crossing`s, which are x in pixels."""
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    flips = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(flips, (row, column), 1)
    np.bitwise_xor.accumulate(flips, axis=1, out=flips)
    return flips[:, :width].view(bool)


def _fractions(*percents: float) -> tuple[float, ...]:
    return tuple(float(percent) / 100 for percent in percents)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AnnotationError(f"{what}; draw it again")
