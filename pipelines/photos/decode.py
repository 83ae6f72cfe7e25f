"""The one canonical reading of a photo: upright (EXIF applied, as browsers show it), RGB, 8 bits.

Ingest, both services and the training read photos with it, so that a pixel coordinate means the same everywhere.
"""

import hashlib
import io
import struct
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from pipelines.errors import ImageError

# What browsers show as it is; MPO is a JPEG with a preview behind it.
BROWSER_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
# Masters: their photos are shown as copies, see `display_copy`. HEIF (HEIC) is read by pi-heif.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "HEIF")
_NAMED = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG 2000"
_PAGES = ("MPO", "TIFF", "HEIF")  # formats whose further images are previews or pages; the first is the photo
_COPY_QUALITY = 95
_END_OF_IMAGE = b"\xff\xd9"
_FILLERS = (b"", b"\x5a\xa5\x33\xcc" * 64, b"\xa5\x5a\xcc\x33" * 64)  # each decodes to something else
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before anything is decoded
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises for bytes it cannot read
_TRANSPOSES = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAP_HEIGHT_AND_WIDTH = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, *, max_megapixels: float = 100) -> NDArray[np.uint8]:
    """Decode a photo to (height, width, 3) uint8 RGB, upright.

    Transparent pixels are blended with white, 16-bit grey is scaled to 8 bits, and of several frames or pages the first
    counts. A JPEG that lacks only its end marker is read. Raises ImageError with reason `empty`, `not-an-image`,
    `too-large`, `unsupported` or `truncated`.
    """
    picture = _load(data, max_megapixels)
    try:
        return np.asarray(_to_rgb(_upright(picture)))
    except _DAMAGE as error:
        raise _unsupported(picture, error) from error


def examine_image(data: bytes, *, max_megapixels: float = 100) -> tuple[int, int, str]:
    """Check a photo as `decode_image` does, at less cost; returns upright height, width, and perceptual hash.

    A JPEG's data are read to the end, but its pixels are decoded at down to an eighth of the size. Raises ImageError
    like `decode_image`.
    """
    width, height = _open(data, max_megapixels).size
    picture = _load(data, max_megapixels, (128, 128))  # not smaller than this; it has no effect on other formats
    try:
        upright = _upright(picture)
        if _transpose_of(picture) in _SWAP_HEIGHT_AND_WIDTH:
            width, height = height, width
        return height, width, perceptual_hash(np.asarray(_to_rgb(upright)))
    except _DAMAGE as error:
        raise _unsupported(picture, error) from error


