"""A catalogue's text as a table whose rows know their line in the file.

Python's csv and pandas let a cell that begins with an inch mark (`"4 heel`) swallow the rows behind it, stop at a row
with a cell too many, and count rows instead of lines. Here a row that cannot be read costs that row alone.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pipelines.errors import CatalogError
from pipelines.ingest.catalog_text import lines_at, split_lines

_DELIMITERS = ",;\t|"
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_SEP = re.compile(r'\s*"?sep=([^\w\s"]|\t)"?[,;\t|\s]*', re.IGNORECASE)
_ABOVE_HEADER = 20  # lines among which the header is looked for
_CELL_LINES = 1000  # over which a cell may run
_LINE_LENGTH = 1_000_000  # characters; a longer line is no row
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its first line in the file (from 1), and as many cells as the header has, without space around them."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A header with column names, the rows below it, and remarks about the rows that were not read as they stand."""

    header: list[str]
    rows: list[TableRow]
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class _Record:
    """The cells of the lines from `start` to before `end` (indices).

    `odd`: a quotation mark that is read as text. `inside`: for each line, the delimiters in cells that run over lines.
    """

    cells: list[str]
    start: int
    end: int
    odd: bool = False
    inside: tuple[int, ...] = ()


def read_table(text: str, source: str, names: Mapping[str, str]) -> Table:
    """Return the table of a CSV text.

    `names` maps columns to their names in the header, by which header and delimiter (comma, semicolon, tab, bar or that
    of a line `sep=;`) are found; `id_file` and `year` are needed among them. Empty lines are passed over, a row with
    too few cells is filled up, one with too many is left out, and a quotation mark that begins no proper cell is text:
    all with a remark that names lines. Raise CatalogError when there is no header, or most rows do not fit it.
    """
    lines = split_lines(text)
    header, delimiter, remarks = _header(lines, source, set(names.values()))
    reader = _Reader(lines, delimiter, header, names)
    rows = list(reader.rows(header.end))
    if len(reader.long) > len(rows):
        raise CatalogError(
            f"{source} is no CSV table: {len(reader.long):,} of {len(rows) + len(reader.long):,} rows have more cells "
            f"than the {len(header.cells)} of the header, such as {reader.long[0]}. Name every column in the header, "
            f"put cells that hold {_NAMES.get(delimiter, repr(delimiter))} in quotation marks, and upload it again"
        )
    return Table(header.cells, rows, [*remarks, *reader.remarks()])


def _header(lines: list[str], source: str, known: set[str]) -> tuple[_Record, str, list[str]]:
    """Find the line that holds most of the `known` names, and the delimiter that separates them."""
    written = [index for index, line in enumerate(lines) if line.strip()][:_ABOVE_HEADER]
    separator = _SEP.fullmatch(lines[written[0]]) if written else None
    if separator:
        written = written[1:]
    if not written:
        raise CatalogError(
            f"{source} is no CSV table with a header row: lines 1 to {len(lines)} hold no column names. Write them "
            f"into line 1 and upload the file again"
        )
    if len(lines[written[0]]) > _LINE_LENGTH:
        raise CatalogError(
            f"{source} is no CSV table with a header row: line {written[0] + 1} has more than {_LINE_LENGTH:,} "
            f"characters. Write the column names there and upload the file again"
        )
    written = [index for index in written if len(lines[index]) <= _LINE_LENGTH]
    delimiters = dict.fromkeys((*([separator[1]] if separator else []), *_DELIMITERS))
    candidates = [
        (_header_at(lines, index, delimiter, known), delimiter) for index in written for delimiter in delimiters
    ]

    def known_names(candidate: tuple[_Record, str]) -> tuple[int, int]:
        record, _ = candidate
        return len(known.intersection(record.cells)), len(record.cells) if record.start == written[0] else -1

    header, delimiter = max(candidates, key=known_names)
    above = f"the header is taken to be line {header.start + 1}; the lines above it are left out"
    return header, delimiter, [above] if header.start != written[0] else []


