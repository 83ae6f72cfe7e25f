"""Label Studio's brush RLE: masks to lists of byte values, and back.

The editor and the SDK store a brush region as a stream of bits over the flat RGBA pixels, row by row. The SDK's codec
goes through it bit by bit in Python. A dataset sync decodes thousands of masks, so this codec goes from record to
record and leaves the pixels to NumPy. Streams come from outside: a wrong one raises an error that names the fault, and
can neither crash the process nor fill its memory.

A stream, most significant bit first:

- header: 32 bits number of values (4 per pixel), 5 bits word size - 1, four times 4 bits run size - 1;
- records until all values are there: 1 bit flag, 2 bits size class, `sizes[class]` bits count - 1, then one word of 8
  bits that stands for `count` values (flag 1, a run), or `count` words (flag 0, literals);
- pad: zero bits up to a whole byte.

Only the alpha of each pixel matters: a set pixel is (255, 255, 255, 255), a clear one (0, 0, 0, 0). A mask of 2 x 2
pixels whose first pixel is clear has 16 values, 4 of them 0 and 12 of them 255:

>>> rle = mask_to_rle(np.array([[False, True], [True, True]]))
>>> rle
[0, 0, 0, 16, 57, 27, 252, 96, 22, 255, 192]
>>> "".join(f"{byte:08b}" for byte in rle[4:])
'00111001000110111111110001100000000101101111111111000000'

After the first four bytes, which say 16 values, the bits are:

- `00111 0010 0011 0111 1111`: words of 7 + 1 bits; counts are written with 3, 4, 8 or 16 bits;
- `1 00 011 00000000`: a run, size class 0 (3 bits), 3 + 1 values, each 0;
- `1 01 1011 11111111`: a run, size class 1 (4 bits), 11 + 1 values, each 255;
- `000000`: the pad.

>>> rle_to_mask(rle, height=2, width=2)
array([[False,  True],
       [ True,  True]])

Format and encoder: @thi.ng/rle-pack (https://github.com/thi-ng/umbrella), label_studio_sdk.converter.brush.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BrushError
from pipelines.labelstudio.brush_stream import HEADER_BITS, WORD_BITS, open_stream, read_alpha

_SIZES = (3, 4, 8, 16)
_LAYOUT = 0x7_237F  # the header's word size and four run sizes, each minus 1
_LONGEST_RUN = 1 << 16  # elements: the values of the flat RGBA pixels
# Tables by the number of elements of a run minus 1 (the same from _WIDE on): the bits that its count takes, the bits of
# its whole record, and its flag and size class, shifted to their place above the count.
_WIDE = 256
_RUN_SIZES = np.array(_SIZES)[np.searchsorted((8, 16, 256), np.arange(_WIDE + 1), side="right")]
_RECORD_BITS = _RUN_SIZES + 3 + WORD_BITS
_PREFIXES = (4 | np.searchsorted(_SIZES, _RUN_SIZES)) << _RUN_SIZES
_BLOCK_PIXELS = 1 << 19  # encoded at once, so that temporary arrays stay in the CPU's cache


def mask_to_rle(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> list[int]:
    """Encode a mask as brush RLE.

    `mask`: (H, W) bool or uint8, non-zero = set. Returns byte values 0..255, identical to what the SDK's `mask2rle`
    makes of the mask at 0/255. Raises BrushError for another shape or dtype, and for an image the format cannot hold.
    """
    if mask.dtype != bool and mask.dtype != np.uint8:
        raise BrushError(f"mask has dtype {mask.dtype}; pass bool or uint8 with non-zero = set")
    flat = _flat_image(mask) != 0
    return list(_encode_runs(np.diff(_edges(flat)), starts_set=bool(flat[0])))


def label_map_to_rles(index_mask: NDArray[np.integer[Any]], label_ids: Sequence[int]) -> dict[int, list[int]]:
    """Encode several labels of an index mask, and read its pixels only once.

    `index_mask`: (H, W) integers, one label id per pixel. Returns id -> byte values as `mask_to_rle(index_mask == id)`
    in the order of `label_ids`; ids absent from the map are left out. Raises BrushError for another shape or dtype.
    """
    if index_mask.dtype.kind not in "iu":
        raise BrushError(f"index mask has dtype {index_mask.dtype}; pass integers, one label id per pixel")
    flat = _flat_image(index_mask)
    edges = _edges(flat)
    segment_labels = flat[edges[:-1]]
    rles = {}
    for label_id in label_ids:
        segments = np.flatnonzero(segment_labels == label_id)
        if segments.size:
            # Segments of one label never touch each other, so their edges are the edges of the label's mask.
            bounds = np.zeros(2 * segments.size + 2, np.int64)
            bounds[1:-1:2], bounds[2:-1:2], bounds[-1] = edges[segments], edges[segments + 1], flat.size
            starts_set, ends_set = bool(bounds[1] == 0), bool(bounds[-2] == flat.size)
            lengths = np.diff(bounds[starts_set : bounds.size - ends_set])
            rles[label_id] = list(_encode_runs(lengths, starts_set=starts_set))
    return rles


def rle_to_alpha(rle: Sequence[int] | bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Decode brush RLE to the alpha channel of the drawn layer.

    `rle`: byte values as list, tuple or bytes; `height`, `width`: pixels of the annotated image (the browser's natural
    size). Returns (H, W) uint8, 0..255: masks of models are 0/255, strokes drawn in the browser have soft edges.
    Colours are skipped. Raises BrushError for every stream that does not hold exactly height x width RGBA pixels.
    """
    for pixels in (height, width):
        if not isinstance(pixels, int | np.integer) or pixels < 1:
            raise BrushError(f"brush region of {height!r} x {width!r} pixels; height and width must be integers from 1")
    return read_alpha(open_stream(rle, int(height) * int(width) * 4)).reshape(height, width)


