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
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BrushError

_HEADER_BITS = 32 + 5 + 4 * 4
_WORD_BITS = 8
_SIZES = (3, 4, 8, 16)
_LAYOUT = 0x7_237F  # the header's word size and four run sizes, each minus 1
_LONGEST_RUN = 1 << 16  # elements: the values of the flat RGBA pixels
# Tables by the number of elements of a run minus 1 (the same from _WIDE on): the bits that its count takes, the bits of
# its whole record, and its flag and size class, shifted to their place above the count.
_WIDE = 256
_RUN_SIZES = np.array(_SIZES)[np.searchsorted((8, 16, 256), np.arange(_WIDE + 1), side="right")]
_RECORD_BITS = _RUN_SIZES + 3 + _WORD_BITS
_PREFIXES = (4 | np.searchsorted(_SIZES, _RUN_SIZES)) << _RUN_SIZES
# The SDK always adds 1-8 pad bits, the editor 0-7; the shortest record is 12 bits, so a pad is never mistaken for one.
_MAX_PAD_BITS = 8
# The codec works in windows of the stream and blocks of the image, so that temporary arrays stay in the CPU's cache.
_WINDOW_BYTES, _BLOCK_PIXELS = 1 << 16, 1 << 19


@dataclass(frozen=True)
class _Stream:
    """A stream whose header has been checked."""

    data: NDArray[np.uint8]  # the bytes, padded with 8 zero bytes
    words: NDArray[np.uint64]  # for each byte without the padding, the 64 bits that start there, big-endian
    n_bits: int  # without the padding
    sizes: tuple[int, ...]  # bits of a record's count, by size class
    elements: int  # that the header declares


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
    stream = _open(rle, int(height) * int(width) * 4)
    parts: list[NDArray[np.uint8]] = []
    position, filled = _HEADER_BITS, 0
    while stream.n_bits - position > _MAX_PAD_BITS:
        offsets, position = _walk(stream, position)
        part, filled = _alpha(stream, offsets, position, filled)
        parts.append(part)
    if filled < stream.elements:
        raise BrushError(f"brush RLE is truncated: {stream.n_bits} bits hold {filled} of {stream.elements} values")
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(height, width)


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
    records = (_PREFIXES[kind] | last & _LONGEST_RUN - 1) << _WORD_BITS
    records[not starts_set :: 2] |= 255
    n_bits = _RECORD_BITS[kind]
    # A run longer than 2**16 becomes full records and a rest of 1..2**16; even a short rest keeps the 16-bit class.
    full = last // _LONGEST_RUN
    long = np.flatnonzero(full > 0)
    if long.size:
        copies = full[long]
        records, n_bits = np.repeat(records, full + 1), np.repeat(n_bits, full + 1)
        records[np.repeat(long, copies) + np.arange(copies.sum())] |= (_LONGEST_RUN - 1) << _WORD_BITS
    return _pack(int(elements.sum()), records.astype(np.uint64), n_bits)


def _pack(elements: int, records: NDArray[np.uint64], n_bits: NDArray[np.int64]) -> bytes:
    """Return the stream of header, records and the SDK's 1-8 zero pad bits.

    Record i is the lowest `n_bits[i]` (14..27) bits of `records[i]`.
    """
    ends = np.cumsum(n_bits) + _HEADER_BITS
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


def _to_bytes(rle: Sequence[int] | bytes) -> bytes:
    """Return the stream as bytes; raises BrushError naming the first value that is no byte."""
    if not isinstance(rle, list | tuple | bytes | bytearray):
        raise BrushError(f"brush RLE is a {type(rle).__name__}; it must be a list of byte values")
    try:
        return bytes(rle)
    except (ValueError, TypeError, OverflowError):
        bad = next(i for i, value in enumerate(rle) if not (hasattr(value, "__index__") and 0 <= value <= 255))
        kind = type(rle[bad]).__name__
        raise BrushError(f"brush RLE is corrupt: its value {bad} (of type {kind}) is no integer of 0..255") from None


def _open(rle: Sequence[int] | bytes, expected: int) -> _Stream:
    """Check type, header and plausible length of a stream, before anything of the image's size is allocated."""
    raw = _to_bytes(rle)
    if len(raw) * 8 < _HEADER_BITS:
        raise BrushError(f"brush RLE is truncated: {len(raw)} bytes are less than its header of {_HEADER_BITS} bits")
    header = int.from_bytes(raw[:7]) >> 3
    elements, word_bits = header >> 21, (header >> 16 & 31) + 1
    sizes = tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))
    if elements != expected:
        raise BrushError(
            f"brush RLE declares {elements} values in its header, but the image has {expected} (RGBA); "
            "check original_width and original_height of the region"
        )
    if word_bits != _WORD_BITS:
        raise BrushError(f"brush RLE declares a word size of {word_bits} bits at bit 32; it must be {_WORD_BITS}")
    if len(raw) * 8 // (3 + min(sizes) + _WORD_BITS) << max(sizes) < elements:
        raise BrushError(f"brush RLE is truncated: {len(raw)} bytes cannot hold the {elements} values it declares")
    padded = raw + bytes(8)
    words: NDArray[np.uint64] = np.ndarray((len(raw),), dtype=">u8", buffer=padded, strides=(1,))
    return _Stream(np.frombuffer(padded, dtype=np.uint8), words, len(raw) * 8, sizes, elements)


