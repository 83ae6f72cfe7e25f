"""Compare the brush codec with the SDK's, which is what Label Studio itself exports and imports with."""

import doctest
import tracemalloc
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_studio_sdk.converter.brush import decode_rle, encode_rle, mask2rle

from pipelines.errors import BrushError
from pipelines.labelstudio import brush_rle
from pipelines.labelstudio.brush_rle import label_map_to_rles, mask_to_rle, rle_to_alpha, rle_to_mask

# Made by @thi.ng/rle-pack 3.2.12 (JavaScript) for a 2x3 layer: soft and hard pixels of colour (9, 8, 7).
EDITOR_RLE = [0, 0, 0, 24, 57, 27, 252, 96, 6, 194, 66, 1, 208, 2, 66, 1, 255, 194, 66, 1, 255, 231, 0]
EDITOR_ALPHA = [[0, 64, 255], [255, 0, 0]]

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
# Runs of pixels rather than independent pixels, so that every size class of the format occurs.
run_lengths = st.lists(st.integers(1, 400), min_size=1, max_size=12)
rgba_layers = shapes.flatmap(
    lambda shape: hnp.arrays(np.uint8, (*shape, 4), elements=st.sampled_from([0, 0, 0, 255, 255, 1, 254, 77]))
)


def sdk_alpha(rle: list[int], height: int, width: int) -> np.ndarray:
    return decode_rle(rle).reshape(height, width, 4)[:, :, 3]


def blobs(height: int, width: int, seed: int, n_labels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    index_mask = np.zeros((height, width), np.uint8)
    for label_id in range(1, n_labels + 1):
        distance = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width))
        radius = rng.uniform(0.1, 0.6) * min(height, width)
        index_mask[(distance < radius) & (distance > radius / 4)] = label_id
    return index_mask


def editor_rle(values: np.ndarray, sizes: tuple[int, int, int, int] = (3, 4, 8, 16)) -> list[int]:
    """Encode flat RGBA like the editor: neighbouring single values share a literal record, and the pad may be empty."""
    longest = 1 << sizes[3]
    records: list[tuple[bool, list[int]]] = []
    for value, group in groupby(int(v) for v in values):
        n = len(list(group))
        if n == 1 and records and not records[-1][0] and len(records[-1][1]) < longest:
            records[-1][1].append(value)
        else:
            records += [(n > 1, [value] * min(longest, n - i)) for i in range(0, n, longest)]
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for is_run, words in records:
        size_class = next((i for i, size in enumerate(sizes) if len(words) <= 1 << size), 3)
        bits += f"{int(is_run)}{size_class:02b}{len(words) - 1:0{sizes[size_class]}b}"
        bits += "".join(f"{word:08b}" for word in (words[:1] if is_run else words))
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@pytest.fixture(scope="module")
def coded_mask() -> list[int]:
    return mask_to_rle(blobs(40, 50, seed=3) > 0)


def test_the_worked_example_holds() -> None:
    outcome = doctest.testmod(brush_rle)

    assert (outcome.failed, outcome.attempted) == (0, 4)