def rle_to_mask(rle: Sequence[int] | bytes, height: int, width: int, *, threshold: int = 128) -> NDArray[np.bool_]:
    """Decode brush RLE to a mask: (H, W) bool, True where alpha >= `threshold` (0..255); else as `rle_to_alpha`."""
    return rle_to_alpha(rle, height, width) >= threshold


def _flat_image(image: NDArray[Any]) -> NDArray[Any]:
    """Return the (H, W) image as a contiguous vector, row by row, or raise BrushError."""
    if image.ndim != 2 or not 0 < image.size < 1 << 30:
        raise BrushError(f"mask has shape {image.shape}; pass (height, width) with 1 to 2**30 - 1 pixels")
    return np.ascontiguousarray(image).ravel()


def _edges(flat: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each segment of equal values of a vector starts, and the vector's size as the last edge."""
    edge_words, positions = [], []
    for start in range(0, flat.size, _BLOCK_PIXELS):
        block = flat[start : start + _BLOCK_PIXELS + 1]
        changed = np.empty(-(-block.size // 8) * 8, bool)
        changed[block.size - 1 :] = False
        np.not_equal(block[1:], block[:-1], out=changed[: block.size - 1])
        # Outlines are thin, so most words of eight pixels hold no edge. Searching words first reads an eighth.
        words = changed.view(np.uint64)
        position = np.flatnonzero(words != 0)
        edge_words.append(words[position])
        positions.append(position + start // 8)
    pixels = np.flatnonzero(np.concatenate(edge_words).view(bool))
    inner = (np.concatenate(positions)[pixels >> 3] << 3) + ((pixels & 7) + 1)
    return np.concatenate([[0], inner, [flat.size]])


def _encode_runs(lengths: NDArray[np.int64], *, starts_set: bool) -> bytes:
    """Encode alternating runs of clear and set pixels; `lengths` in pixels, all > 0."""
    elements = lengths * 4
    last = elements - 1
    kind = np.minimum(last, _WIDE)
    records = (_PREFIXES[kind] | last & _LONGEST_RUN - 1) << WORD_BITS
    records[not starts_set :: 2] |= 255
    n_bits = _RECORD_BITS[kind]
    # A run longer than 2**16 becomes full records and a rest of 1..2**16; even a short rest keeps the 16-bit class.
    full = last // _LONGEST_RUN
    long = np.flatnonzero(full > 0)
    if long.size:
        copies = full[long]
        records, n_bits = np.repeat(records, full + 1), np.repeat(n_bits, full + 1)
        records[np.repeat(long, copies) + np.arange(copies.sum())] |= (_LONGEST_RUN - 1) << WORD_BITS
    return _pack(int(elements.sum()), records.astype(np.uint64), n_bits)


def _pack(elements: int, records: NDArray[np.uint64], n_bits: NDArray[np.int64]) -> bytes:
    """Return the stream of header, records and the SDK's 1-8 zero pad bits.

    Record i is the lowest `n_bits[i]` (14..27) bits of `records[i]`.
    """
    ends = np.cumsum(n_bits) + HEADER_BITS
    starts = ends - n_bits
    spread = records << (64 - n_bits - (starts & 31)).astype(np.uint64)
    # In every word of 32 bits at least one record starts, and its end may lie in the next word. Records share no bit.
    word = starts >> 5
    first = np.concatenate(([0], np.flatnonzero(word[1:] != word[:-1]) + 1))
    pairs = np.bitwise_or.reduceat(spread, first)
    packed = np.zeros(pairs.size + 3, np.uint64)
    packed[:2] = elements, _LAYOUT << 11
    packed[1:-2] |= pairs >> np.uint64(32)
    packed[2:-1] |= pairs & np.uint64(0xFFFFFFFF)
    return packed.astype(">u4").tobytes()[: int(ends[-1]) // 8 + 1]
