"""The camera: colour cast, vignette, softness, grain and compression, applied to the finished picture."""

import io

import cv2
import numpy as np
from PIL import Image

from pipelines.demo.photos.shows import Show


def expose(rgb: np.ndarray, show: Show, rng: np.random.Generator) -> np.ndarray:
    """Turn a (H, W, 3) float32 picture in 0..1 into the uint8 photo a camera of the show would have taken."""
    height, width = rgb.shape[:2]
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    falloff = 1.0 - show.vignette * np.clip(0.5 * (x * x + y * y), 0.0, 1.0)
    lit = rgb * falloff[..., None] * (show.cast * rng.uniform(0.94, 1.06)).astype(np.float32)
    soft = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.35, 0.65))
    grainy = soft + rng.uniform(0.006, 0.016) * rng.standard_normal((height, width, 1), dtype=np.float32)
    return _compressed((np.clip(grainy, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), int(rng.integers(78, 93)))


def _compressed(photo: np.ndarray, quality: int) -> np.ndarray:
    """Send a photo through JPEG once, for the marks it leaves."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))
