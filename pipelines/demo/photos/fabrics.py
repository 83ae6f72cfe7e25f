"""Textures: every cloth is a small tile that repeats without a seam.

A weaver takes a generator and two colours, (3,) float32 RGB in 0..1, and returns a (TILE, TILE, 3) float32 tile in
0..1. Tile pixels are pixels of the oversampled picture, in which a figure is about 1000 high.
"""

from collections.abc import Callable

import cv2
import numpy as np

TILE = 256
_Y, _X = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
Weaver = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]


def grain(rng: np.random.Generator, sigma_x: float, sigma_y: float) -> np.ndarray:
    """Return seamless (TILE, TILE) float32 noise of unit variance, blurred by two sigmas in pixels."""
    step_x, step_y = (1 << max(0, int(np.log2(sigma)) - 1) for sigma in (sigma_x, sigma_y))  # coarse noise is cheap
    noise = rng.standard_normal((TILE // step_y, TILE // step_x), dtype=np.float32)
    pad_x, pad_y = int(3 * sigma_x / step_x) + 2, int(3 * sigma_y / step_y) + 2
    wide = cv2.copyMakeBorder(noise, pad_y, pad_y, pad_x, pad_x, cv2.BORDER_WRAP)
    wide = cv2.GaussianBlur(wide, (0, 0), sigmaX=sigma_x / step_x, sigmaY=sigma_y / step_y)
    wide = cv2.resize(wide, None, fx=step_x, fy=step_y, interpolation=cv2.INTER_LINEAR)
    soft = wide[pad_y * step_y :, pad_x * step_x :][:TILE, :TILE]
    return (soft - soft.mean()) / max(float(soft.std()), 1e-6)


def _tint(colour: np.ndarray, light: np.ndarray) -> np.ndarray:
    return np.clip(colour * light[..., None], 0.0, 1.0).astype(np.float32)


def _blend(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (colour * (1.0 - share[..., None]) + other * share[..., None]).astype(np.float32)


def plain(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave a smooth cloth with a faint thread."""
    return _tint(colour, 1.0 + 0.025 * grain(rng, 0.8, 0.8) + 0.02 * grain(rng, 12.0, 12.0))


def wool(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave a felted, speckled coat cloth."""
    return _tint(colour, 1.0 + 0.045 * grain(rng, 1.2, 1.2) + 0.025 * grain(rng, 3.0, 3.0))


def herringbone(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave zigzag columns, 32 pixels wide."""
    zigzag = np.abs((_X % 32.0) - 16.0)
    ridge = np.sin(2.0 * np.pi * (_Y + zigzag) / 8.0)
    return _tint(colour, 1.0 + 0.13 * ridge + 0.05 * grain(rng, 1.0, 1.0))


def pinstripe(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave thin light lines on a plain ground."""
    period = float(rng.choice([16, 25.6, 32]))
    line = np.clip(1.6 - np.abs((_X % period) - period / 2.0), 0.0, 1.0)
    return _blend(plain(rng, colour, accent), np.clip(colour + 0.40, 0.0, 1.0), 0.6 * line)


def stripes(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave upright shirt stripes of equal width."""
    period = float(rng.choice([12.8, 16, 21.33333]))
    band = 1.0 / (1.0 + np.exp(-7.0 * np.sin(2.0 * np.pi * _X / period)))
    return _blend(plain(rng, colour, accent), accent, 0.55 * band)


def tartan(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave a large check with thin lines in a second colour."""
    period = float(rng.choice([64, 85.33333]))
    bands = [(np.sin(2.0 * np.pi * axis / period) > 0.0).astype(np.float32) for axis in (_X, _Y)]
    lines = [(np.abs((axis % period) - period / 4.0) < 3.0).astype(np.float32) for axis in (_X, _Y)]
    twill = 1.0 + 0.06 * np.sin(2.0 * np.pi * (_X + _Y) / 8.0)
    ground = _blend(_tint(colour, twill), accent, 0.38 * (bands[0] + bands[1]))
    return _blend(ground, np.ones(3, np.float32), 0.55 * np.maximum(*lines))


def knit(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Knit columns of V stitches; now and then with bands in a second colour or with raised cables."""
    width, height = 16.0, 16.0
    lean = np.abs((_X % width) / width - 0.5) * 2.0
    stitch = 0.5 + 0.5 * np.cos(2.0 * np.pi * (_Y / height + 0.65 * lean))
    column = 0.45 + 0.55 * np.sqrt(np.clip(1.0 - np.abs(lean - 0.5) * 2.0, 0.0, 1.0))
    light = 0.45 + 0.72 * stitch * column + 0.05 * grain(rng, 1.2, 1.2)
    kind = rng.random()
    ground = np.broadcast_to(colour, (TILE, TILE, 3))
    if kind < 0.35:
        ground = _blend(ground, accent, (np.floor(_Y / 32.0) % 4 == 0).astype(np.float32))
    elif kind < 0.75:
        twist = np.sin(2.0 * np.pi * _Y / 64.0) * 10.0
        strand = [np.exp(-(((_X % 64.0) - 32.0 - s * twist) ** 2) / 40.0) for s in (-1.0, 1.0)]
        light = light * (0.82 + 0.42 * np.maximum(*strand))
    return _tint(ground, light)


def rib(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Knit the upright ribs of hems and cuffs."""
    ridge = np.sin(2.0 * np.pi * _X / 12.8)
    return _tint(colour, 0.86 + 0.24 * ridge + 0.04 * grain(rng, 1.0, 2.0))


def denim(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave a diagonal twill with upright slubs and worn places."""
    twill = np.sin(2.0 * np.pi * (_X + _Y) / 6.4)
    light = 1.0 + 0.07 * twill + 0.035 * grain(rng, 0.8, 4.0) + 0.08 * grain(rng, 25.0, 25.0)
    return _tint(colour, light)


def dots(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Print staggered dots."""
    period = float(rng.choice([32, 42.66667]))
    shift = (np.floor(_Y / period) % 2) * period / 2.0
    x, y = (_X + shift) % period - period / 2.0, _Y % period - period / 2.0
    spot = np.clip(period * rng.uniform(0.22, 0.28) - np.hypot(x, y) + 0.5, 0.0, 1.0)
    return _blend(plain(rng, colour, accent), accent, spot)


def flowers(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Print scattered blossoms of five petals."""
    tile = np.ascontiguousarray(plain(rng, colour, accent))
    heart = np.clip(1.25 - accent, 0.0, 1.0)
    for cell in range(20):
        x = int((cell % 5 + 0.5 * (cell // 5 % 2)) * TILE / 5 + rng.integers(-8, 9))
        y = int((cell // 5) * TILE / 4 + rng.integers(-8, 9))
        size, spin = int(rng.integers(9, 14)), rng.uniform(0.0, 6.3)
        for dx in (-TILE, 0, TILE):
            for dy in (-TILE, 0, TILE):
                _blossom(tile, x + dx, y + dy, size, spin, accent, heart)
    return tile


def _blossom(tile: np.ndarray, x: int, y: int, size: int, spin: float, petal: np.ndarray, heart: np.ndarray) -> None:
    if not (-40 < x < TILE + 40 and -40 < y < TILE + 40):
        return
    for turn in np.arange(5) * 2.0 * np.pi / 5.0 + spin:
        centre = (int(x + size * np.cos(turn)), int(y + size * np.sin(turn)))
        cv2.circle(tile, centre, int(size * 0.62), petal.tolist(), -1, cv2.LINE_AA)
    cv2.circle(tile, (x, y), int(size * 0.5), heart.tolist(), -1, cv2.LINE_AA)


def satin(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Weave a soft gleam that flows down the cloth."""
    return _tint(colour, 1.0 + 0.10 * grain(rng, 10.0, 50.0))


def leather(rng: np.random.Generator, colour: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Tan a fine-grained hide."""
    return _tint(colour, 1.0 + 0.05 * grain(rng, 1.8, 1.8) + 0.03 * grain(rng, 20.0, 20.0))


WEAVERS: dict[str, Weaver] = {
    "plain": plain,
    "wool": wool,
    "herringbone": herringbone,
    "pinstripe": pinstripe,
    "stripes": stripes,
    "tartan": tartan,
    "knit": knit,
    "rib": rib,
    "denim": denim,
    "dots": dots,
    "flowers": flowers,
    "satin": satin,
    "leather": leather,
}