class TestEncoding:
    @given(hnp.arrays(bool, shapes))
    def test_noise_is_byte_identical_to_the_sdk(self, mask: np.ndarray) -> None:
        assert mask_to_rle(mask) == mask2rle(mask * 255)

    @given(run_lengths, st.booleans())
    def test_runs_are_byte_identical_to_the_sdk(self, lengths: list[int], starts_set: bool) -> None:
        flat = np.repeat((np.arange(len(lengths)) + starts_set) % 2 == 1, lengths)
        assert mask_to_rle(flat[np.newaxis]) == mask2rle(flat[np.newaxis] * 255)

    @pytest.mark.parametrize("pixels", [2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 32768, 32769, 40000])
    def test_run_at_a_size_class_border_is_byte_identical(self, pixels: int) -> None:
        mask = np.zeros((1, 2 * pixels + 1), np.uint8)
        mask[0, pixels:] = 1
        assert mask_to_rle(mask) == mask2rle(mask * 255)

    @pytest.mark.parametrize("fill", [0, 1, 255])
    def test_uniform_mask_is_byte_identical(self, fill: int) -> None:
        mask = np.full((300, 200), fill, np.uint8)
        assert mask_to_rle(mask) == mask2rle((mask > 0) * 255)

    def test_result_is_plain_ints_for_json(self) -> None:
        assert {type(value) for value in mask_to_rle(np.eye(5, dtype=bool))} == {int}

    @pytest.mark.parametrize("view", [np.s_[::-1, ::2], np.s_[:, ::-1], np.s_[3:9, 4:30]])
    def test_views_and_column_major_arrays_are_read_in_row_order(self, view: tuple[slice, slice]) -> None:
        mask = blobs(30, 40, seed=5)[view]
        expected = mask2rle((mask > 0) * 255)
        assert mask_to_rle(mask) == mask_to_rle(np.asfortranarray(mask)) == expected

    @settings(max_examples=40)
    @given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10**6))
    def test_label_map_equals_one_sdk_mask_per_label(self, height: int, width: int, seed: int) -> None:
        index_mask = blobs(height, width, seed)
        present = [label_id for label_id in (0, 3, 1, 2) if (index_mask == label_id).any()]
        rles = label_map_to_rles(index_mask, [0, 3, 1, 2, 9, 300])
        assert list(rles) == present
        assert rles == {label_id: mask2rle((index_mask == label_id) * 255) for label_id in present}

    def test_label_map_of_wide_integers(self) -> None:
        index_mask = np.array([[70_000, -1], [-1, 5]])
        assert label_map_to_rles(index_mask, [70_000, -1]) == {
            70_000: mask_to_rle(index_mask == 70_000),
            -1: mask_to_rle(index_mask == -1),
        }

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.zeros((0, 5), bool), r"shape \(0, 5\)"),
            (np.zeros((2, 3, 4), bool), r"shape \(2, 3, 4\)"),
            (np.zeros((2, 3), np.float32), "dtype float32"),
            (np.broadcast_to(np.uint8(1), (1 << 15, 1 << 15)), r"2\*\*30 - 1 pixels"),
        ],
    )
    def test_unusable_mask_is_refused(self, mask: np.ndarray, message: str) -> None:
        with pytest.raises(BrushError, match=message):
            mask_to_rle(mask)

    def test_unusable_label_map_is_refused(self) -> None:
        with pytest.raises(BrushError, match="dtype bool"):
            label_map_to_rles(np.zeros((2, 2), bool), [1])


class TestDecoding:
    @given(hnp.arrays(bool, shapes))
    def test_round_trip_of_noise(self, mask: np.ndarray) -> None:
        assert np.array_equal(rle_to_mask(mask_to_rle(mask), *mask.shape), mask)

    @settings(max_examples=30)
    @given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**6))
    def test_round_trip_of_blobs(self, height: int, width: int, seed: int) -> None:
        mask = blobs(height, width, seed) > 0
        rle = mask_to_rle(mask)
        alpha = rle_to_alpha(rle, height, width)
        assert alpha.shape == (height, width) and alpha.dtype == np.uint8
        assert np.array_equal(alpha, sdk_alpha(rle, height, width))
        assert np.array_equal(rle_to_mask(rle, height, width), mask)

    @given(rgba_layers)
    def test_layer_coded_by_the_sdk(self, rgba: np.ndarray) -> None:
        assert np.array_equal(rle_to_alpha(encode_rle(rgba.ravel()), *rgba.shape[:2]), rgba[..., 3])

    @given(rgba_layers, st.tuples(*[st.integers(1, 16)] * 4).map(sorted).map(tuple))
    def test_layer_with_literals_and_any_run_sizes(self, rgba: np.ndarray, sizes: tuple[int, int, int, int]) -> None:
        rle = editor_rle(rgba.ravel(), sizes)
        assert np.array_equal(decode_rle(rle), rgba.ravel())
        assert np.array_equal(rle_to_alpha(rle, *rgba.shape[:2]), rgba[..., 3])

    def test_literals_longer_than_one_window_of_the_stream(self) -> None:
        rgba = np.random.default_rng(0).integers(0, 256, (300, 200, 4), dtype=np.uint8)
        for rle in (editor_rle(rgba.ravel()), encode_rle(rgba.ravel())):
            assert np.array_equal(rle_to_alpha(rle, 300, 200), rgba[..., 3])

    def test_stream_of_the_javascript_encoder(self) -> None:
        assert rle_to_alpha(EDITOR_RLE, 2, 3).tolist() == EDITOR_ALPHA
        assert rle_to_mask(EDITOR_RLE, 2, 3).tolist() == [[False, False, True], [True, False, False]]
        assert rle_to_mask(EDITOR_RLE, 2, 3, threshold=1).tolist() == [[False, True, True], [True, False, False]]

    @pytest.mark.parametrize("kind", [bytes, bytearray, tuple])
    def test_other_byte_sequences_are_read_too(self, kind: type) -> None:
        assert rle_to_alpha(kind(EDITOR_RLE), 2, 3).tolist() == EDITOR_ALPHA


