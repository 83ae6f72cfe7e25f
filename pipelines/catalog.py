"""The archive's catalogue CSV: several rows per photo, checked, folded into one set of metadata per photo."""

import io
import logging
import warnings

import pandas as pd

from pipelines.errors import CatalogError
from pipelines.expectations import Rule, find_violations
from pipelines.records import Metadata

COLUMNS = (
    "id_file", "year", "collection", "season", "subject", "media_type", "name", "theme", "typology", "typology.sub",
)  # fmt: skip
SEPARATOR = " · "
logger = logging.getLogger(__name__)


def read_catalog(data: bytes, source: str) -> dict[str, Metadata]:
    """Read the catalogue and give, per `id_file`, each column's distinct values joined by ` · `.

    `source` names the file in messages. Raises CatalogError, before anything is changed, when a needed column is
    missing, the encoding is not UTF-8, or a critical rule of Great Expectations does not hold; others are logged.
    """
    table = _parse(data, source)
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise CatalogError(
            f"{source} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns))}. Add them (empty cells are fine) and upload the file again"
        )
    table = table[list(COLUMNS)].fillna("").map(str.strip)
    findings = find_violations(table.replace("", None), _rules())
    for finding in findings:
        if not finding.rule.critical:
            logger.warning("%s: %s", source, finding)
    critical = [str(finding) for finding in findings if finding.rule.critical]
    if critical:
        raise CatalogError(f"{source}: {'; '.join(critical)}. Mend these rows and upload the file again")
    return {str(key): _fold(rows) for key, rows in table.groupby("id_file", sort=True)}


def _parse(data: bytes, source: str) -> pd.DataFrame:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{source} is not UTF-8 (byte {error.start}); save it as «CSV UTF-8»") from error
    try:
        with warnings.catch_warnings():
            # When every row has a cell more than the header, pandas would shift the columns or drop a cell.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_values=[""], index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise CatalogError(f"{source} is no CSV table with a header row: {error}") from error


def _rules() -> list[Rule]:
    return [
        Rule("ExpectTableRowCountToBeBetween", {"min_value": 1}, "there are no rows"),
        Rule("ExpectColumnValuesToNotBeNull", {"column": "id_file"}, "id_file is empty in some rows"),
        Rule(
            "ExpectColumnValuesToMatchRegex",
            {"column": "year", "regex": r"^(?:1[89]|20)\d\d$"},
            "year is no four-digit year",
            critical=False,
        ),
    ]


def _fold(rows: pd.DataFrame) -> Metadata:
    values = {column: [value for value in dict.fromkeys(rows[column]) if value] for column in COLUMNS}
    return {column: SEPARATOR.join(found) for column, found in values.items() if found and column != "id_file"}
