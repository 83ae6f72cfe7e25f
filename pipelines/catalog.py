"""The archive's catalogue CSV: several rows per photo, checked, folded into one set of metadata per photo."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping

import charset_normalizer
import pandas as pd

from pipelines.errors import CatalogError
from pipelines.expectations import Rule, by_severity, find_violations
from pipelines.params import Severity
from pipelines.records import Metadata
from pipelines.settings import PROJECT_ROOT

COLUMNS = (
    "id_file", "year", "collection", "season", "subject", "media_type", "name", "theme", "typology", "typology.sub",
)  # fmt: skip
SEPARATOR = " · "
_ENCODINGS = ("utf_16", "cp1252", "mac_roman")
logger = logging.getLogger(__name__)


def read_catalog(data: bytes, source: str, severity: Mapping[str, Severity]) -> tuple[dict[str, Metadata], list[str]]:
    """Read the catalogue: per `id_file` each column's distinct values joined by ` · `, and what there is to remark.

    UTF-8 with and without BOM, UTF-16, Windows-1252 and Mac Roman are understood. Rows without an id describe no photo
    and are left out. `source` names the file in messages; `severity` is that of the rules. Raises CatalogError, before
    anything is changed, when it is no table, a needed column is missing, or a critical rule of Great Expectations does
    not hold.
    """
    text, remarks = _decode(data, source)
    table = _parse(text, source)
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise CatalogError(
            f"{source} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns))}. Add them (empty cells are fine) and upload the file again"
        )
    table = table[list(COLUMNS)].fillna("").map(str.strip)
    findings = find_violations(table.replace("", None), by_severity(_rules(table), severity))
    critical = [str(finding) for finding in findings if finding.rule.critical]
    if critical:
        raise CatalogError(f"{source}: {'; '.join(critical)}. Mend these rows and upload the file again")
    remarks += [str(finding) for finding in findings]
    for remark in remarks:
        logger.warning("%s: %s", source, remark)
    named = table[table["id_file"] != ""]
    return {str(key): _fold(rows) for key, rows in named.groupby("id_file", sort=True)}, remarks


def read_catalog_apart(
    data: bytes, source: str, severity: Mapping[str, Severity]
) -> tuple[dict[str, Metadata], list[str]]:
    """Do what `read_catalog` does in a process of its own, for callers whose threads have other things to do.

    Importing Great Expectations takes seconds, in which Python runs nothing else in the process that imports it.
    """
    command = [sys.executable, "-m", "pipelines.catalog", source, json.dumps(dict(severity))]
    done = subprocess.run(command, input=data, capture_output=True, cwd=PROJECT_ROOT, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise CatalogError(f"{source} could not be checked: {done.stderr.decode(errors='replace')[-800:]}") from error
    if "error" in answer:
        raise CatalogError(answer["error"])
    for remark in answer["remarks"]:
        logger.warning("%s: %s", source, remark)
    return answer["catalog"], answer["remarks"]


def _decode(data: bytes, source: str) -> tuple[str, list[str]]:
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        found = charset_normalizer.from_bytes(data, cp_isolation=list(_ENCODINGS)).best()
    if found is None:
        raise CatalogError(f"{source} is no text in a known encoding; save it as «CSV UTF-8»")
    remark = f"the file is taken for {found.encoding}; if names look wrong, save it as «CSV UTF-8»"
    return str(found).removeprefix("\ufeff"), [remark]


def _parse(text: str, source: str) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # When every row has a cell more than the header, pandas would shift the columns or drop a cell.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_values=[""], index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise CatalogError(f"{source} is no CSV table with a header row: {error}") from error


def _rules(table: pd.DataFrame) -> Iterator[tuple[str, Rule]]:
    yield "rows", Rule("ExpectTableRowCountToBeBetween", {"min_value": 1}, "there are no rows")
    lines = [str(number + 2) for number, key in enumerate(table["id_file"]) if not key]
    without = f"id_file is empty in {len(lines)} rows, such as line {', '.join(lines[:5])}"
    yield "ids", Rule("ExpectColumnValuesToNotBeNull", {"column": "id_file"}, without)
    year = {"column": "year", "regex": r"^(?:1[89]|20)\d\d$"}
    yield "years", Rule("ExpectColumnValuesToMatchRegex", year, "year is no four-digit year")


def _fold(rows: pd.DataFrame) -> Metadata:
    values = {column: [value for value in dict.fromkeys(rows[column]) if value] for column in COLUMNS}
    return {column: SEPARATOR.join(found) for column, found in values.items() if found and column != "id_file"}


def main() -> None:
    """Read a catalogue from standard input; arguments are its name and the rules' severity. Answers with JSON."""
    try:
        catalog, remarks = read_catalog(sys.stdin.buffer.read(), sys.argv[1], json.loads(sys.argv[2]))
        answer: dict[str, object] = {"catalog": catalog, "remarks": remarks}
    except CatalogError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
