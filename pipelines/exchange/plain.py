"""Photos in a form that every common reader shows as Maskloop does.

Readers differ in what they make of EXIF, transparency, 16 bits, CMYK, animations and damage, and few read TIFF or
HEIC. A photo that has none of these is handed on as it is; every other one is written anew from the canonical reading.
"""

import io

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pipelines.photos import decode
from pipelines.photos.decode import decode_image

# Suffix by Pillow's format and mode, of 8 bits each; what is not listed is written anew.
_PLAIN = {
    **{(kind, mode): ".jpg" for kind in ("JPEG", "MPO") for mode in ("L", "RGB")},
    **{("PNG", mode): ".png" for mode in ("1", "L", "P", "RGB")},
    ("WEBP", "RGB"): ".webp",
}
_PNG_BIT_DEPTH = 24  # position of this byte in a PNG
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError)
_ICC_COLOR_SPACE = slice(16, 20)


def plain_photo(data: bytes, longest_edge: int | None = None) -> tuple[bytes, str, tuple[int, int]]:
    """Return a photo's bytes for other readers, the suffix of its format, and its height and width in pixels.

    A photo whose longer edge exceeds `longest_edge` pixels is reduced to it by averaging areas. What is written anew is
    an 8-bit RGB PNG, with the photo's ICC profile where that is one of RGB. Raise ImageError as `decode_image` does.
    """
    suffix, height, width = _plain_suffix(data)
    if suffix and (longest_edge is None or max(height, width) <= longest_edge):
        return data, suffix, (height, width)
    pixels = decode_image(data, max_megapixels=float("inf"))
    height, width = reduced_size(pixels.shape[0], pixels.shape[1], longest_edge)
    if (height, width) != pixels.shape[:2]:
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", icc_profile=_rgb_profile(data))
    return file.getvalue(), ".png", (height, width)


def reduced_size(height: int, width: int, longest_edge: int | None) -> tuple[int, int]:
    """Return height and width in pixels with a longer edge of `longest_edge` at most and the same ratio, 1 at least."""
    if longest_edge is None or max(height, width) <= longest_edge:
        return height, width
    scale = longest_edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def reduced_labels(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a (H, W) map of ids with another size; each pixel has the id at its centre."""
    rows, columns = (
        (np.arange(after) * 2 + 1) * before // (2 * after)
        for before, after in zip(values.shape, (height, width), strict=True)
    )
    return np.ascontiguousarray(values[np.ix_(rows, columns)])


def _plain_suffix(data: bytes) -> tuple[str, int, int]:
    """Return the suffix for a photo that every reader shows alike, with height and width; no suffix for others."""
    try:
        picture = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        suffix = _PLAIN.get((str(picture.format), picture.mode), "")
        if (
            picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
            or "transparency" in picture.info
            or (picture.format == "PNG" and data[_PNG_BIT_DEPTH] > 8)
            or (picture.format != "MPO" and getattr(picture, "is_animated", False))
        ):
            suffix = ""
        if suffix:
            picture.load()  # readers refuse a file that ends early, even where its pixels are whole
        return suffix, picture.height, picture.width
    except _UNREADABLE:
        return "", 0, 0


def _rgb_profile(data: bytes) -> bytes | None:
    """Return the photo's ICC profile if it describes RGB, which the pixels written are."""
    try:
        profile = Image.open(io.BytesIO(data), formats=decode.FORMATS).info.get("icc_profile")
    except (UnidentifiedImageError, *_UNREADABLE):
        return None
    return profile if isinstance(profile, bytes) and profile[_ICC_COLOR_SPACE] == b"RGB " else None
