"""Whether bytes name what is to be removed: text as it is, Parquet by its columns, gzip unpacked."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

LARGEST = 64 << 20  # bytes of a file that is searched
_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"
_PHOTOS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"GIF8", b"BM")


def names_subject(data: bytes, pattern: re.Pattern[bytes]) -> bool:
    """Return whether a text, Parquet or gzip file names what the pattern finds; binary columns are not searched."""
    if data.startswith(_PARQUET):
        try:
            return any(pattern.search(text) for text in _texts(data))
        except (pa.ArrowException, OSError):
            return pattern.search(data) is not None
    if data.startswith(_GZIP):
        try:
            with gzip.open(io.BytesIO(data)) as file:
                return pattern.search(file.read(LARGEST)) is not None
        except (OSError, EOFError, zlib.error):
            return False
    return pattern.search(data) is not None


def is_picture(data: bytes) -> bool:
    """Return whether bytes begin like those of a photo, which names nobody."""
    return data.startswith(_PHOTOS)


def _texts(data: bytes) -> Iterator[bytes]:
    """Yield the texts of a Parquet file's columns, column by column, also those in lists and structures."""
    table = pq.read_table(io.BytesIO(data), columns=_text_columns(data))
    for column in table.columns:
        for chunk in column.chunks:
            yield "\n".join(_strings(chunk)).encode()
    yield str(table.schema.metadata or "").encode()


def _text_columns(data: bytes) -> list[str]:
    schema = pq.read_schema(io.BytesIO(data))
    return [field.name for field in schema if not _is_binary(field.type)]


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_is_binary(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _strings(array: pa.Array) -> Iterator[str]:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield from (text for text in array.to_pylist() if text)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield from _strings(array.flatten())
    elif pa.types.is_struct(array.type):
        for field in array.flatten():
            yield from _strings(field)
    elif pa.types.is_dictionary(array.type):
        yield from _strings(array.dictionary)