def _header_at(lines: list[str], index: int, delimiter: str, known: set[str]) -> _Record:
    """Read a header, whose cells may run over lines as well; one that swallows a row ends with its first line.

    A `known` name that stands there in another case only is written as it is known.
    """
    alone = replace(_record(lines[index : index + 1], 0, delimiter), start=index, end=index + 1)
    record = _record(lines, index, delimiter)
    others = (_record([line], 0, delimiter) for line in lines[index + 1 : record.end])
    if any(len(other.cells) == len(alone.cells) > 2 for other in others):
        record = alone
    cells = [unicodedata.normalize("NFC", _value(cell)) for cell in record.cells]
    in_other_case = {name.lower(): name for name in known.difference(cells)}
    return replace(record, cells=[in_other_case.get(cell.lower(), cell) for cell in cells])


class _Reader:
    """Reads the rows below a header, each of which begins with a line of its own."""

    def __init__(self, lines: list[str], delimiter: str, header: _Record, names: Mapping[str, str]) -> None:
        self._lines, self._delimiter, self._header, self._width = lines, delimiter, header.cells, len(header.cells)
        self.long: list[str] = []  # rows with too many cells, for messages
        self._short: list[int] = []  # line numbers, as below
        self._odd: list[int] = [header.start + 1] if header.odd else []
        self._huge: list[int] = []
        self._ended: list[int] = []
        self._repeated: list[int] = []
        self._spaced = delimiter + " " in lines[header.start]
        self._id = header.cells.index(names["id_file"]) if names["id_file"] in header.cells else 0
        self._year = header.cells.index(names["year"]) if names["year"] in header.cells else None

    def rows(self, start: int) -> Iterator[TableRow]:
        """Yield the rows from the line with the index `start` on."""
        records = list(self._records(start))
        sizes = Counter(len(record.cells) for record in records)
        usual = max(sizes, key=sizes.__getitem__, default=self._width)  # many programs end every line with a delimiter
        for record in records:
            line, cells = record.start + 1, [_value(cell) for cell in record.cells]
            if any(cells) and self._width < len(cells) <= usual and not any(cells[self._width :]):
                self._ended.append(line)
            if len(cells) <= usual or not any(cells):
                cells = self._trim(cells)
            if [unicodedata.normalize("NFC", cell) for cell in cells] == self._header:
                self._repeated.append(line)
                continue
            if record.odd:
                self._odd.append(line)
            if len(cells) > self._width:
                name = cells[self._id][:80] or "empty"
                self.long.append(f"line {line} ({len(cells)} cells, id_file {name})")
                continue
            if len(cells) < self._width:
                if any(cells):
                    self._short.append(line)
                cells += [""] * (self._width - len(cells))
            yield TableRow(line, cells)

    def remarks(self) -> Iterator[str]:
        """Yield what was not read as it stands, once all rows were read."""
        delimiter = _NAMES.get(self._delimiter, repr(self._delimiter))
        if self._odd:
            yield (
                f"a quotation mark begins a cell but does not close it in {lines_at(self._odd)}: it is read as text, "
                f"and the cell ends with its line. An inch mark is written twice, in a cell in quotation marks"
            )
        if self.long:
            rows, are = ("row", "is") if len(self.long) == 1 else ("rows", "are")
            yield (
                f"{len(self.long):,} {rows} with more cells than the header's {self._width} {are} left out: "
                f"{', '.join(self.long[:_EXAMPLES])}. Put cells that hold {delimiter} in quotation marks"
            )
        if self._huge:
            yield f"more than {_LINE_LENGTH:,} characters stand in {lines_at(self._huge)}: no row is read there"
        if self._ended:
            yield f"empty cells behind the header's last column are left out in {lines_at(self._ended)}"
        if self._repeated:
            yield f"the header stands again in {lines_at(self._repeated)}, which is left out"
        if self._short:
            yield f"cells are missing at the end of {lines_at(self._short)}; they count as empty"

    def _records(self, start: int) -> Iterator[_Record]:
        """Yield the records from the line with the index `start` on."""
        while start < len(self._lines):
            if len(self._lines[start]) > _LINE_LENGTH:
                self._huge.append(start + 1)
            elif '"' in (line := self._lines[start]):
                record = _record(self._lines, start, self._delimiter)
                if record.end > start + 1 and self._swallows(record):
                    record = replace(self._alone(start), start=start, end=start + 1, odd=True)
                yield record
                start = record.end
                continue
            elif line.strip():
                yield _Record(line.split(self._delimiter), start, start + 1)
            start += 1

    def _trim(self, cells: list[str]) -> list[str]:
        """Return a row's cells without empty ones behind the header's last column."""
        size = len(cells)
        while size > self._width and not cells[size - 1].strip():
            size -= 1
        return cells[:size]

    def _alone(self, index: int) -> _Record:
        return _record(self._lines[index : index + 1], 0, self._delimiter)

    def _swallows(self, record: _Record) -> bool:
        """Check whether a record of several lines holds lines that are rows of their own.

        Between inch marks stand the delimiters of whole rows. A text with a line break rarely has as many, without
        space behind them, and with what may be an id and a year where these are expected.
        """
        first, *others = [self._trim(self._alone(index).cells) for index in range(record.start, record.end)]
        sizes = (self._width, len(self._trim(record.cells)))
        if not self._is_row(first):
            return False
        for inside, cells in zip(record.inside[1:], others, strict=True):
            whole = len(first) in sizes and record.inside[0] + inside >= len(cells) - 1
            if len(cells) in sizes and (inside >= 2 or whole) and self._is_row(cells):
                return True
        return False

    def _is_row(self, cells: list[str]) -> bool:
        if not self._spaced and any(cell.startswith(" ") for cell in cells[1:]):
            return False
        name = cells[self._id].strip() if self._id < len(cells) else ""
        year = cells[self._year].strip() if self._year is not None and self._year < len(cells) else ""
        return bool(name) and (not year or any(character.isdigit() for character in year))


