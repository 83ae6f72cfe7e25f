"""The archive's catalogue CSV: its rows are checked, and those of one photo become one set of metadata.

A row describes the photo that its `id_file` names: by file name or by the end of the path, with or without suffix.
"""

import difflib
import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipelines.errors import CatalogError
from pipelines.ingest.catalog_names import CatalogRow, Match, PhotoName, name_of_id, name_of_photo
from pipelines.ingest.catalog_remarks import remarks_on_matches
from pipelines.ingest.catalog_table import Table, read_table
from pipelines.ingest.catalog_text import lines_at, read_text
from pipelines.params import Severity
from pipelines.records import CATALOG_COLUMNS, Metadata

SEPARATOR = " · "
_YEAR = re.compile(r"(?:1[89]|20)[0-9]{2}")
_EXAMPLES = 5
_SHOWN_COLUMNS, _SHOWN_LETTERS = 30, 60
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalog:
    """The rows of a catalogue that have an id, and which of them describe a photo.

    Names are compared in Unicode's composed form (NFC). Rows with the longest end of the photo's path win: `1999/001`
    over `001`. Of these, rows that write the name in its own case, with its own suffix or none, are folded. Where there
    are none, rows in another case or with another suffix count, if they all have one id. Ids are texts: `12` does not
    fit 0012.
    """

    rows: tuple[CatalogRow, ...]

    def find(self, name: str) -> Metadata | None:
        """Return the metadata of a photo by its object name (without `gs://bucket/`), or None without a row.

        A column holds the distinct values of the photo's rows, joined by ` · `; columns without a value are left out.
        """
        rows = self._match(name_of_photo(name)).rows
        return _fold([self.rows[row].values for row in rows]) if rows else None

    def remarks_for(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Return what people should know about rows and photos, given the object names of all photos.

        Each remark is an object name and a message; without an object name it is about the catalogue. There are sums
        of the rows and photos that fit nothing, a remark for each id that fits several photos, and one for each photo
        without a row for which a row with a similar id may be meant. Without photos or rows there is nothing to say.
        """
        if not names or not self.rows:
            return []
        remarks = remarks_on_matches(self.rows, {name: self._match(name_of_photo(name)) for name in names})
        for name, message in remarks:
            if not name:
                logger.log(logging.ERROR if message.startswith("0 of ") else logging.WARNING, "%s", message)
        return remarks

    def _match(self, photo: PhotoName) -> Match:
        index = self._index
        for stem in photo.endings(index.depths):
            path = stem + photo.suffix
            if rows := {*index.paths.get(path, ()), *index.paths.get(stem, ())}:
                return Match(tuple(sorted(rows)))
            for rows in (
                {*index.stems.get(stem, ())},
                {*index.lower_paths.get(path.lower(), ()), *index.lower_paths.get(stem.lower(), ())},
                {*index.lower_stems.get(stem.lower(), ())},
            ):
                if rows:
                    one_id = len({index.names[row] for row in rows}) == 1
                    fitting = tuple(sorted(rows))
                    return Match(fitting, loose=True) if one_id else Match(ambiguous=fitting)
        return Match()

    @cached_property
    def _index(self) -> "_Index":
        return _Index(self.rows)


class _Index:
    """Rows (indices) by what their ids name: with suffix, and those that have one without it; in lower case as well."""

    def __init__(self, rows: Sequence[CatalogRow]) -> None:
        self.paths: dict[str, list[int]] = defaultdict(list)
        self.stems: dict[str, list[int]] = defaultdict(list)
        self.lower_paths: dict[str, list[int]] = defaultdict(list)
        self.lower_stems: dict[str, list[int]] = defaultdict(list)
        self.names = [name_of_id(row.id_file) or PhotoName("", "") for row in rows]
        self.depths = {name.depth for name in self.names}
        for row, name in enumerate(self.names):
            self.paths[name.stem + name.suffix].append(row)
            self.lower_paths[(name.stem + name.suffix).lower()].append(row)
            if name.suffix:
                self.stems[name.stem].append(row)
                self.lower_stems[name.stem.lower()].append(row)


def read_catalog(
    data: bytes, source: str, severity: Mapping[str, Severity], columns: Mapping[str, str] | None = None
) -> tuple[Catalog, list[str]]:
    """Return the catalogue that a CSV file's bytes hold, and remarks for people.

    The bytes may be packed by gzip. Encoding and delimiter are found as `catalog_text` and `catalog_table` say. Rows
    without an id describe no photo and are left out. `source` names the file in messages, `severity` is that of the
    rules, and `columns` maps columns to the names that they have in the file. Raise CatalogError when the file is no
    table, a needed column is missing or `id_file` stands twice, or a critical rule does not hold.
    """
    text, remarks = read_text(data, source)
    names = {column: _normal((columns or {}).get(column, column)) for column in CATALOG_COLUMNS}
    table = read_table(text, source, names)
    positions = _positions(table.header, source, names)
    remarks += [*table.remarks, *_repeated(table.header, source, names, positions)]
    rows = list(_rows(table, positions))
    violations = [(severity[rule], message) for rule, message in _violations(rows) if severity[rule] != "off"]
    critical = [message for level, message in violations if level == "critical"]
    if critical:
        raise CatalogError(f"{source}: {'; '.join(critical)}. Correct these rows and upload the file again")
    remarks += [message for _, message in violations]
    for remark in remarks:
        logger.warning("%s: %s", source, remark)
    return Catalog(tuple(row for row in rows if name_of_id(row.id_file))), remarks


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _positions(header: Sequence[str], source: str, names: Mapping[str, str]) -> dict[str, list[int]]:
    """Return where in the header each column stands; raise CatalogError when one is missing."""
    positions = {column: [at for at, cell in enumerate(header) if cell == name] for column, name in names.items()}
    missing = [column for column, places in positions.items() if not places]
    if not missing:
        return positions
    shown = ", ".join(cell[:_SHOWN_LETTERS] or "(empty)" for cell in header[:_SHOWN_COLUMNS])
    more = f" and {len(header) - _SHOWN_COLUMNS:,} more" if len(header) > _SHOWN_COLUMNS else ""
    mapped = [f"{column} as {names[column]}" for column in missing if names[column] != column]
    unused = [cell[:_SHOWN_LETTERS] for cell in header[:1000] if cell and cell not in names.values()]
    example = ", ".join(f'{column}: "{_similar(column, unused)}"' for column in missing[:3])
    raise CatalogError(
        f"{source} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has {shown}{more}. "
        + (f"ingest.columns in params.yaml names {', '.join(mapped)}. " if mapped else "")
        + f"Add {'them' if len(missing) > 1 else 'it'} (empty cells are fine) and upload the file again, or name the "
        f"file's own columns in params.yaml, such as ingest.columns: {{{example}}}"
    )


def _similar(column: str, unused: Sequence[str]) -> str:
    names = {name.lower(): name for name in unused if '"' not in name}
    return next((names[name] for name in difflib.get_close_matches(column, names, 1)), "...")


def _repeated(
    header: Sequence[str], source: str, names: Mapping[str, str], positions: Mapping[str, list[int]]
) -> Iterator[str]:
    """Yield a remark for each column name that stands twice; raise CatalogError when it is that of the ids."""
    for column, places in positions.items():
        numbers = " and ".join(str(at + 1) for at in places)
        if len(places) > 1 and column == "id_file":
            raise CatalogError(
                f"{source} has the column {names[column]} {len(places)} times, as columns {numbers}, so that "
                f"nobody can tell which one names the photo; rename or delete all but one and upload the file again"
            )
        if len(places) > 1:
            yield f"the column {names[column]} stands {len(places)} times, as columns {numbers}: values are joined"
        if names[column] != column and column in header and column not in names.values():
            yield (
                f"column {header.index(column) + 1}, {column}, is not read, since ingest.columns in params.yaml takes "
                f"{column} from {names[column]}"
            )


def _rows(table: Table, positions: Mapping[str, list[int]]) -> Iterator[CatalogRow]:
    for row in table.rows:
        values = {
            column: SEPARATOR.join(dict.fromkeys(row.cells[at] for at in places if row.cells[at]))
            for column, places in positions.items()
        }
        id_file = values.pop("id_file")
        yield CatalogRow(row.line, id_file, {column: text for column, text in values.items() if text})


def _violations(rows: Sequence[CatalogRow]) -> Iterator[tuple[str, str]]:
    """Yield each rule that does not hold, by its name in `ingest.severity`, with a message for people."""
    if not rows:
        yield "rows", "there are no rows"
    lines = [row.line for row in rows if not name_of_id(row.id_file)]
    if lines:
        yield "ids", f"id_file is empty in {len(lines):,} row{'s' if len(lines) > 1 else ''}: {lines_at(lines)}"
    wrong = {
        row.values["year"]: row.line for row in reversed(rows) if not _YEAR.fullmatch(row.values.get("year", "2000"))
    }
    if wrong:
        examples = [f"{year[:_SHOWN_LETTERS]} in line {line}" for year, line in reversed(wrong.items())]
        yield "years", f"year is no four-digit year (for example {', '.join(examples[:_EXAMPLES])})"


def _fold(rows: Sequence[Metadata]) -> Metadata:
    texts = {column: dict.fromkeys(row[column] for row in rows if column in row) for column in CATALOG_COLUMNS}
    return {column: SEPARATOR.join(values) for column, values in texts.items() if values}
