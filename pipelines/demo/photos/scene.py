"""Backdrops: what stands behind the figure, out of focus, and the shadow that it throws on the floor.

A backdrop is painted at picture size as (H, W, 3) float32 RGB in 0..1. Sizes inside are shares of the height or width.
"""

from collections.abc import Callable

import cv2
import numpy as np

Backdrop = Callable[[np.random.Generator, int, int, np.ndarray], np.ndarray]


def draw_backdrop(name: str, rng: np.random.Generator, size: tuple[int, int], palette: np.ndarray) -> np.ndarray:
    """Paint the backdrop `name` for a picture of `size` (height, width), softened as if out of focus."""
    scene = BACKDROPS[name](rng, *size, palette)
    soft = cv2.GaussianBlur(scene, (0, 0), rng.uniform(1.0, 2.6) * size[0] / 600)
    return np.clip(soft, 0.0, 1.0)


def cast_floor_shadow(scene: np.ndarray, feet: list[np.ndarray], lamp: tuple[float, float, float]) -> None:
    """Darken the floor around each foot, and in the direction of the lamp's shadow; `feet` are (2,) picture pixels."""
    height, width = scene.shape[:2]
    shade = np.zeros((height, width), np.float32)
    reach = np.array([-lamp[0] * 0.42 * width, -0.035 * height])
    for foot in feet:
        end = foot + reach
        side = np.array([0.035 * width, 0.0])
        beam = np.array([foot - side, foot + side, end + 1.6 * side, end - 1.6 * side])
        cv2.fillPoly(shade, [beam.astype(np.int32)], 0.45)
        cv2.ellipse(shade, _whole(*foot), (int(0.085 * width), int(0.014 * height)), 0, 0, 360, 0.9, -1)
    shade = cv2.GaussianBlur(shade, (0, 0), 0.011 * height)
    scene *= (1.0 - 0.55 * shade)[..., None]


def _whole(x: float, y: float) -> tuple[int, int]:
    return round(float(x)), round(float(y))


def _ramp(top: np.ndarray | list[float], bottom: np.ndarray | list[float], height: int, width: int) -> np.ndarray:
    share = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    flat = np.asarray(top, np.float32) * (1.0 - share) + np.asarray(bottom, np.float32) * share
    return np.ascontiguousarray(np.broadcast_to(flat, (height, width, 3)), np.float32)