def _record(lines: list[str], start: int, delimiter: str) -> _Record:
    """Read one record; a cell in quotation marks may hold delimiters, doubled marks, and line breaks."""
    cells: list[str] = []
    index, position, odd, inside = start, 0, False, [0]
    while True:
        parts, end = _quoted(lines, index, position, delimiter) if lines[index].startswith('"', position) else ([], 0)
        if parts:
            if len(parts) > 1:
                counts = [part.count(delimiter) for part in parts]
                inside[-1] += counts[0]
                inside += counts[1:]
            index += len(parts) - 1
            cells.append("\n".join(parts).replace('""', '"'))
        else:
            odd |= lines[index].startswith('"', position)
            end = lines[index].find(delimiter, position)
            end = len(lines[index]) if end < 0 else end
            text = lines[index][position:end]
            cells.append(text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)
        if end >= len(lines[index]):
            return _Record(cells, start, index + 1, odd, tuple(inside))
        position = end + 1


_INSIDE = re.compile(r'(?:[^"]++|"")*+')


def _quoted(lines: list[str], index: int, position: int, delimiter: str) -> tuple[list[str], int]:
    """Return the parts, one per line, of the cell that begins with a quotation mark, and where it ends in the last one.

    There are none when no mark closes it, or something else than the delimiter or the line's end follows the mark.
    """
    parts: list[str] = []
    position += 1
    for at in range(index, min(index + _CELL_LINES, len(lines))):
        line = lines[at]
        inside = _INSIDE.match(line, position)
        assert inside is not None
        parts.append(inside[0])
        end = inside.end()
        if end < len(line):
            end += 1
            while line.startswith(" ", end):
                end += 1
            return (parts, end) if end == len(line) or line.startswith(delimiter, end) else ([], 0)
        position = 0
    return [], 0


def _value(cell: str) -> str:
    """Return a cell without space around it; `="0012"` is how a spreadsheet is told that 0012 is a text."""
    cell = cell.strip()
    return cell[2:-1].strip() if len(cell) > 3 and cell.startswith('="') and cell.endswith('"') else cell
