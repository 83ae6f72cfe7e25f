"""Outlines of bodies and garments: the few curve constructions from which all shapes are built.

All coordinates are body units: (x, y) float64, x to the right of the body's middle line, y downwards from the crown of
the head (0.0) to the soles (1.0). An outline is an (N, 2) array of a closed polygon.
"""

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]


def smooth(points: Sequence[Point] | np.ndarray, rounds: int = 3) -> np.ndarray:
    """Round the corners of a closed polygon by Chaikin's corner cutting (Chaikin 1974).

    Each round multiplies the number of points by two; returns (N * 2**rounds, 2) float64.
    """
    outline = np.asarray(points, dtype=np.float64)
    for _ in range(rounds):
        ahead = np.roll(outline, -1, axis=0)
        cut = np.stack([0.75 * outline + 0.25 * ahead, 0.25 * outline + 0.75 * ahead], axis=1)
        outline = cut.reshape(-1, 2)
    return outline


def mirrored(half: Sequence[Point]) -> np.ndarray:
    """Close a right half, listed from top to bottom, with its mirror image on the left; returns (2N, 2) float64."""
    right = np.asarray(half, dtype=np.float64)
    return np.vstack([right, right[::-1] * (-1.0, 1.0)])


def ellipse(centre: Point | np.ndarray, rx: float, ry: float, angle: float = 0.0, points: int = 28) -> np.ndarray:
    """Return the (points, 2) outline of an ellipse turned clockwise by `angle` radians."""
    t = np.linspace(0.0, 2.0 * np.pi, points, endpoint=False)
    flat = np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)
    return turned(flat, angle) + np.asarray(centre)


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Turn (N, 2) points about the origin, clockwise on screen, by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def limb(joints: Sequence[Point] | np.ndarray, radii: Sequence[float], *, capped: bool = True) -> list[np.ndarray]:
    """Cover a chain of K joints with tapered tubes; the union of the returned outlines is the limb.

    `radii` gives the half-width at each joint; without `capped` the last joint ends flat, as a cuff or hem does.
    """
    chain = np.asarray(joints, dtype=np.float64)
    parts: list[np.ndarray] = []
    for start, end, r0, r1 in zip(chain[:-1], chain[1:], radii[:-1], radii[1:], strict=True):
        along = end - start
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
        parts.append(np.array([start + across * r0, end + across * r1, end - across * r1, start - across * r0]))
    last = len(chain) if capped else len(chain) - 1
    parts += [ellipse(chain[i], radii[i], radii[i]) for i in range(last)]
    return parts


def along(joints: np.ndarray, share: float) -> np.ndarray:
    """Return the (2,) point at `share` (0 to 1) of the length of a chain of joints."""
    steps = np.hypot(*np.diff(joints, axis=0).T)
    reach = np.concatenate([[0.0], np.cumsum(steps)])
    goal = share * reach[-1]
    return np.array([np.interp(goal, reach, joints[:, 0]), np.interp(goal, reach, joints[:, 1])])


def section(joints: np.ndarray, start: float, end: float) -> np.ndarray:
    """Cut a (3, 2) chain between two shares of its length, keeping the middle joint when it lies inside."""
    steps = np.hypot(*np.diff(joints, axis=0).T)
    middle = float(steps[0] / max(steps.sum(), 1e-9))
    shares = [start, middle, end] if start < middle < end else [start, 0.5 * (start + end), end]
    return np.array([along(joints, share) for share in shares])


def hem(left: float, right: float, y: float, *, dip: float, waves: int, depth: float) -> list[Point]:
    """List the points of a hem from right to left: a shallow arc, `dip` lower in the middle, with soft waves."""
    t = np.linspace(0.0, 1.0, 4 * waves + 1)
    x = right + (left - right) * t
    arc = y + dip * np.sin(np.pi * t) + depth * np.sin(2.0 * np.pi * waves * t)
    return list(zip(x.tolist(), arc.tolist(), strict=True))
