"""The one canonical reading of a photo: upright (EXIF applied, as browsers show it), RGB, 8 bits.

Ingest checks photos with it, both services and the training read through it; so a pixel coordinate means the same
everywhere.
"""

import hashlib
import io
import struct

import cv2
import numpy as np
from PIL import ExifTags, Image

from pipelines.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP")
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before anything is decoded
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises for bytes it cannot read
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, *, max_megapixels: float = 100) -> np.ndarray:
    """Decode a photo to (height, width, 3) uint8 RGB, upright.

    Transparent pixels are laid over white, 16-bit grey is scaled to 8 bits, the first frame of an animation is taken.
    Raises ImageError with reason `empty`, `not-an-image`, `too-large` or `truncated`.
    """
    picture = _open(data, max_megapixels)
    try:
        picture.load()
        return np.asarray(_to_rgb(_upright(picture)))
    except _DAMAGE as error:
        raise ImageError("truncated", f"the file ends early or is damaged ({error}); upload it again") from error


def examine_image(data: bytes, *, max_megapixels: float = 100) -> tuple[int, int, str]:
    """Check a photo as `decode_image` does, at less cost; gives upright height and width, and its perceptual hash.

    A JPEG's data are read to the end, but its pixels are worked out at as little as an eighth of the size. Raises
    ImageError like `decode_image`.
    """
    picture = _open(data, max_megapixels)
    width, height = picture.size
    try:
        picture.draft("RGB", (128, 128))  # not smaller than this; other formats take no notice
        picture.load()
        turned = _upright(picture)
        if _turn(picture) in _SIDEWAYS:
            width, height = height, width
        return height, width, perceptual_hash(np.asarray(_to_rgb(turned)))
    except _DAMAGE as error:
        raise ImageError("truncated", f"the file ends early or is damaged ({error}); upload it again") from error


def image_kind(data: bytes) -> tuple[str, bool]:
    """Tell a photo's format (JPEG, MPO, PNG or WEBP) and whether it moves; raises ImageError like `decode_image`.

    MPO is what cameras write that put a preview behind the JPEG, and no animation.
    """
    picture = _open(data, float("inf"))
    kind = str(picture.format)
    return kind, kind != "MPO" and bool(getattr(picture, "is_animated", False))


def stored_upright(data: bytes) -> bool:
    """Tell whether every program shows the photo upright, because no EXIF turns it."""
    return _turn(_open(data, float("inf"))) is None


def encode_png(image: np.ndarray) -> bytes:
    """Write a (H, W, 3) uint8 RGB photo as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def image_megapixels(data: bytes, *, max_megapixels: float = 100) -> float:
    """Tell a photo's size from its first bytes; raises ImageError like `decode_image`, but never for `truncated`."""
    picture = _open(data, max_megapixels)
    return picture.width * picture.height / 1e6


def sha256_hex(data: bytes) -> str:
    """Hash bytes to 64 lower-case hex digits: the identity of a photo's content."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(image: np.ndarray) -> str:
    """Hash what a (H, W, 3) uint8 RGB photo looks like: 64 bits as 16 hex digits.

    Copies of another size, compression or brightness differ in a few bits at most, different photos in ten and more.
    Zauner: «Implementation and Benchmarking of Perceptual Image Hash Functions» (2010), pHash, as ImageHash has it.
    """
    import imagehash  # with SciPy it takes a third of a second to import, and only ingest needs it

    small = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(small)))


def _open(data: bytes, max_megapixels: float) -> Image.Image:
    if not data:
        raise ImageError("empty", "the file has no bytes; upload it again")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except _DAMAGE as error:
        raise ImageError("not-an-image", f"the bytes are none of {', '.join(FORMATS)}; convert or remove it") from error
    megapixels = picture.width * picture.height / 1e6
    if megapixels > max_megapixels:
        raise ImageError(
            "too-large",
            f"{picture.width}×{picture.height} is {megapixels:.0f} megapixels, more than the {max_megapixels:g} of "
            "params.yaml (ingest.max_megapixels)",
        )
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    """Turn as Chromium does: by the EXIF of JPEG and the eXIf of PNG, and by nothing else.

    Pillow would also read XMP, raw profiles of PNG, and the EXIF of WebP. Damaged EXIF costs its turn, not the photo.
    """
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    if picture.format not in ("JPEG", "PNG"):
        return None
    exif = Image.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        return _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float32)
        return Image.fromarray((np.clip(values, 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layered).convert("RGB")
    return picture.convert("RGB")
