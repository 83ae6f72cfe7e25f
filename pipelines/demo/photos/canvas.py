"""The oversampled picture and its index mask, painted together so that they always agree.

Every layer is one polygon mask. It replaces the colours and the index below it, is rounded and folded by a light, and
throws a soft shadow on the figure (never on the backdrop) underneath.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

OVERSAMPLE = 2
_SUBPIXEL_BITS = 4
_PAD_PX = 28


@dataclass(frozen=True)
class Cloth:
    """A material: a tile (T, T, 3) float32 RGB in 0..1, the index it leaves in the mask and how light sees it."""

    tile: np.ndarray
    index: int = 0
    roundness: float = 0.035  # body units over which an edge is rounded
    folds: float = 0.0  # depth, body units
    fold_stretch: float = 4.0  # length of a fold over its width
    sheen: float = 0.0

    @cached_property
    def colour(self) -> np.ndarray:
        """Return the mean colour (3,) float32."""
        return self.tile.mean(axis=(0, 1))


@dataclass(frozen=True)
class Placement:
    """The figure's position: body units to oversampled pixels; `turn` narrows a body that is turned aside."""

    centre_x: float
    top_y: float
    height: float
    turn: float

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 2) body units to (N, 2) float pixels."""
        scale = np.array([self.height * self.turn, self.height])
        return np.asarray(points) * scale + (self.centre_x, self.top_y)


class Canvas:
    """A picture `rgb` (2H, 2W, 3) float32 in 0..1 and a mask `index` (2H, 2W) uint8, painted layer by layer."""

    def __init__(
        self, backdrop: np.ndarray, placement: Placement, light: tuple[float, float, float], rng: np.random.Generator
    ) -> None:
        """Start from a (H, W, 3) float32 backdrop; `light` points from the figure to the lamp (x, y, z), y down."""
        height, width = backdrop.shape[:2]
        self.rgb: np.ndarray = cv2.resize(
            backdrop, (width * OVERSAMPLE, height * OVERSAMPLE), interpolation=cv2.INTER_LINEAR
        )
        self.index = np.zeros(self.rgb.shape[:2], np.uint8)
        self.placement = placement
        self._painted = np.zeros(self.rgb.shape[:2], np.float32)
        self._light = (np.asarray(light) / np.linalg.norm(light)).astype(np.float32)
        self._rng = rng

    def paint(
        self,
        outlines: Sequence[np.ndarray],
        cloth: Cloth,
        *,
        angle: float = 0.0,
        shadow: float = 0.35,
        tone: float = 1.0,
    ) -> None:
        """Paint the union of outlines (body units) on top; `angle` turns the cloth, `tone` brightens or darkens it."""
        shapes = [self.placement.pixels(outline) for outline in outlines]
        box = self._box(shapes)
        if box is None:
            return
        mask = self._fill(shapes, box)
        if shadow:
            self._drop_shadow(mask, box, shadow)
        lambert = self._lambert(mask, cloth)
        texture = self._texture(cloth, mask.shape, box, angle)
        lit: np.ndarray = cv2.multiply(texture, _threefold(0.42 + 0.70 * lambert), scale=tone)
        if cloth.sheen:
            lit += _threefold(cloth.sheen * lambert**14)
        cv2.copyTo(lit, mask, self.rgb[box])
        self.index[box][mask > 0] = cloth.index
        self._painted[box][mask > 0] = 1.0

    def stroke(self, points: np.ndarray, width: float, index: int, *, tone: float = 0.6, closed: bool = False) -> None:
        """Darken (or brighten) a line on what is already painted with `index`; the mask stays as it is."""
        shape = self.placement.pixels(points)
        box = self._box([shape])
        if box is None:
            return
        mask = np.zeros(self.index[box].shape, np.uint8)
        thickness = max(1, round(width * self.placement.height))
        cv2.polylines(mask, [self._subpixels(shape, box)], closed, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        where = (self.index[box] == index) & (self._painted[box] > 0)
        share = cv2.GaussianBlur(mask, (3, 3), 0).astype(np.float32) / 255.0 * where
        self.rgb[box] *= _threefold(1.0 + (tone - 1.0) * share)

    def spot(self, outline: np.ndarray, colour: Sequence[float] | np.ndarray, index: int, share: float = 1.0) -> None:
        """Colour a small detail (button, eye, clasp) on what is already painted with `index`."""
        shape = self.placement.pixels(outline)
        box = self._box([shape], pad=4)
        if box is None:
            return
        soft = cv2.GaussianBlur(self._fill([shape], box), (3, 3), 0).astype(np.float32) / 255.0
        soft *= share * ((self.index[box] == index) & (self._painted[box] > 0))
        self.rgb[box] += (np.asarray(colour, np.float32) - self.rgb[box]) * soft[..., None]

    def picture(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the anti-aliased (H, W, 3) float32 picture and its crisp (H, W) uint8 index mask."""
        size = (self.index.shape[1] // OVERSAMPLE, self.index.shape[0] // OVERSAMPLE)
        rgb = cv2.resize(np.minimum(self.rgb, 1.0), size, interpolation=cv2.INTER_AREA)
        return rgb, np.ascontiguousarray(self.index[::OVERSAMPLE, ::OVERSAMPLE])

    def _box(self, shapes: Sequence[np.ndarray], pad: int = _PAD_PX) -> tuple[slice, slice] | None:
        corners = np.vstack(shapes)
        x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int) - pad, 0)
        x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + pad, self.index.shape[::-1])
        return (slice(y0, y1), slice(x0, x1)) if x1 - x0 > 2 and y1 - y0 > 2 else None

    @staticmethod
    def _subpixels(shape: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
        return np.round((shape - (box[1].start, box[0].start)) * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def _fill(self, shapes: Sequence[np.ndarray], box: tuple[slice, slice]) -> np.ndarray:
        mask = np.zeros(self.index[box].shape, np.uint8)
        for shape in shapes:
            cv2.fillPoly(mask, [self._subpixels(shape, box)], 255, cv2.LINE_8, _SUBPIXEL_BITS)
        return mask

    def _drop_shadow(self, mask: np.ndarray, box: tuple[slice, slice], strength: float) -> None:
        small = cv2.resize(mask, (mask.shape[1] // 4 + 1, mask.shape[0] // 4 + 1), interpolation=cv2.INTER_AREA)
        reach = -self._light[:2] * 2.5
        shift = np.array([[1.0, 0.0, reach[0]], [0.0, 1.0, reach[1]]], np.float32)
        soft = cv2.GaussianBlur(cv2.warpAffine(small, shift, small.shape[::-1]), (0, 0), 2.0)
        soft = cv2.resize(soft, mask.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)
        self.rgb[box] *= _threefold(1.0 - soft * self._painted[box] * (strength / 255.0))

    def _texture(self, cloth: Cloth, shape: tuple[int, int], box: tuple[slice, slice], angle: float) -> np.ndarray:
        """Repeat the tile over a box, turned by `angle` radians and fixed to the picture's corner."""
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0]])
        turn[:, 2] = turn[:, :2] @ (box[1].start, box[0].start) % cloth.tile.shape[0]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(cloth.tile, turn, shape[::-1], flags=flags, borderMode=cv2.BORDER_WRAP)

    def _lambert(self, mask: np.ndarray, cloth: Cloth) -> np.ndarray:
        """Light a layer as a padded relief: height from the distance to the edge plus folds, then Lambert's law.

        Worked out at half resolution, as nothing in it is sharp; returns float32 in 0..1 of the mask's shape.
        """
        small = cv2.resize(mask, (mask.shape[1] // 2, mask.shape[0] // 2), interpolation=cv2.INTER_AREA)
        depth = cv2.distanceTransform((small > 127).astype(np.uint8), cv2.DIST_L2, 3)
        radius = cloth.roundness * self.placement.height / 2
        relief = 0.75 * radius * np.sqrt(1.0 - (1.0 - np.clip(depth / radius, 0.0, 1.0)) ** 2)
        if cloth.folds:
            relief += cloth.folds * self.placement.height / 2 * self._folds(small.shape, cloth.fold_stretch)
        soft = cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 2.0)
        gx, gy = (cv2.Sobel(soft, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
        lx, ly, lz = self._light
        lambert = np.clip((lz - gx * lx - gy * ly) / np.sqrt(1.0 + gx * gx + gy * gy), 0.0, 1.0)
        return cv2.resize(lambert, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)

    def _folds(self, shape: tuple[int, int], stretch: float) -> np.ndarray:
        cell = 0.022 * self.placement.height / 2
        grid = (int(shape[0] / (cell * stretch)) + 3, int(shape[1] / cell) + 3)
        noise = self._rng.standard_normal(grid).astype(np.float32)
        return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _threefold(field: np.ndarray) -> np.ndarray:
    """Repeat a (H, W) float32 field for three channels; faster than broadcasting over a short last axis."""
    return cv2.merge((field, field, field))
