"""The brush RLE codec against the SDK's, on masks as garments have them: smooth outlines, holes, seven labels."""

from collections.abc import Iterator

import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle

from benchmarks.harness import Row, compare, compare_memory
from pipelines.labelstudio.brush_rle import label_map_to_rles, rle_to_alpha

_LABELS = range(1, 8)
_SIZES = ((2000, 3000), (550, 830))


def run() -> list[Row]:
    """Compare encoding of a whole label map and decoding of its largest label, at two image sizes (height x width)."""
    return [row for height, width in _SIZES for row in _rows(height, width)]


def label_map(height: int, width: int, seed: int = 7) -> np.ndarray:
    """Draw seven wobbly blobs with holes: (H, W) uint8, 0 = background, 1..7; a seed fixes it at every size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    index_mask = np.zeros((height, width), np.uint8)
    for label_id in _LABELS:
        row, column = rng.uniform(0.2, 0.8, 2) * (height, width)
        angle, distance = np.arctan2(y - row, x - column), np.hypot(y - row, x - column)
        wave, phase = rng.integers(3, 9), rng.uniform(0, 6.28)
        outline = rng.uniform(0.12, 0.3) * height * (1 + 0.2 * np.sin(wave * angle + phase) + 0.05 * np.sin(40 * angle))
        index_mask[(distance < outline) & (distance > 0.2 * outline)] = label_id
    return index_mask


def _rows(height: int, width: int) -> Iterator[Row]:
    index_mask, size = label_map(height, width), f"{height}x{width}"
    large = height * width > 1_000_000
    largest = int(np.bincount(index_mask.ravel())[1:].argmax()) + 1
    rle = label_map_to_rles(index_mask, _LABELS)[largest]

    def encode_ours() -> object:
        return label_map_to_rles(index_mask, _LABELS)

    def encode_peer() -> object:
        return {label_id: mask2rle((index_mask == label_id).astype(np.uint8) * 255) for label_id in _LABELS}

    def decode_ours() -> object:
        return rle_to_alpha(rle, height, width)

    def decode_peer() -> np.ndarray:
        return decode_rle(rle).reshape(height, width, 4)[:, :, 3]

    assert encode_ours() == encode_peer() and np.array_equal(rle_to_alpha(rle, height, width), decode_peer())
    yield compare(f"encode 7 labels {size}", encode_ours, encode_peer, rounds=7 if large else 15)
    yield compare(f"decode {size}", decode_ours, decode_peer, rounds=15 if large else 31)
    if large:
        yield compare_memory("encode", encode_ours, encode_peer)
        yield compare_memory("decode", decode_ours, decode_peer)