def header(elements: int, word_bits: int = 8) -> list[int]:
    """Return the first 7 bytes of a stream; its last 3 bits, which are of the first record, are 0."""
    bits = elements << 21 | (word_bits - 1) << 16 | 0x237F
    return list((bits << 3).to_bytes(7))


class TestMalformedStreams:
    @pytest.mark.parametrize(
        ("rle", "message"),
        [
            ([], "0 bytes are less than its header"),
            ([0, 0, 0, 24, 57], "5 bytes are less than its header"),
            (None, "is a NoneType"),
            ("AAAA", "is a str"),
            ({"counts": []}, "is a dict"),
            (np.zeros(9, np.int64), "is a ndarray"),
            ([*EDITOR_RLE[:-1], 256], r"value 22 \(of type int\)"),
            ([-1, *EDITOR_RLE[1:]], r"value 0 \(of type int\)"),
            ([*EDITOR_RLE[:4], 57.0, *EDITOR_RLE[5:]], r"value 4 \(of type float\)"),
            ([*EDITOR_RLE[:4], None, *EDITOR_RLE[5:]], r"value 4 \(of type NoneType\)"),
            ([10**5000, *EDITOR_RLE], r"value 0 \(of type int\)"),
            (header(2**32 - 1) + [0] * 40, "declares 4294967295 values"),
            (header(28) + EDITOR_RLE[7:], "declares 28 values in its header, but the image has 24"),
            (header(24, word_bits=16) + EDITOR_RLE[7:], "word size of 16 bits at bit 32"),
            (EDITOR_RLE[:7], "7 bytes cannot hold|hold 0 of 24"),
            (EDITOR_RLE[:12], "truncated: the record at bit"),
            (EDITOR_RLE[:-2], "truncated: 168 bits hold 16 of 24|truncated: the record at bit"),
            ([*EDITOR_RLE, 0, 0], "excess data after its 24 values"),
            (EDITOR_RLE + [0] * 5000, "excess data after its 24 values"),
            ([0, 0, 0, 24, *editor_rle(np.zeros(32))[4:]], "overruns its 24 values"),
        ],
    )
    def test_fault_is_named(self, rle: object, message: str) -> None:
        with pytest.raises(BrushError, match=message):
            rle_to_alpha(rle, 2, 3)  # type: ignore[arg-type]  # wrong types are what is tested

    @pytest.mark.parametrize("size", [(0, 3), (-2, 3), (2.0, 3), (None, 3), (2, "3")])
    def test_unusable_size_is_refused(self, size: tuple) -> None:
        with pytest.raises(BrushError, match="height and width must be integers"):
            rle_to_alpha(EDITOR_RLE, *size)

    def test_every_truncation_is_refused(self, coded_mask: list[int]) -> None:
        for n in range(len(coded_mask) - 1):
            with pytest.raises(BrushError):
                rle_to_alpha(coded_mask[:n], 40, 50)

    def test_short_stream_of_a_huge_image_allocates_nothing(self) -> None:
        tracemalloc.start()
        with pytest.raises(BrushError, match="cannot hold"):
            rle_to_alpha(header(4 * 30_000 * 30_000) + [255] * 400, 30_000, 30_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000

    def test_decoding_noise_stays_within_a_few_images_of_memory(self) -> None:
        height, width = 600, 800
        mask = np.random.default_rng(1).random((height, width)) < 0.5
        rle = mask_to_rle(mask)
        tracemalloc.start()
        decoded = rle_to_mask(rle, height, width)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(decoded, mask)
        assert peak < 5 * height * width * 4

    @pytest.mark.parametrize("source", ["mask", "layer"])
    def test_damaged_streams_decode_like_the_sdk_or_are_refused(self, source: str, coded_mask: list[int]) -> None:
        rng = np.random.default_rng(20)
        soft = np.clip(np.repeat(blobs(40, 50, seed=3)[..., np.newaxis], 4, axis=2) * [40, 50, 60, 100], 0, 255)
        original = coded_mask if source == "mask" else editor_rle(soft.astype(np.uint8).ravel())
        refused = 0
        for _ in range(300):
            rle = list(original)
            if rng.random() < 0.25:
                rle = rle[: rng.integers(len(rle))]
            else:
                rle[rng.integers(len(rle))] ^= 1 << int(rng.integers(8))
            try:
                alpha = rle_to_alpha(rle, 40, 50)
            except BrushError:
                refused += 1
            else:
                assert np.array_equal(alpha, sdk_alpha(rle, 40, 50))
        assert 0 < refused < 300
