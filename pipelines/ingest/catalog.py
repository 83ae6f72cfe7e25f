"""The archive's catalogue CSV: its rows are checked, and those of one photo become one set of metadata."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import charset_normalizer
import pandas as pd

from pipelines.errors import CatalogError
from pipelines.params import Severity
from pipelines.records import CATALOG_COLUMNS, Metadata

SEPARATOR = " · "
_ENCODINGS = ("utf_16", "cp1252", "mac_roman")
_YEAR = r"(?:1[89]|20)\d\d"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalog:
    """The rows of the catalogue, folded by `id_file`."""

    rows: Mapping[str, Metadata]

    def find(self, name: str) -> Metadata | None:
        """Return the metadata of a photo by its object name (without `gs://bucket/`), or None without a row."""
        return self.rows.get(PurePosixPath(name).stem)

    def remarks_for(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Return what people should know about rows and photos once the object names of all photos are known.

        Each remark is an object name and a message; without an object name it is about the catalogue.
        """
        return []


def read_catalog(
    data: bytes, source: str, severity: Mapping[str, Severity], columns: Mapping[str, str] | None = None
) -> tuple[Catalog, list[str]]:
    """Read the catalogue: per `id_file` each column's distinct values joined by ` · `, and remarks for people.

    UTF-8 with and without BOM, UTF-16, Windows-1252 and Mac Roman are understood. Rows without an id describe no photo
    and are left out. `source` names the file in messages; `severity` is that of the rules. Raises CatalogError when the
    file is no table, a needed column is missing, or a critical rule does not hold.
    """
    text, remarks = _decode(data, source)
    table = _parse(text, source)
    missing = [column for column in CATALOG_COLUMNS if column not in table.columns]
    if missing:
        raise CatalogError(
            f"{source} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns))}. Add them (empty cells are fine) and upload the file again"
        )
    table = table[list(CATALOG_COLUMNS)].fillna("").map(str.strip)
    violations = [(severity[rule], message) for rule, message in _violations(table) if severity[rule] != "off"]
    critical = [message for level, message in violations if level == "critical"]
    if critical:
        raise CatalogError(f"{source}: {'; '.join(critical)}. Correct these rows and upload the file again")
    remarks += [message for _, message in violations]
    for remark in remarks:
        logger.warning("%s: %s", source, remark)
    named = table[table["id_file"] != ""]
    return Catalog({str(key): _fold(rows) for key, rows in named.groupby("id_file", sort=True)}), remarks


def _decode(data: bytes, source: str) -> tuple[str, list[str]]:
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        guess = charset_normalizer.from_bytes(data, cp_isolation=list(_ENCODINGS)).best()
    if guess is None:
        raise CatalogError(f'{source} is no text in a known encoding; save it as "CSV UTF-8"')
    remark = f'the file is taken for {guess.encoding}; if names look wrong, save it as "CSV UTF-8"'
    return str(guess).removeprefix("\ufeff"), [remark]


def _parse(text: str, source: str) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # When every row has a cell more than the header, pandas would shift the columns or drop a cell.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_values=[""], index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise CatalogError(f"{source} is no CSV table with a header row: {error}") from error


def _violations(table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield each rule that does not hold, by its name in `ingest.severity`, with a message for people."""
    if table.empty:
        yield "rows", "there are no rows"
    lines = [str(number + 2) for number, key in enumerate(table["id_file"]) if not key]
    if lines:
        yield "ids", f"id_file is empty in {len(lines)} rows, such as line {', '.join(lines[:5])}"
    years = table["year"][table["year"] != ""]
    invalid = years[~years.str.fullmatch(_YEAR)].unique()
    if len(invalid):
        yield "years", f"year is no four-digit year (for example {', '.join(invalid[:5])})"


def _fold(rows: pd.DataFrame) -> Metadata:
    values = {column: [value for value in dict.fromkeys(rows[column]) if value] for column in CATALOG_COLUMNS}
    return {column: SEPARATOR.join(texts) for column, texts in values.items() if texts and column != "id_file"}
