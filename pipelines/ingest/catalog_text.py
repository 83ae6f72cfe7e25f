"""The bytes of a catalogue as text: spreadsheets save in many encodings, and single cells may be in another one."""

import codecs
import re
import zlib

import charset_normalizer

from pipelines.errors import CatalogError

MAX_BYTES = 256 << 20  # of a catalogue after decompression
_UNICODE = (
    (codecs.BOM_UTF8, "utf_8"), (codecs.BOM_UTF32_LE, "utf_32_le"), (codecs.BOM_UTF32_BE, "utf_32_be"),
    (codecs.BOM_UTF16_LE, "utf_16_le"), (codecs.BOM_UTF16_BE, "utf_16_be"),
)  # fmt: skip
_SINGLE_BYTE = ("cp1252", "mac_roman")
_NO_TEXT = {b"PK\x03\x04": "a workbook or a ZIP archive", b"\xd0\xcf\x11\xe0": "an Excel workbook", b"%PDF": "a PDF"}
_SAVE = 'save it as "CSV UTF-8"'
_AROUND_CELLS = re.compile(rb'([,;\t|"\r\n])')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SAMPLE = 1 << 18  # bytes by which an encoding is guessed
_EXAMPLES = 5


def read_text(data: bytes, source: str) -> tuple[str, list[str]]:
    """Return a catalogue's bytes as text without control characters, and remarks for people.

    Bytes that gzip packed are unpacked. UTF-8, UTF-16 and UTF-32 are understood with and without a byte order mark
    (UTF-32 only with one), Windows-1252 and Mac Roman by a guess. In a UTF-8 file, cells in another encoding are read
    as Windows-1252, which changes no other cell. Raise CatalogError naming `source` when the bytes are no text, or more
    than 256 MB of it.
    """
    data = _decompress(data, source)
    for magic, kind in _NO_TEXT.items():
        if data.startswith(magic):
            raise CatalogError(f"{source} is {kind} and has no header row in line 1; {_SAVE} and upload it again")
    text, remarks = _decode(data, source)
    if _CONTROL.search(text):
        lines = [number for number, line in enumerate(split_lines(text), start=1) if _CONTROL.search(line)]
        remarks.append(f"control characters are left out in {lines_at(lines)}")
        text = _CONTROL.sub("", text)
    return text.replace("\ufeff", ""), remarks


def split_lines(text: str) -> list[str]:
    """Return the lines of a text as editors count them, without their ends (CR, LF or both)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def lines_at(numbers: list[int]) -> str:
    """Return line numbers for a message: all of a few, or how many there are and the first ones."""
    first = ", ".join(map(str, numbers[:_EXAMPLES]))
    if len(numbers) > _EXAMPLES:
        return f"{len(numbers):,} lines, such as {first}"
    return f"line{'s' if len(numbers) > 1 else ''} {first}"


def _decompress(data: bytes, source: str) -> bytes:
    parts: list[bytes] = []
    left, packed = MAX_BYTES, data
    while packed.startswith(b"\x1f\x8b"):  # a file may hold several gzip members
        unpack = zlib.decompressobj(wbits=31)
        try:
            parts.append(unpack.decompress(packed, left + 1))
        except zlib.error as error:
            raise CatalogError(f"{source}: its gzip bytes are damaged ({error}); upload the file again") from error
        left -= len(parts[-1])
        if left < 0:
            break
        if not unpack.eof:
            raise CatalogError(f"{source}: its gzip bytes end too early; upload the file again")
        packed = unpack.unused_data
    if left < 0 or len(data) > MAX_BYTES:
        raise CatalogError(
            f"{source} has more than {MAX_BYTES >> 20} MB of text; is it the catalogue? Upload a smaller"
        )
    return b"".join(parts) if parts else data


def _decode(data: bytes, source: str) -> tuple[str, list[str]]:
    encoding = _unicode_encoding(data)
    if encoding != "utf_8":
        text = data.decode(encoding, errors="replace")
        lines = [number for number, line in enumerate(split_lines(text), start=1) if "\ufffd" in line]
        return text, [_taken_for(encoding), *([f"characters are unreadable in {lines_at(lines)}"] if lines else [])]
    try:
        return data.decode(), []
    except UnicodeDecodeError:
        return _decode_by_line(data, source)


def _unicode_encoding(data: bytes) -> str:
    for mark, encoding in _UNICODE:
        if data.startswith(mark):
            return encoding
    head = data[:2000]
    for encoding, zeros in (("utf_16_le", head[1::2]), ("utf_16_be", head[::2])):
        if zeros.count(0) * 5 > len(zeros) * 2:  # of Latin letters, which column names are, every second byte is 0
            return encoding
    return "utf_8"


def _decode_by_line(data: bytes, source: str) -> tuple[str, list[str]]:
    """Decode a file that is not UTF-8 as a whole: with lines of UTF-8, only some cells are in another encoding."""
    lines = data.splitlines(keepends=True)
    decoded = [_utf_8(line) for line in lines]
    wrong = [index for index, text in enumerate(decoded) if text is None]
    numbers = [index + 1 for index in wrong]
    right_cells = sum(text is not None and not text.isascii() for text in decoded)
    wrong_cells = 0
    for index in wrong:
        cells = _AROUND_CELLS.split(lines[index])
        texts = [_utf_8(cell) for cell in cells]
        wrong_cells += texts.count(None)
        right_cells += sum(text is not None and not text.isascii() for text in texts)
        pairs = zip(cells, texts, strict=True)
        decoded[index] = "".join(
            cell.decode("cp1252", errors="replace") if text is None else text for cell, text in pairs
        )
    if right_cells * 10 < wrong_cells and not data.startswith(codecs.BOM_UTF8):
        sample = b"".join(lines[index] for index in wrong)[:_SAMPLE]
        best = charset_normalizer.from_bytes(sample, cp_isolation=list(_SINGLE_BYTE)).best()
        if best is not None:
            return data.decode(best.encoding, errors="replace"), [_taken_for(best.encoding)]
        if len(wrong) * 100 > len(lines):
            raise CatalogError(f"{source} is no text in a known encoding ({lines_at(numbers)}); {_SAVE}")
    remark = f"cells that are not UTF-8 are read as Windows-1252 in {lines_at(numbers)}; if they look wrong, {_SAVE}"
    return "".join(text or "" for text in decoded), [remark]


def _taken_for(encoding: str) -> str:
    return f"the file is taken for {encoding}; if names look wrong, {_SAVE}"


def _utf_8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