def _glow(height: int, width: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Return (H, W, 1) float32 light that fades from 1 at (x, y), in shares of the picture."""
    dx = (np.linspace(0.0, 1.0, width, dtype=np.float32) - x) / rx
    dy = (np.linspace(0.0, 1.0, height, dtype=np.float32) - y) / ry
    return (np.exp(-(dy**2))[:, None] * np.exp(-(dx**2))[None, :])[..., None]


def _quad(scene: np.ndarray, shares: list[tuple[float, float]], colour: np.ndarray | list[float]) -> None:
    height, width = scene.shape[:2]
    points = np.round(np.array(shares) * (width * 16, height * 16)).astype(np.int32)
    cv2.fillPoly(scene, [points], np.asarray(colour, float).tolist(), cv2.LINE_AA, 4)


def _audience(scene: np.ndarray, rng: np.random.Generator, side: int, tint: np.ndarray) -> None:
    """Seat rows of silhouettes along one edge; nearer rows are larger, lower and lit from the runway."""
    height, width = scene.shape[:2]
    for row, y in enumerate((0.50, 0.57, 0.66, 0.78, 0.93)):
        head = (0.014 + 0.007 * row) * height
        edge = 0.36 - 0.055 * row
        for x in np.arange(-0.02, edge, 3.4 * head / width):
            spot = x if side < 0 else 1.0 - x
            centre = np.array([spot * width + rng.normal(0, 2), y * height + rng.normal(0, 0.15 * head)])
            coat = (tint * rng.uniform(0.10, 0.40) + 0.02 + 0.012 * row).tolist()
            shoulders = (int(1.75 * head), int(3.4 * head))
            cv2.ellipse(scene, _whole(centre[0], centre[1] + 4.2 * head), shoulders, 0, 0, 360, coat, -1, cv2.LINE_AA)
            face = (np.array([0.62, 0.44, 0.34]) * rng.uniform(0.15, 0.62)).tolist()
            cv2.ellipse(scene, _whole(*centre), (int(0.72 * head), int(head)), 0, 0, 360, face, -1, cv2.LINE_AA)
            crown = _whole(centre[0], centre[1] - 0.35 * head)
            cv2.ellipse(scene, crown, (int(0.78 * head), int(0.75 * head)), 0, 170, 370, [0.06, 0.05, 0.05], -1)


def _runway(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """Paint a lit runway between two rows of audience, in front of a glowing wall."""
    tint = palette[rng.integers(len(palette))]
    scene = _ramp(0.05 + 0.10 * tint, 0.03 + 0.04 * tint, height, width)
    _quad(scene, [(0.28, 0.05), (0.72, 0.05), (0.72, 0.50), (0.28, 0.50)], 0.25 + 0.35 * tint)
    for x in rng.uniform(0.30, 0.70, 5):
        _quad(scene, [(x, 0.05), (x + 0.012, 0.05), (x + 0.012, 0.50), (x, 0.50)], 0.35 + 0.45 * tint)
    shade = rng.uniform(0.45, 0.85)
    _quad(scene, [(0.36, 0.50), (0.64, 0.50), (1.06, 1.0), (-0.06, 1.0)], [shade, shade * 0.98, shade * 0.95])
    for side in (-1, 1):
        _audience(scene, rng, side, palette[rng.integers(len(palette))])
    scene += 0.22 * _glow(height, width, 0.5, 0.92, 0.35, 0.20)
    for x in np.linspace(0.08, 0.92, 7):
        scene += 0.55 * _glow(height, width, x, 0.03, 0.02, 0.012)
    return scene


def _studio(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """Paint a seamless paper sweep with a soft lamp on it."""
    paper = 0.55 * palette[rng.integers(len(palette))] + 0.45 * rng.uniform(0.55, 0.95)
    scene = _ramp(paper * 0.86, paper * 0.95, height, width)
    floor = _ramp(paper * 0.92, np.clip(paper * 1.12, 0, 1), height, width)
    share = 1.0 / (1.0 + np.exp(-(np.linspace(0, 1, height, dtype=np.float32) - 0.83) * 60.0))
    scene += (floor - scene) * share[:, None, None]
    scene *= 0.82 + 0.30 * _glow(height, width, rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.5), 0.6, 0.5)
    if rng.random() < 0.5:
        x = rng.choice([0.0, 0.88])
        _quad(scene, [(x, 0.0), (x + 0.12, 0.0), (x + 0.12, 0.90), (x, 0.92)], paper * 0.62)
    return scene


def _city(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """Paint a street: a facade with windows and an entrance, a kerb and paving."""
    wall = 0.30 * palette[rng.integers(len(palette))] + 0.70 * np.array([0.66, 0.58, 0.52]) * rng.uniform(0.7, 1.15)
    scene = _ramp(wall * 1.05, wall * 0.85, height, width)
    for y in np.arange(0.0, 0.80, 0.020).tolist():
        cv2.line(scene, (0, int(y * height)), (width, int(y * height)), (wall * 0.86).tolist(), 1)
    offset, glass = float(rng.uniform(-0.15, 0.05)), np.array([0.30, 0.38, 0.46]) * rng.uniform(0.5, 1.3)
    for x in (offset + 0.30 * np.arange(5)).tolist():
        for y in (-0.16, 0.20):
            _quad(scene, [(x, y), (x + 0.19, y), (x + 0.19, y + 0.27), (x, y + 0.27)], wall * 1.22)
            _quad(scene, [(x + 0.02, y + 0.013), (x + 0.17, y + 0.013), (x + 0.17, y + 0.25), (x + 0.02, y + 0.25)],
                  glass * rng.uniform(0.6, 1.5))  # fmt: skip
            _quad(scene, [(x + 0.09, y), (x + 0.10, y), (x + 0.10, y + 0.26), (x + 0.09, y + 0.26)], wall * 1.22)
    _quad(scene, [(0, 0.50), (1, 0.50), (1, 0.53), (0, 0.53)], wall * 1.25)
    for x in (offset + 0.08 + 0.42 * np.arange(4)).tolist():
        _quad(scene, [(x, 0.57), (x + 0.24, 0.57), (x + 0.24, 0.82), (x, 0.82)], glass * rng.uniform(0.3, 0.8))
    stone = np.array([0.52, 0.51, 0.50]) * rng.uniform(0.7, 1.2)
    _quad(scene, [(0, 0.82), (1, 0.82), (1, 1), (0, 1)], stone)
    for x in np.linspace(-1.0, 2.0, 16):
        cv2.line(scene, _whole((0.5 + (x - 0.5) * 0.7) * width, 0.82 * height), _whole(x * width, height),
                 (stone * 0.82).tolist(), 1, cv2.LINE_AA)  # fmt: skip
    _quad(scene, [(0, 0.815), (1, 0.815), (1, 0.828), (0, 0.828)], stone * 1.2)
    return scene


def _spotlights(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """Paint a dark stage with beams from above and circles of light far behind."""
    tint = palette[rng.integers(5)]
    scene = _ramp([0.05, 0.05, 0.07], 0.10 + 0.14 * tint, height, width)
    beams, fade = np.zeros_like(scene), np.linspace(1.0, 0.25, height, dtype=np.float32)[:, None, None]
    for x in np.linspace(0.1, 0.9, 4) + rng.normal(0, 0.04, 4):
        lean, hue = rng.normal(0, 0.16), palette[rng.integers(5)]
        _quad(beams, [(x - 0.01, 0.0), (x + 0.01, 0.0), (x + lean + 0.13, 0.9), (x + lean - 0.13, 0.9)], hue)
        scene += 0.30 * cv2.GaussianBlur(beams, (0, 0), 9) * fade
        beams[:] = 0.0
        scene += 0.8 * _glow(height, width, x, 0.0, 0.04, 0.02)
    for _ in range(14):
        centre = _whole(rng.random() * width, rng.uniform(0.1, 0.7) * height)
        radius = int(rng.uniform(0.008, 0.022) * height)
        cv2.circle(scene, centre, radius, (0.20 + 0.45 * tint).tolist(), -1, cv2.LINE_AA)
    _quad(scene, [(0, 0.85), (1, 0.85), (1, 1), (0, 1)], 0.14 + 0.16 * tint)
    scene += (0.42 * _glow(height, width, 0.5, 0.96, 0.42, 0.07)) * (0.5 + 0.5 * tint)
    return scene


def _palazzo(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """Paint a hall of arches and columns with a chequered floor."""
    wall = 0.22 * palette[rng.integers(len(palette))] + 0.78 * np.array([0.84, 0.79, 0.71]) * rng.uniform(0.75, 1.1)
    scene = _ramp(wall * 0.95, wall * 0.82, height, width)
    shift = rng.uniform(-0.1, 0.1)
    for x in shift + np.array([-0.08, 0.30, 0.68, 1.06]):
        _quad(scene, [(x, 0.24), (x + 0.26, 0.24), (x + 0.26, 0.80), (x, 0.80)], wall * 0.50)
        centre = _whole((x + 0.13) * width, 0.24 * height)
        cv2.ellipse(scene, centre, (int(0.13 * width), int(0.10 * height)), 0, 180, 360, (wall * 0.50).tolist(), -1)
        for step in range(6):
            left = x + 0.26 + 0.02 * step
            light = 0.80 + 0.30 * np.sin(np.pi * (step + 0.5) / 6)
            _quad(scene, [(left, 0.10), (left + 0.021, 0.10), (left + 0.021, 0.80), (left, 0.80)], wall * light)
    _quad(scene, [(0, 0.80), (1, 0.80), (1, 1), (0, 1)], wall * 0.80)
    for row, (y0, y1) in enumerate(((0.80, 0.83), (0.83, 0.875), (0.875, 0.93), (0.93, 1.0))):
        for k in range(-7, 8):
            if (k + row) % 2:
                near, far = 0.10 + 1.1 * (y1 - 0.80), 0.10 + 1.1 * (y0 - 0.80)
                xs = [0.5 + k * far, 0.5 + (k + 1) * far, 0.5 + (k + 1) * near, 0.5 + k * near]
                _quad(scene, list(zip(xs, (y0, y0, y1, y1), strict=True)), wall * 0.48)
    return scene


BACKDROPS: dict[str, Backdrop] = {
    "runway": _runway,
    "studio": _studio,
    "city": _city,
    "spotlights": _spotlights,
    "palazzo": _palazzo,
}
