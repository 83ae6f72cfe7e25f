"""The one canonical reading of a photo: upright (EXIF applied, as browsers show it), RGB, 8 bits.

Ingest checks photos with it, both services and the training read through it; so a pixel coordinate means the same
everywhere.
"""

import hashlib
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP")
MIME_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


def decode_image(data: bytes, *, max_megapixels: float = 100) -> np.ndarray:
    """Decode a photo to (height, width, 3) uint8 RGB, upright.

    Transparent pixels are laid over white, 16-bit grey is scaled to 8 bits, the first frame of an animation is taken.
    Raises ImageError with reason `empty`, `not-an-image`, `too-large` or `truncated`.
    """
    picture = _open(data, max_megapixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(_to_rgb(upright))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombWarning) as error:
        raise ImageError("truncated", f"the file ends early or is damaged ({error}); upload it again") from error


def sha256_hex(data: bytes) -> str:
    """Hash bytes to 64 lower-case hex digits: the identity of a photo's content."""
    return hashlib.sha256(data).hexdigest()


def _open(data: bytes, max_megapixels: float) -> Image.Image:
    if not data:
        raise ImageError("empty", "the file has no bytes; upload it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"{error}; upload a smaller version") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ImageError("not-an-image", f"the bytes are none of {', '.join(FORMATS)}; convert or remove it") from error
    megapixels = picture.width * picture.height / 1e6
    if megapixels > max_megapixels:
        raise ImageError(
            "too-large",
            f"{picture.width}×{picture.height} is {megapixels:.0f} megapixels, more than the {max_megapixels:g} of "
            "params.yaml (ingest.max_megapixels)",
        )
    return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float32)
        return Image.fromarray((np.clip(values, 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layered).convert("RGB")
    return picture.convert("RGB")
