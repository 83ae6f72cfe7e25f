"""Catalogues for tests: their bytes, and what is read of them."""

from pipelines.ingest.catalog import Catalog, read_catalog
from pipelines.params import Severity
from pipelines.records import CATALOG_COLUMNS

SOURCE = "gs://archive/catalogue.csv"
HEADER = ",".join(CATALOG_COLUMNS)
ROW = "look-1,1999,Autumn,AW,coat,photo,Look 1,black,outerwear,coat"
SEVERITY: dict[str, Severity] = {"rows": "critical", "ids": "warning", "years": "warning"}


def catalog(*rows: str, header: str = HEADER, end: str = "\n") -> bytes:
    return (end.join([header, *rows]) + end).encode()


def row(id_file: str, name: str = "", year: str = "1999") -> str:
    return f"{id_file},{year},,,,,{name},,,"


def load(data: bytes, columns: dict[str, str] | None = None) -> tuple[Catalog, list[str]]:
    return read_catalog(data, SOURCE, SEVERITY, columns)


def read(data: bytes, columns: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Return the metadata by id."""
    return metadata_of(load(data, columns)[0])


def metadata_of(table: Catalog) -> dict[str, dict[str, str]]:
    return {entry.id_file: dict(table.find(entry.id_file) or {}) for entry in table.rows}


def names(data: bytes, columns: dict[str, str] | None = None) -> dict[str, str]:
    """Return the column `name` by id."""
    return {id_file: metadata.get("name", "") for id_file, metadata in read(data, columns).items()}


def of_ids(*ids: str) -> Catalog:
    """Return a catalogue with a row per id, whose column `name` says which row it is."""
    return load(catalog(*(row(f'"{id_file}"', f"row {number}") for number, id_file in enumerate(ids, start=1))))[0]