@lru_cache(maxsize=8)
def _step_table(sizes: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return the lengths of records by their first bits, as a table: (8192,) uint64.

    An entry is indexed by 13 bits of the stream and holds 8 uint8: for each bit of the first byte, the length in bits
    of the record that would start there; 0 for literals whose count does not fit into the 13 bits.
    """
    codes = np.arange(64)
    size = np.array(sizes)[codes >> 3 & 3]
    literal = np.where(size <= 3, 3 + size + _WORD_BITS * (((codes & 7) >> np.maximum(3 - size, 0)) + 1), 0)
    length = np.where(codes >> 5, 3 + size + _WORD_BITS, literal).astype(np.uint8)
    table: NDArray[np.uint64] = length[np.arange(1 << 13)[:, np.newaxis] >> np.arange(7, -1, -1) & 63].view(np.uint64)
    return table.ravel()


def _walk(stream: _Stream, position: int) -> tuple[NDArray[np.int64], int]:
    """Return the bit offsets of the records that start in the next window, and the bit after the last record."""
    first_byte = position >> 3
    data = stream.data[first_byte : first_byte + _WINDOW_BYTES + 1].astype(np.uint16)
    steps = _step_table(stream.sizes).take(data[:-1] << 5 | data[1:] >> 3).tobytes()
    origin = first_byte * 8
    stop = min(stream.n_bits - _MAX_PAD_BITS - origin, _WINDOW_BYTES * 8)
    offset = position - origin
    offsets: list[int] = []
    while offset < stop:
        offsets.append(offset)
        offset += steps[offset] or _literal_bits(stream, origin + offset)
    return np.array(offsets, dtype=np.int64) + origin, origin + offset


def _literal_bits(stream: _Stream, position: int) -> int:
    """Return the length in bits of the literal record at a bit position."""
    bits = int(stream.words[position >> 3]) << (position & 7)
    size = stream.sizes[bits >> 61 & 3]
    return 3 + size + _WORD_BITS * ((bits >> (61 - size) & (1 << size) - 1) + 1)


def _alpha(stream: _Stream, offsets: NDArray[np.int64], stop: int, filled: int) -> tuple[NDArray[np.uint8], int]:
    """Return the alphas of the records at `offsets`, which end at bit `stop`, and `filled` plus their elements."""
    bits = _bits_at(stream, offsets)
    sizes = np.array(stream.sizes, dtype=np.uint64)[(bits >> np.uint64(61) & np.uint64(3)).astype(np.intp)]
    counts = ((bits << np.uint64(3)) >> (np.uint64(64) - sizes)).astype(np.int64) + 1
    ends = np.cumsum(counts) + filled
    starts = ends - counts
    _check_fit(stream, offsets, stop, starts, ends)
    # Element e is an alpha value when e % 4 == 3, so the alphas of elements [s, e) are the pixels [s // 4, e // 4).
    lengths = (ends >> 2) - (starts >> 2)
    alpha = np.repeat((bits >> (np.uint64(53) - sizes)).astype(np.uint8), lengths)
    literal = bits >> np.uint64(63) == 0
    if literal.any():
        pixels = np.flatnonzero(np.repeat(literal, lengths))
        record = np.repeat(np.flatnonzero(literal), lengths[literal])
        words_before = (filled // 4 + pixels) * 4 + 3 - starts[record]
        position = (offsets + 3 + sizes.astype(np.int64))[record] + words_before * _WORD_BITS
        alpha[pixels] = _bits_at(stream, position) >> np.uint64(56)
    return alpha, int(ends[-1])


def _check_fit(
    stream: _Stream, offsets: NDArray[np.int64], stop: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> None:
    """Raise BrushError if records [starts, ends), in elements, exceed the image, or bit `stop` exceeds the stream."""
    total = stream.elements
    if ends[-1] > total:
        record = int(np.argmax(ends > total))
        if starts[record] == total:
            raise BrushError(f"brush RLE has excess data after its {total} values, from bit {offsets[record]} on")
        raise BrushError(f"brush RLE is corrupt: the record at bit {offsets[record]} overruns its {total} values")
    if stop > stream.n_bits:
        raise BrushError(f"brush RLE is truncated: the record at bit {offsets[-1]} ends after bit {stream.n_bits}")


def _bits_at(stream: _Stream, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the bits that follow each bit position, left-aligned; at least 57 of the 64 are valid."""
    bits: NDArray[np.uint64] = stream.words[positions >> 3].astype(np.uint64) << (positions & 7).astype(np.uint64)
    return bits
