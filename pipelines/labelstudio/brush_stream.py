"""Read a stream of brush RLE, record by record; `brush_rle` describes the format."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BrushError

HEADER_BITS = 32 + 5 + 4 * 4
WORD_BITS = 8
# The SDK always adds 1-8 pad bits, the editor 0-7; the shortest record is 12 bits, so a pad is never mistaken for one.
_MAX_PAD_BITS = 8
_WINDOW_BYTES = 1 << 16  # of the stream, read at once, so that temporary arrays stay in the CPU's cache


@dataclass(frozen=True)
class Stream:
    """A stream whose header has been checked."""

    data: NDArray[np.uint8]  # the bytes, padded with 8 zero bytes
    words: NDArray[np.uint64]  # for each byte without the padding, the 64 bits that start there, big-endian
    n_bits: int  # without the padding
    sizes: tuple[int, ...]  # bits of a record's count, by size class
    elements: int  # that the header declares


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


def open_stream(rle: Sequence[int] | bytes, expected: int) -> Stream:
    """Check type, header and plausible length of a stream, before anything of the image's size is allocated."""
    raw = _to_bytes(rle)
    if len(raw) * 8 < HEADER_BITS:
        raise BrushError(f"brush RLE is truncated: {len(raw)} bytes are less than its header of {HEADER_BITS} bits")
    header = int.from_bytes(raw[:7]) >> 3
    elements, word_bits = header >> 21, (header >> 16 & 31) + 1
    sizes = tuple((header >> shift & 15) + 1 for shift in (12, 8, 4, 0))
    if elements != expected:
        raise BrushError(
            f"brush RLE declares {elements} values in its header, but the image has {expected} (RGBA); "
            "check original_width and original_height of the region"
        )
    if word_bits != WORD_BITS:
        raise BrushError(f"brush RLE declares a word size of {word_bits} bits at bit 32; it must be {WORD_BITS}")
    if len(raw) * 8 // (3 + min(sizes) + WORD_BITS) << max(sizes) < elements:
        raise BrushError(f"brush RLE is truncated: {len(raw)} bytes cannot hold the {elements} values it declares")
    padded = raw + bytes(8)
    words: NDArray[np.uint64] = np.ndarray((len(raw),), dtype=">u8", buffer=padded, strides=(1,))
    return Stream(np.frombuffer(padded, dtype=np.uint8), words, len(raw) * 8, sizes, elements)


def read_alpha(stream: Stream) -> NDArray[np.uint8]:
    """Return the alpha of each pixel, row by row: (H * W,) uint8; raise BrushError when the stream does not hold it."""
    parts: list[NDArray[np.uint8]] = []
    position, filled = HEADER_BITS, 0
    while stream.n_bits - position > _MAX_PAD_BITS:
        offsets, position = _walk(stream, position)
        part, filled = _alpha(stream, offsets, position, filled)
        parts.append(part)
    if filled < stream.elements:
        raise BrushError(f"brush RLE is truncated: {stream.n_bits} bits hold {filled} of {stream.elements} values")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@lru_cache(maxsize=8)
def _step_table(sizes: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return the lengths of records by their first bits, as a table: (8192,) uint64.

    An entry is indexed by 13 bits of the stream and holds 8 uint8: for each bit of the first byte, the length in bits
    of the record that would start there; 0 for literals whose count does not fit into the 13 bits.
    """
    codes = np.arange(64)
    size = np.array(sizes)[codes >> 3 & 3]
    literal = np.where(size <= 3, 3 + size + WORD_BITS * (((codes & 7) >> np.maximum(3 - size, 0)) + 1), 0)
    length = np.where(codes >> 5, 3 + size + WORD_BITS, literal).astype(np.uint8)
    table: NDArray[np.uint64] = length[np.arange(1 << 13)[:, np.newaxis] >> np.arange(7, -1, -1) & 63].view(np.uint64)
    return table.ravel()


def _walk(stream: Stream, position: int) -> tuple[NDArray[np.int64], int]:
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


def _literal_bits(stream: Stream, position: int) -> int:
    """Return the length in bits of the literal record at a bit position."""
    bits = int(stream.words[position >> 3]) << (position & 7)
    size = stream.sizes[bits >> 61 & 3]
    return 3 + size + WORD_BITS * ((bits >> (61 - size) & (1 << size) - 1) + 1)


def _alpha(stream: Stream, offsets: NDArray[np.int64], stop: int, filled: int) -> tuple[NDArray[np.uint8], int]:
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
        position = (offsets + 3 + sizes.astype(np.int64))[record] + words_before * WORD_BITS
        alpha[pixels] = _bits_at(stream, position) >> np.uint64(56)
    return alpha, int(ends[-1])


def _check_fit(
    stream: Stream, offsets: NDArray[np.int64], stop: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
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


def _bits_at(stream: Stream, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the bits that follow each bit position, left-aligned; at least 57 of the 64 are valid."""
    bits: NDArray[np.uint64] = stream.words[positions >> 3].astype(np.uint64) << (positions & 7).astype(np.uint64)
    return bits