def display_copy(data: bytes, *, max_megapixels: float = 100, size: tuple[int, int] | None = None) -> bytes:
    """Return a photo as a JPEG that every browser shows: upright, with full colour resolution.

    It has the photo's size, or the smaller (height, width) of `size`, and keeps the colour profile of RGB photos.
    Raises ImageError like `decode_image`.
    """
    picture = _open(data, max_megapixels)
    profile = picture.info.get("icc_profile") if picture.mode == "RGB" else None
    file = io.BytesIO()
    photo = decode_image(data, max_megapixels=max_megapixels)
    if size and size != photo.shape[:2]:
        photo = np.asarray(cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    try:
        Image.fromarray(photo).save(file, "JPEG", quality=_COPY_QUALITY, subsampling=0, icc_profile=profile)
    except OSError as error:  # a JPEG has at most 65,500 rows and columns
        raise ImageError("too-large", f"no JPEG holds {picture.width}×{picture.height} pixels ({error})") from error
    return file.getvalue()


def image_kind(data: bytes) -> tuple[str, bool]:
    """Return a photo's format, one of `FORMATS` or MPO, and whether it is an animation.

    MPO is a JPEG with a preview behind it, as some cameras write, and no animation; nor are pages of a TIFF. Raises
    ImageError like `decode_image`.
    """
    picture = _open(data, float("inf"))
    kind = str(picture.format)
    return kind, kind not in _PAGES and bool(getattr(picture, "is_animated", False))


def stored_upright(data: bytes) -> bool:
    """Return whether every program shows the photo upright, because no EXIF orientation changes it."""
    return _transpose_of(_open(data, float("inf"))) is None


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode a (H, W, 3) uint8 RGB photo as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def image_megapixels(data: bytes, *, max_megapixels: float = 100) -> float:
    """Return a photo's megapixels by its first bytes; raises ImageError as `decode_image` does, never `truncated`."""
    picture = _open(data, max_megapixels)
    return picture.width * picture.height / 1e6


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 lower-case hex digits: the identity of a photo's content."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(image: NDArray[np.uint8]) -> str:
    """Return the perceptual hash of a (H, W, 3) uint8 RGB photo: 64 bits as 16 hex digits.

    Duplicates of another size, compression or brightness differ in a few bits at most, different photos in ten and
    more. pHash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), by ImageHash.
    """
    import imagehash  # with SciPy it takes a third of a second to import, and only ingest needs it

    small = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    return str(imagehash.phash(Image.fromarray(small)))


def _open(data: bytes, max_megapixels: float) -> Image.Image:
    if not data:
        raise ImageError("empty", "the file has no bytes; upload it again")
    _register_heif()
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except _DAMAGE as error:
        raise ImageError("not-an-image", f"the bytes are none of {_NAMED}; convert or remove it") from error
    megapixels = picture.width * picture.height / 1e6
    if megapixels > max_megapixels:
        raise ImageError(
            "too-large",
            f"{picture.width}×{picture.height} is {megapixels:.0f} megapixels, more than the {max_megapixels:g} of "
            "params.yaml (ingest.max_megapixels)",
        )
    return picture


@cache
def _register_heif() -> None:
    """Let Pillow read HEIC, once per process."""
    from pi_heif import register_heif_opener

    register_heif_opener()


def _load(data: bytes, max_megapixels: float, draft: tuple[int, int] | None = None) -> Image.Image:
    """Open and decode a photo; with `draft`, a JPEG may be decoded at a smaller size that is not below it.

    Raises ImageError like `decode_image`.
    """

    def decoded(part: bytes) -> Image.Image:
        picture = _open(part, max_megapixels)
        if draft:
            picture.draft("RGB", draft)
        picture.load()
        return picture

    try:
        return decoded(data)
    except _DAMAGE as error:
        if isinstance(error, ImageError):
            raise
        picture = _complete_without_end(data, decoded)
        if picture is None:
            raise ImageError("truncated", f"the file ends early or is damaged ({error}); upload it again") from error
        return picture


def _complete_without_end(data: bytes, decoded: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """Return the photo of a JPEG that lacks only its end marker; None when it lacks more.

    Where pixels are missing, libjpeg fills them by what follows; so all of them are there when other bytes behind the
    data change none.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    data = data.rstrip(b"\xff")  # the first half of an end marker
    try:
        picture, *filled = [decoded(data + filler + _END_OF_IMAGE) for filler in _FILLERS]
    except _DAMAGE:
        return None
    return picture if all(np.array_equal(np.asarray(picture), np.asarray(other)) for other in filled) else None


def _unsupported(picture: Image.Image, error: BaseException) -> ImageError:
    return ImageError(
        "unsupported",
        f"its colours are stored in a way that cannot be shown ({picture.format}, {picture.mode}: {error}); save it "
        "with 8 or 16 bits as grey, RGB or CMYK",
    )


def _upright(picture: Image.Image) -> Image.Image:
    """Transpose as Chromium does: by the EXIF of JPEG and the eXIf of PNG, and by nothing else.

    Pillow would also read XMP, raw profiles of PNG, and the EXIF of WebP. A photo with damaged EXIF stays as it is. Of
    AVIF, Pillow gives the orientation as EXIF; TIFF and HEIF come upright from their decoders.
    """
    transpose = _transpose_of(picture)
    return picture if transpose is None else picture.transpose(transpose)


def _transpose_of(picture: Image.Image) -> Image.Transpose | None:
    if picture.format not in ("JPEG", "PNG", "AVIF"):
        return None
    exif = Image.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        return _TRANSPOSES.get(exif.get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float32)
        if picture.mode in ("I", "F") and picture.format == "TIFF":
            raise ValueError("32 bits per value")  # whose range nothing says
        return Image.fromarray((np.clip(values, 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layered).convert("RGB")
    return picture.convert("RGB")
