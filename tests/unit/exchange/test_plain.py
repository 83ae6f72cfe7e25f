"""Photos that other readers show as Maskloop does: Pillow's `convert("RGB")` and OpenCV's `imread`."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from pipelines.errors import ImageError
from pipelines.exchange.plain import plain_photo, reduced_labels, reduced_size
from pipelines.photos.decode import decode_image

RAMP = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (40, 1))
COLORS = np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 90)], axis=2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(kind: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return saved(Image.fromarray(COLORS), kind, exif=exif, **options)


def with_alpha() -> Image.Image:
    return Image.fromarray(np.dstack([COLORS, RAMP]))


def palette_with_transparency() -> bytes:
    return saved(Image.fromarray(COLORS).quantize(16), "PNG", transparency=3)


def sixteen_bits(shape: tuple[int, ...]) -> bytes:
    encoded_ok, data = cv2.imencode(".png", np.resize(RAMP.astype(np.uint16) * 257, shape))
    assert encoded_ok
    return data.tobytes()


def inverted_cmyk() -> bytes:
    """A CMYK JPEG as Adobe writes it: Pillow writes such a marker and inverts."""
    return saved(Image.fromarray(COLORS).convert("CMYK"), "JPEG", quality=95)


def animation() -> bytes:
    frames = [Image.fromarray(COLORS), Image.fromarray(COLORS[::-1])]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


REWRITTEN: dict[str, Callable[[], bytes]] = {
    "16-bit grey": lambda: sixteen_bits((40, 48)),
    "16-bit RGB": lambda: sixteen_bits((40, 48, 3)),
    "CMYK JPEG": inverted_cmyk,
    "palette with transparency": palette_with_transparency,
    "RGBA PNG": lambda: saved(with_alpha(), "PNG"),
    "grey with alpha": lambda: saved(with_alpha().convert("LA"), "PNG"),
    "RGB PNG with a transparent colour": lambda: saved(Image.fromarray(COLORS), "PNG", transparency=(0, 255, 90)),
    "RGBA WebP": lambda: saved(with_alpha(), "WEBP", lossless=True),
    "JPEG turned by EXIF": lambda: turned("JPEG"),
    "PNG turned by EXIF": lambda: turned("PNG"),
    "WebP turned by EXIF": lambda: turned("WEBP", lossless=True),
    "animated PNG": animation,
    "TIFF": lambda: saved(Image.fromarray(COLORS), "TIFF"),
    "BMP": lambda: saved(Image.fromarray(COLORS), "BMP"),
}
KEPT: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG": (lambda: saved(Image.fromarray(COLORS), "JPEG"), ".jpg"),
    "grey JPEG": (lambda: saved(Image.fromarray(RAMP), "JPEG"), ".jpg"),
    "progressive JPEG": (lambda: saved(Image.fromarray(COLORS), "JPEG", progressive=True), ".jpg"),
    "PNG": (lambda: saved(Image.fromarray(COLORS), "PNG"), ".png"),
    "palette PNG": (lambda: saved(Image.fromarray(COLORS).quantize(16), "PNG"), ".png"),
    "1-bit PNG": (lambda: saved(Image.fromarray(RAMP).convert("1"), "PNG"), ".png"),
    "WebP": (lambda: saved(Image.fromarray(COLORS), "WEBP"), ".webp"),
}


def as_pillow_shows(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def as_opencv_shows(data: bytes) -> np.ndarray:
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    return shown[..., ::-1]


@pytest.mark.parametrize("kind", REWRITTEN)
def test_what_readers_show_differently_is_written_anew(kind: str) -> None:
    data = REWRITTEN[kind]()
    plain, suffix, size = plain_photo(data)
    wanted = decode_image(data)
    assert (plain[:4], suffix, size) == (b"\x89PNG", ".png", wanted.shape[:2])
    np.testing.assert_array_equal(as_pillow_shows(plain), wanted)
    np.testing.assert_array_equal(as_opencv_shows(plain), wanted)


@pytest.mark.parametrize("kind", KEPT)
def test_what_every_reader_shows_alike_stays_as_it_is(kind: str) -> None:
    make, suffix = KEPT[kind]
    data = make()
    assert plain_photo(data) == (data, suffix, (40, 48))
    np.testing.assert_array_equal(as_pillow_shows(data), decode_image(data))
    assert np.abs(as_opencv_shows(data).astype(int) - decode_image(data)).max() <= 2


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_an_avif_becomes_png() -> None:
    data = saved(Image.fromarray(COLORS), "AVIF", quality=90)
    plain, suffix, size = plain_photo(data)
    assert (suffix, size) == (".png", (40, 48))
    np.testing.assert_array_equal(as_opencv_shows(plain), decode_image(data))


def test_a_jpeg_without_its_end_is_written_anew() -> None:
    data = saved(Image.fromarray(COLORS), "JPEG")[:-2]
    plain, suffix, _ = plain_photo(data)
    assert suffix == ".png"
    np.testing.assert_array_equal(as_pillow_shows(plain), decode_image(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_turned_photo_keeps_its_profile(kind: str) -> None:
    plain, _, size = plain_photo(turned(kind, icc_profile=SRGB))
    assert size == (48, 40)
    assert Image.open(io.BytesIO(plain)).info["icc_profile"] == SRGB


def test_a_profile_of_other_colours_than_rgb_is_left_out() -> None:
    grey = SRGB[:16] + b"GRAY" + SRGB[20:]
    exif = Image.Exif()
    exif[274] = 3
    plain, _, _ = plain_photo(saved(Image.fromarray(RAMP), "JPEG", exif=exif, icc_profile=grey))
    assert "icc_profile" not in Image.open(io.BytesIO(plain)).info


def test_bytes_that_are_no_photo_are_refused() -> None:
    with pytest.raises(ImageError):
        plain_photo(b"GIF, or not")


def test_a_photo_is_reduced_by_averaging_and_never_enlarged() -> None:
    stripes = np.repeat(np.tile(np.array([0, 200], np.uint8), (40, 24))[..., None], 3, axis=2)
    data = saved(Image.fromarray(stripes), "PNG")
    assert plain_photo(data, longest_edge=48) == plain_photo(data, longest_edge=4000) == (data, ".png", (40, 48))
    plain, suffix, size = plain_photo(data, longest_edge=24)
    assert (suffix, size) == (".png", (20, 24))
    assert np.unique(as_pillow_shows(plain)).tolist() == [100]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((3000, 2000), (1024, 683)), ((2000, 3000), (683, 1024)), ((800, 600), (800, 600)), ((9000, 1), (1024, 1))],
)
def test_the_longer_side_counts(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert reduced_size(*size, 1024) == wanted


def test_a_reduced_mask_has_the_labels_at_its_pixels_centres_and_no_others() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[3:6, 3:6] = 7
    mask[6:, 6:] = 255
    np.testing.assert_array_equal(reduced_labels(mask, 3, 3), [[0, 0, 0], [0, 7, 0], [0, 0, 255]])
