"""Masks as polygons that lose nothing, for the two ways in which other programs fill a polygon.

A polygon of COCO or YOLO is one ring, so holes are joined to it by cuts there and back, which have no area.

- `outlines` run along the pixels' edges. Filled by the even-odd rule with pixel centres deciding, as
  `labelstudio.shapes.fill` and COCO's own code do, they give the mask again.
- `borders` run through the border pixels themselves. `cv2.fillPoly`, with which ultralytics and others fill, draws
  the pixels of a polygon's edges too, and gives the mask again.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np

Ring = list[tuple[int, int]]  # corners as (x, y), in pixels from the photo's corner; the last joins the first


def outlines(mask: np.ndarray) -> list[Ring]:
    """Return the `outline` of each 4-connected part of a (H, W) bool mask."""
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    outlines = []
    for part, (x, y, width, height, _) in zip(range(1, count), boxes[1:].tolist(), strict=True):
        cropped = parts[y : y + height, x : x + width] == part  # specks are many, and photos large
        outlines.append([(x + across, y + down) for across, down in outline(cropped)])
    return outlines


def outline(part: np.ndarray) -> Ring:
    """Return the ring of a 4-connected (H, W) bool part, holes joined to it."""
    outer, *holes = sorted(rings(part), key=lambda ring: -abs(_area(ring)))
    for hole in sorted(holes):
        # The cut may cross anything: there and back it counts twice.
        at = min(range(len(outer)), key=lambda corner: _distance(outer[corner], hole[0]))
        outer = [*outer[: at + 1], *hole, hole[0], outer[at], *outer[at + 1 :]]
    return outer


def rings(part: np.ndarray) -> list[Ring]:
    """Return the closed outlines of a (H, W) bool mask along its pixels' edges, without points on straight lines.

    The mask lies to the right of each step, so outer rings run clockwise as seen on a screen, and holes the other way.
    """
    padded = np.pad(part, 1).astype(np.int8)
    ahead: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    down = padded[1:, 1:-1] - padded[:-1, 1:-1]  # (H + 1, W): +1 where the mask begins below this edge
    across = padded[1:-1, 1:] - padded[1:-1, :-1]  # (H, W + 1): +1 where it begins right of it
    for y, x in np.argwhere(down == 1).tolist():
        ahead[x, y].append((x + 1, y))
    for y, x in np.argwhere(down == -1).tolist():
        ahead[x + 1, y].append((x, y))
    for y, x in np.argwhere(across == 1).tolist():
        ahead[x, y + 1].append((x, y))
    for y, x in np.argwhere(across == -1).tolist():
        ahead[x, y].append((x, y + 1))
    outlines = []
    for start in sorted(ahead):
        while ahead[start]:
            outlines.append(_follow(ahead, start))
    return outlines


def _follow(ahead: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> Ring:
    ring, place = [start], ahead[start].pop()
    while place != start:
        before = ring[-1]
        step = place[0] - before[0], place[1] - before[1]
        ways = ahead[place]
        # Where two corners of the mask touch, turning right keeps to the pixel that was followed so far.
        right = place[0] - step[1], place[1] + step[0]
        way = ways.pop(ways.index(right) if len(ways) > 1 and right in ways else 0)
        if (way[0] - place[0], way[1] - place[1]) != step:
            ring.append(place)
        place = way
    if len(ring) > 2 and _straight(ring[-1], ring[0], ring[1]):
        ring = ring[1:]
    return ring


def border(mask: np.ndarray) -> np.ndarray:
    """Return one ring through the border pixels of a (H, W) bool mask that is not empty: (N, 2) int, x and y, N >= 3.

    Parts that do not touch are joined by straight lines between their nearest pixels, which `cv2.fillPoly` draws as
    well; otherwise it gives the mask back. See `borders`.
    """
    return _corners(_joined_parts(_part_rings(mask)))


def borders(mask: np.ndarray) -> list[np.ndarray]:
    """Return a ring through the border pixels of each 8-connected part of a (H, W) bool mask, as `border` does.

    `cv2.fillPoly` draws a ring's pixels too, and so gives each part back exactly: holes are joined by horizontal cuts
    through pixels of the mask. The borders are those of Suzuki and Abe, "Topological Structural Analysis of Digitized
    Binary Images by Border Following" (1985), as OpenCV implements it.
    """
    return [_corners(ring) for ring in _part_rings(mask)]


def _part_rings(mask: np.ndarray) -> list[np.ndarray]:
    """Return all border pixels of each 8-connected part in order, its holes joined."""
    if not mask.any():
        return []
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    cropped = np.ascontiguousarray(mask[y : y + height, x : x + width], np.uint8)
    contours, tree = cv2.findContours(cropped, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings: dict[int, list[np.ndarray]] = defaultdict(list)  # by part: its outer ring, and those of its holes
    for number, (contour, (_, _, _, parent)) in enumerate(
        zip(contours, np.reshape(tree, (-1, 4)).astype(int), strict=True)
    ):
        pixels = np.asarray(contour, np.int64)[:, 0, :]
        if parent < 0:
            rings[number].insert(0, pixels)
        else:
            rings[parent].append(pixels)
    return [_joined_holes(cropped, outer, holes) + np.array([x, y]) for outer, *holes in rings.values()]


def _joined_holes(mask: np.ndarray, outer: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """Join holes to the outer border: each from its leftmost pixel to the left, up to the next border.

    That border lies further left, so it is joined before when borders are taken from left to right.
    """
    rings = [outer, *sorted(holes, key=lambda hole: hole.min(axis=0).tolist())]
    place: dict[tuple[int, int], tuple[int, int]] = {}  # of a pixel: its ring, and its position there
    joints: list[dict[int, list[tuple[int, int]]]] = []  # by ring, by position: the rings joined there, and where
    for number, ring in enumerate(rings):
        joints.append({})
        if number:
            start = int(np.argmin(ring[:, 0]))
            x, y = ring[start]
            gaps = np.flatnonzero(mask[y, :x] == 0)
            joined, position = place[int(gaps[-1]) + 1 if gaps.size else 0, int(y)]
            joints[joined].setdefault(position, []).append((number, start))
        for position, (x, y) in enumerate(ring.tolist()):
            place.setdefault((x, y), (number, position))
    pixels: list[np.ndarray] = []
    steps = [iter(_walk(rings, joints, 0, 0))]
    while steps:  # recursion could be as deep as there are holes
        step = next(steps[-1], None)
        if step is None:
            steps.pop()
        elif isinstance(step, tuple):
            steps.append(iter(_walk(rings, joints, *step)))
        else:
            pixels.append(step)
    return np.array(pixels)


def _walk(
    rings: Sequence[np.ndarray], joints: Sequence[Mapping[int, Sequence[tuple[int, int]]]], number: int, start: int
) -> Iterator[np.ndarray | tuple[int, int]]:
    """Yield the pixels of a ring from `start` back to it, and after a pixel each ring that is joined there."""
    ring = rings[number]
    for position in (*range(start, len(ring)), *range(start)):
        yield ring[position]
        for joint in joints[number].get(position, ()):
            yield joint
            yield ring[position]
    yield ring[start]


def _joined_parts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join rings to the longest one, each by a line there and back between the nearest pixels."""
    if len(parts) == 1:
        return parts[0]
    from scipy.spatial import KDTree

    ring, *others = sorted(parts, key=lambda part: (-len(part), part[0].tolist()))
    for part in others:
        distances, places = KDTree(ring).query(part)
        start = int(np.argmin(distances))
        place = int(places[start])
        ring = np.concatenate([ring[: place + 1], np.roll(part, -start, axis=0), part[start : start + 1], ring[place:]])
    return ring


def _corners(ring: np.ndarray) -> np.ndarray:
    """Return a ring without pixels on straight lines; one or two are repeated, as a polygon has three corners."""
    moves = np.any(ring != np.roll(ring, 1, axis=0), axis=1)
    ring = ring[moves] if moves.any() else ring[:1]
    (x0, y0), (x1, y1) = (ring - np.roll(ring, 1, axis=0)).T, (np.roll(ring, -1, axis=0) - ring).T
    corners = ring[(x0 * y1 != x1 * y0) | (x0 * x1 + y0 * y1 <= 0)]
    return np.resize(corners, (max(3, len(corners)), 2))


def _straight(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    return (b[0] - a[0]) * (c[1] - b[1]) == (b[1] - a[1]) * (c[0] - b[0])


def _area(ring: Ring) -> float:
    x, y = np.array(ring).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
