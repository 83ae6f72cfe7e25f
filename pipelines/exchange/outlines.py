"""Masks as polygons that lose nothing: outlines run along the pixels' edges, and holes are cut into them.

A polygon of COCO or YOLO is one ring. A hole is joined to it by a cut there and back, which has no area; filled by the
even-odd rule with pixel centres deciding, as `labelstudio.shapes.fill` and COCO's own code do, it gives the mask again.
"""

from collections import defaultdict

import numpy as np

Ring = list[tuple[int, int]]  # corners as (x, y), in pixels from the photo's corner; the last joins the first


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


def _straight(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    return (b[0] - a[0]) * (c[1] - b[1]) == (b[1] - a[1]) * (c[0] - b[0])


def _area(ring: Ring) -> float:
    x, y = np.array(ring).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
