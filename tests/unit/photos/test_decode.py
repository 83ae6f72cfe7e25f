"""One canonical reading of a photo, however it was saved; and a reason code for whatever is no photo."""

import base64
import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines.demo.photos import draw_photo
from pipelines.errors import ImageError
from pipelines.params import Params
from pipelines.photos.decode import (
    decode_image,
    display_copy,
    examine_image,
    image_kind,
    perceptual_hash,
    sha256_hex,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
WIDTH, ORIENTATION = 0x0100, 0x0112  # tags of EXIF
UPRIGHT = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
# How a camera that was turned would have saved UPRIGHT: the inverse of what the tag asks for.
STORED_AS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def saved(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    picture.save(data, kind, **options)
    return data.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def plain(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (4, 3), color)


def png_that_claims(width: int, height: int) -> bytes:
    """A file of some hundred bytes whose header promises any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 40, 3), dtype=np.uint8)


class TestUpright:
    @pytest.mark.parametrize("orientation", STORED_AS)
    def test_exif_is_applied(self, orientation: int) -> None:
        data = saved(STORED_AS[orientation](UPRIGHT), "PNG", exif=exif(orientation))
        assert np.array_equal(decode_image(data), UPRIGHT)

    def test_what_browsers_do_not_apply_is_not_applied_either(self) -> None:
        """Which these are is looked up in a real browser by tests/e2e/test_orientation.py."""
        data = saved(UPRIGHT, "WEBP", exif=exif(6), lossless=True)
        assert np.array_equal(decode_image(data), UPRIGHT)

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_unknown_orientations_turn_nothing(self, orientation: int) -> None:
        assert np.array_equal(decode_image(saved(UPRIGHT, exif=exif(orientation))), UPRIGHT)

    def test_a_damaged_tag_does_not_cost_the_turn(self) -> None:
        tags = exif(6)
        tags[WIDTH] = 3
        damaged = tags.tobytes().replace(struct.pack(">HH", WIDTH, 4), struct.pack(">HH", WIDTH, 2))  # a number as text
        assert damaged != tags.tobytes()
        assert np.array_equal(decode_image(saved(STORED_AS[6](UPRIGHT), exif=damaged)), UPRIGHT)

    def test_exif_that_is_none_does_not_cost_the_photo(self) -> None:
        assert np.array_equal(decode_image(saved(UPRIGHT, exif=b"Exif\0\0nonsense")), UPRIGHT)

    @pytest.mark.parametrize("mode", ["I;16", "P", "LA", "L", "1"])
    def test_every_mode_is_turned(self, mode: str) -> None:
        picture = Image.new(mode, (4, 3))
        assert decode_image(saved(picture, exif=exif(6))).shape == (4, 3, 3)


class TestColours:
    @pytest.mark.parametrize(
        ("picture", "kind", "colour"),
        [
            (plain("CMYK", (0, 255, 255, 0)), "JPEG", RED),
            (plain("L", 7), "PNG", (7, 7, 7)),
            (plain("1", 1), "PNG", WHITE),
            (plain("I;16", 0x8080), "PNG", (128, 128, 128)),
            (plain("I;16", 65535), "PNG", WHITE),
            (plain("RGBA", (*RED, 255)), "PNG", RED),
            (plain("RGBA", (*RED, 0)), "PNG", WHITE),
            (plain("RGBA", (*RED, 127)), "WEBP", (255, 128, 128)),
            (plain("LA", (0, 127)), "PNG", (128, 128, 128)),
        ],
        ids=lambda value: f"{value.mode}-{value.getpixel((0, 0))}" if isinstance(value, Image.Image) else str(value),
    )
    def test_every_kind_becomes_rgb_over_white(self, picture: Image.Image, kind: str, colour: tuple[int, ...]) -> None:
        image = decode_image(saved(picture, kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert (image.shape, image.dtype) == ((3, 4, 3), np.uint8)
        assert np.abs(image.astype(int) - colour).max() <= 1

    def test_a_palettes_transparent_colour_is_white(self) -> None:
        picture = plain("P", 0)
        picture.putpalette([*RED, *GREEN])
        picture.putpixel((1, 2), 1)
        image = decode_image(saved(picture, transparency=1))
        assert tuple(image[0, 0]) == RED
        assert tuple(image[2, 1]) == WHITE

    @pytest.mark.parametrize(("mode", "color"), [("RGB", RED), ("L", 7)])
    def test_a_transparent_colour_without_alpha_is_white(self, mode: str, color: Any) -> None:
        assert (decode_image(saved(plain(mode, color), transparency=color)) == 255).all()


class TestAnimations:
    @pytest.mark.parametrize("kind", ["WEBP", "PNG"])
    def test_the_first_frame_is_taken(self, kind: str) -> None:
        frames = {"save_all": True, "append_images": [plain("RGB", BLUE)], "lossless": True}
        assert (decode_image(saved(plain("RGB", RED), kind, **frames)) == RED).all()


def test_one_pixel_is_a_photo() -> None:
    assert decode_image(saved(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_same_bytes_give_the_same_pixels(noise: np.ndarray, kind: str) -> None:
    data = saved(noise, kind)
    assert np.array_equal(decode_image(data), decode_image(data))


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "empty"),
            (b"<html><body>404 Not Found</body></html>", "not-an-image"),
            (b"\xff\xd8\xff", "not-an-image"),
            (saved(plain("RGB", RED), "PPM"), "not-an-image"),
            (saved(plain("RGB", RED), "PDF"), "not-an-image"),
            (png_that_claims(0, 10), "not-an-image"),
        ],
        ids=["zero-bytes", "html", "three-bytes", "ppm", "pdf", "no-width"],
    )
    def test_what_is_no_photo_has_a_reason(self, data: bytes, reason: str) -> None:
        with pytest.raises(ImageError) as caught:
            decode_image(data)
        assert caught.value.reason == reason

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_half_a_file_is_truncated(self, noise: np.ndarray, kind: str) -> None:
        data = saved(noise, kind)
        with pytest.raises(ImageError, match="upload it again") as caught:
            decode_image(data[: len(data) // 2])
        assert caught.value.reason == "truncated"

    def test_text_that_unpacks_to_a_flood_is_refused(self) -> None:
        text = PngInfo()
        text.add_text("comment", "x" * 2_000_000, zip=True)
        with pytest.raises(ImageError):
            decode_image(saved(plain("RGB", RED), pnginfo=text))

    @pytest.mark.parametrize("size", [(10_000, 10_001), (40_000, 40_000)])
    def test_too_many_megapixels_are_refused_from_the_header(self, size: tuple[int, int]) -> None:
        data = png_that_claims(*size)
        decode_image(saved(plain("RGB", RED)))  # Pillow loads its formats on first use
        tracemalloc.start()
        started = time.process_time()
        try:
            with pytest.raises(ImageError) as caught:
                decode_image(data, max_megapixels=100)
            assert caught.value.reason == "too-large"
            assert time.process_time() - started < 0.5
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()

    def test_the_limit_is_named(self) -> None:
        with pytest.raises(ImageError, match=r"40×60 is 0 megapixels, more than the 0\.002 .*ingest\.max_megapixels"):
            decode_image(saved(np.zeros((60, 40, 3), np.uint8)), max_megapixels=0.002)

    @given(
        kind=st.sampled_from(["JPEG", "PNG", "WEBP"]), places=st.lists(st.floats(0, 1), max_size=4), byte=st.binary()
    )
    @pytest.mark.filterwarnings("ignore:.*(EXIF|Tag data|Truncated)")  # Pillow's own words about the same damage
    def test_damage_never_raises_anything_else(self, kind: str, places: list[float], byte: bytes) -> None:
        data = saved(UPRIGHT, kind, exif=exif(6))
        for place in places:
            cut = int(place * len(data))
            data = data[:cut] + byte + data[cut + 1 :]
        try:
            assert decode_image(data).dtype == np.uint8
        except ImageError as error:
            assert error.reason in {"empty", "not-an-image", "too-large", "truncated"}


def test_sha256_is_written_as_hex() -> None:
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_duplicates_have_close_perceptual_hashes_and_other_photos_distant_ones(params: Params) -> None:
    photos = [draw_photo(seed, params.label_ids).image for seed in range(24)]
    hashes = [int(perceptual_hash(photo), 16) for photo in photos]
    assert min((a ^ b).bit_count() for a, b in combinations(hashes, 2)) > params.split.near_duplicate_bits
    photo, height, width = photos[0], *photos[0].shape[:2]
    jpeg = io.BytesIO()
    Image.fromarray(photo).save(jpeg, "JPEG", quality=40)
    duplicates = [
        np.asarray(Image.fromarray(photo).resize((width // 2, height // 2))), decode_image(jpeg.getvalue()),
        np.clip(photo.astype(int) + 15, 0, 255).astype(np.uint8), photo[8:-8, 6:-6],
    ]  # fmt: skip
    assert max((hashes[0] ^ int(perceptual_hash(duplicate), 16)).bit_count() for duplicate in duplicates) <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_examining_sees_the_size_and_the_looks_of_the_decoded_photo(kind: str, turn: int, params: Params) -> None:
    picture = Image.fromarray(draw_photo(3, params.label_ids).image)
    exif = Image.Exif()
    exif[274] = turn
    file = io.BytesIO()
    picture.save(file, kind, exif=exif)
    decoded = decode_image(file.getvalue())

    height, width, phash = examine_image(file.getvalue())

    assert (height, width) == decoded.shape[:2]
    assert (int(phash, 16) ^ int(perceptual_hash(decoded), 16)).bit_count() <= 2, "duplicates may differ in 4"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_examining_finds_what_ends_early(kind: str, params: Params) -> None:
    file = io.BytesIO()
    Image.fromarray(draw_photo(3, params.label_ids).image).save(file, kind)
    for share in (0.2, 0.6, 0.95):
        data = file.getvalue()[: int(len(file.getvalue()) * share)]
        with pytest.raises(ImageError) as caught:
            examine_image(data)
        with pytest.raises(ImageError) as decoding:
            decode_image(data)
        assert caught.value.reason == decoding.value.reason


# 24 wide and 16 high, red at the upper left, blue at the lower right, as libheif wrote it.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAb1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAA"
    "AERAAAIAAQAAAAAB4QABAAAAAAAAAN4AAgAAAAACvwABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZl"
    "AgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH/"
    "/wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xy"
    "bmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gAAAAC////0AAAAAIAAAAQcGl4aQAAAAAD"
    "CAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAGmlyZWYAAAAAAAAADmNkc2MAAgABAAEAAAEKbWRhdAAAANooAa8GMh/B85BdQKPb4h3//7mH"
    "0PsNtnSR/7seG39tmfLjKurK7Nn3vpe8e7fgU3LuSY5YvRlXzhhIbjj/9btjJyQlhNZLIPR6X8A/DhJEyHtX/V1Ocj+X4k00/l2uAbfxRZhUdeta"
    "96HLdSjvCJfURkVcSO/gdLADyx7IX41UOx6ATZluKUSEZGR/FsnosCwwzeu5pnCaQian/4QvXOEMmwgEAkEqCA4ZQhY3Z1KscfnJEgEKbtACJNTT"
    "hhfQdAW6LT6yUxpT70awGIsJYWvqJKHkVXW7uzCcvwAAAAZFeGlmAABNTQAqAAAACAABARIAAwAAAAEABgAAAAAAAA=="
)


class TestMasters:
    """Formats that browsers do not show, or not everywhere."""

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_adobe_deflate"}),
            ("BMP", {}), ("GIF", {}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"}), ("JPEG2000", {}),
        ],
    )  # fmt: skip
    def test_they_are_read(self, kind: str, options: dict[str, Any], noise: np.ndarray) -> None:
        data = saved(noise // 64 * 64, kind, **options)
        assert image_kind(data) == (kind, False)
        assert np.abs(decode_image(data).astype(int) - noise // 64 * 64).max() <= (12 if kind == "AVIF" else 0)

    def test_a_heic_is_read_as_it_is_shown(self) -> None:
        image = decode_image(HEIC)
        assert image_kind(HEIC) == ("HEIF", False)
        assert image.shape == (16, 24, 3)
        assert image[2, 2].tolist() == pytest.approx((250, 10, 10), abs=12)

    @pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
    def test_they_stand_upright(self, kind: str) -> None:
        upright = np.kron(UPRIGHT, np.ones((8, 8, 1), np.uint8))
        data = saved(STORED_AS[6](upright), kind, exif=exif(6), **({"quality": 100} if kind == "AVIF" else {}))
        assert np.abs(decode_image(data).astype(int) - upright).mean() < 4
        assert examine_image(data)[:2] == upright.shape[:2]

    def test_the_first_page_of_a_tiff_counts(self) -> None:
        data = saved(plain("RGB", RED), "TIFF", save_all=True, append_images=[plain("RGB", BLUE)])
        assert image_kind(data) == ("TIFF", False)
        assert decode_image(data)[0, 0].tolist() == list(RED)

    @pytest.mark.parametrize("mode", ["F", "I"])
    def test_values_whose_range_nothing_says_are_refused(self, mode: str) -> None:
        with pytest.raises(ImageError, match="save it with 8 or 16 bits") as refused:
            decode_image(saved(plain(mode, 1), "TIFF"))
        assert refused.value.reason == "unsupported"

    def test_a_tiff_cut_off_is_truncated(self, noise: np.ndarray) -> None:
        data = saved(noise, "TIFF", compression="tiff_lzw")
        with pytest.raises(ImageError):
            decode_image(data[: len(data) // 2])

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "I;16", "RGBA", "P", "1"])
    def test_the_copy_shows_the_same_pixels_in_the_same_size(self, mode: str) -> None:
        data = saved(Image.new(mode, (33, 21)), "TIFF")
        copy = display_copy(data)
        assert image_kind(copy) == ("JPEG", False)
        assert np.abs(decode_image(copy).astype(int) - decode_image(data)).max() <= 2

    def test_the_copy_keeps_the_colour_profile(self) -> None:
        copy = display_copy(saved(plain("RGB", RED), "TIFF", icc_profile=b"a profile"))
        assert Image.open(io.BytesIO(copy)).info["icc_profile"] == b"a profile"


class TestWithoutEndMarker:
    """Scanners and broken transfers leave the two bytes at a JPEG's end out; browsers show such photos."""

    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("quality", [30, 75, 95])
    @pytest.mark.parametrize("missing", [1, 2])
    def test_all_pixels_are_there(self, noise: np.ndarray, quality: int, progressive: bool, missing: int) -> None:
        data = saved(noise, "JPEG", quality=quality, progressive=progressive)
        assert np.array_equal(decode_image(data[:-missing]), decode_image(data))
        assert examine_image(data[:-missing]) == examine_image(data)

    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("missing", [6, 10, 50, 500])
    def test_a_photo_that_lacks_pixels_is_truncated(self, noise: np.ndarray, progressive: bool, missing: int) -> None:
        data = saved(noise, "JPEG", quality=90, progressive=progressive)
        for read in (decode_image, examine_image):
            with pytest.raises(ImageError, match="upload it again"):
                read(data[:-missing])
