"""The catalogue CSV: several rows per photo are folded, and every way it can be broken is named."""

import logging

import pytest

from pipelines.errors import CatalogError
from pipelines.ingest.catalog import read_catalog
from tests.unit.ingest.catalogues import HEADER, ROW, SEVERITY, catalog, load, metadata_of, read


def test_each_photo_gets_its_metadata_without_its_id() -> None:
    assert read(catalog(ROW))["look-1"] == {
        "year": "1999",
        "collection": "Autumn",
        "season": "AW",
        "subject": "coat",
        "media_type": "photo",
        "name": "Look 1",
        "theme": "black",
        "typology": "outerwear",
        "typology.sub": "coat",
    }


def test_rows_of_one_photo_are_folded_in_order_each_value_once() -> None:
    by_id = read(catalog(ROW, ROW.replace("coat", "dress"), ROW.replace("outerwear", "")))
    assert by_id["look-1"]["subject"] == "coat · dress"
    assert by_id["look-1"]["typology"] == "outerwear"


def test_empty_cells_are_left_out() -> None:
    assert read(catalog("look-2,,,,,,,,,", ROW))["look-2"] == {}


def test_texts_that_look_like_numbers_or_nothing_stay_texts() -> None:
    by_id = read(catalog("007,2001,NA,null,nan,1e5,None,,,"))
    assert by_id["007"]["collection"] == "NA"
    assert (by_id["007"]["season"], by_id["007"]["media_type"]) == ("null", "1e5")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + catalog(ROW),
        catalog(ROW, end="\r\n"),
        catalog(f" {ROW.replace(',', ' , ')} "),
        catalog(ROW + ",unused", header=HEADER + ",notes"),
        catalog(ROW + ",", ROW + ","),
    ],
    ids=["byte-order-mark", "windows-lines", "spaces", "more-columns", "a-comma-at-each-end"],
)
def test_what_spreadsheets_do_changes_nothing(data: bytes) -> None:
    assert read(data) == read(catalog(ROW))


def test_quoted_cells_may_hold_commas_quotes_and_new_lines() -> None:
    by_id = read(catalog(ROW.replace("Look 1", '"Look ""1"",\nback"')))
    assert by_id["look-1"]["name"] == 'Look "1",\nback'


def test_columns_may_stand_in_any_order() -> None:
    names, cells = HEADER.split(","), ROW.split(",")
    assert read(catalog(",".join(cells[::-1]), header=",".join(names[::-1]))) == read(catalog(ROW))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no CSV table with a header row"),
        (b"\n\n", "no CSV table with a header row"),
        (catalog(), "there are no rows"),
        (catalog(ROW, header=HEADER.replace("season", "saison")), "lacks the column season; it has id_file, year,"),
        (catalog(ROW, header="ref;title"), "lacks the columns id_file, year"),
        (bytes(range(128, 256)) * 4 + b"\0\1\2", "is no text in a known encoding"),
        (catalog(ROW + ",lost", ROW + ",lost"), "no CSV table"),
    ],
    ids=[
        "zero-bytes", "blank", "header-only", "column-missing", "all-columns-missing", "no-text",
        "all-rows-long",
    ],
)  # fmt: skip
def test_a_broken_catalogue_is_named_with_what_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(CatalogError) as caught:
        read(data)
    assert str(caught.value).startswith("gs://archive/catalogue.csv")
    assert said in str(caught.value)


def test_an_invalid_year_is_reported_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pipelines.ingest.catalog"):
        assert read(catalog(ROW.replace("1999", "99?")))["look-1"]["year"] == "99?"
    assert "gs://archive/catalogue.csv: year is no four-digit year (for example 99? in line 2)" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "mac_roman", "utf-8-sig"])
def test_other_encodings_are_understood_and_remarked(encoding: str) -> None:
    rows = [ROW.replace("Autumn", "Été à la façade").replace("look-1", f"look-{n}") for n in range(30)]
    data = catalog(*rows).decode().encode(encoding)

    table, remarks = load(data)

    assert len(table.rows) == 30
    assert {metadata["collection"] for metadata in metadata_of(table).values()} == {"Été à la façade"}
    assert bool(remarks) == (encoding != "utf-8-sig")
    assert all("the file is taken for" in remark for remark in remarks)


def test_rows_without_an_id_are_left_out_and_named_by_line() -> None:
    data = catalog(ROW, "  ,2001,,,,,,,,")
    table, remarks = load(data)
    assert list(metadata_of(table)) == ["look-1"]
    assert remarks == ["id_file is empty in 1 row: line 3"]
    assert read_catalog(data, "catalogue.csv", {**SEVERITY, "ids": "off"})[1] == []
    with pytest.raises(CatalogError, match=r"in 1 row: line 3\. Correct these rows"):
        read_catalog(data, "catalogue.csv", {**SEVERITY, "ids": "critical"})
