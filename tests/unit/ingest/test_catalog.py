"""The catalogue CSV: several rows per photo are folded, and every way it can be broken is named."""

import contextlib
import gzip
import logging
import re
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


class TestColumns:
    @pytest.mark.parametrize("name", ["Inventarnummer", "Größe", "Nr."])
    def test_they_may_have_other_names(self, name: str) -> None:
        data = catalog(ROW, header=HEADER.replace("id_file", name))
        assert list(read(data, {"id_file": name})) == ["look-1"]
        assert list(read(unicodedata.normalize("NFD", data.decode()).encode(), {"id_file": f" {name} "})) == ["look-1"]

    def test_a_missing_one_is_named_with_how_to_map_it(self) -> None:
        with pytest.raises(CatalogError) as caught:
            load(catalog(ROW, header=HEADER.replace("season", "saison")))
        assert 'such as ingest.columns: {season: "saison"}' in str(caught.value)

    def test_a_mapping_to_a_missing_one_is_named(self) -> None:
        with pytest.raises(CatalogError, match=r"ingest\.columns in params\.yaml names name as Titel"):
            load(catalog(ROW), {"name": "Titel"})

    def test_a_huge_header_is_shown_in_part(self) -> None:
        with pytest.raises(CatalogError) as caught:
            load(catalog("x", header=",".join(f"column {n}" * 10 for n in range(5000))))
        assert "and 4,970 more" in str(caught.value)
        assert len(str(caught.value)) < 3000

    def test_a_header_of_endless_length_is_refused(self) -> None:
        with pytest.raises(CatalogError, match="line 2 has more than 1,000,000 characters"):
            load(b"\n" + b"x" * 1_000_001 + b"\n" + catalog(ROW))

    def test_two_columns_of_ids_are_refused_with_both_positions(self) -> None:
        with pytest.raises(CatalogError, match="has the column id_file 2 times, as columns 1 and 11"):
            load(catalog(ROW + ",look-2", header=HEADER + ",id_file"))

    def test_another_column_that_stands_twice_is_joined_and_remarked(self) -> None:
        table, remarks = load(catalog(ROW + ",Second", header=HEADER + ",name"))
        assert metadata_of(table)["look-1"]["name"] == "Look 1 · Second"
        assert remarks == ["the column name stands 2 times, as columns 7 and 11: values are joined"]

    def test_a_column_that_the_mapping_replaces_is_remarked(self) -> None:
        table, remarks = load(catalog(ROW + ",Mantel", header=HEADER + ",Titel"), {"name": "Titel"})
        assert metadata_of(table)["look-1"]["name"] == "Mantel"
        assert remarks == [
            "column 7, name, is not read, since ingest.columns in params.yaml takes name from Titel",
        ]

    @pytest.mark.parametrize("change", [str.upper, str.title])
    def test_their_case_does_not_matter(self, change: Callable[[str], str]) -> None:
        assert read(catalog(ROW, header=change(HEADER))) == read(catalog(ROW))

    def test_a_name_in_its_own_case_is_preferred(self) -> None:
        table, remarks = load(catalog(ROW + ",Other", header=HEADER + ",Name"))
        assert (metadata_of(table)["look-1"]["name"], remarks) == ("Look 1", [])

    def test_two_may_come_from_one(self) -> None:
        [metadata] = read(catalog(ROW), {"theme": "name"}).values()
        assert (metadata["name"], metadata["theme"]) == ("Look 1", "Look 1")


NEAR_CATALOGUES = st.lists(
    st.sampled_from(
        [
            HEADER.encode(), ROW.encode(), b",", b";", b"\t", b'"', b'""', b"\n", b"\r", b"\r\n", b"sep=;", b"id_file",
            b"\0", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xe9", "é".encode(), "€".encode("utf-16-le"), b"=",
            b"/", b"1999", b"\x1f\x8b", b"1E+11", b'"4 heel,,,', b"a" * 70, HEADER.replace(",", ";").encode(),
            HEADER.encode("utf-16"),
        ]
    ),
    max_size=60,
).map(b"".join)  # fmt: skip
MUTATED = st.builds(
    lambda data, at, insert, cut: data[: at % len(data)] + insert + data[at % len(data) + cut :],
    st.just(catalog(*(ROW.replace("look-1", f"look-{n}é") for n in range(5)))),
    st.integers(0, 10_000), st.binary(max_size=8) | st.sampled_from([b'"', b",", b"\n"]), st.integers(0, 30),
)  # fmt: skip


@given(data=st.binary(max_size=400) | NEAR_CATALOGUES | MUTATED | MUTATED.map(gzip.compress))
@settings(max_examples=600, deadline=None)
def test_any_bytes_are_a_catalogue_or_an_error_that_says_where(data: bytes) -> None:
    try:
        table, remarks = load(data)
    except CatalogError as error:
        assert str(error).startswith("gs://archive/catalogue.csv")
        assert re.search(r"\b(line|column|row|gzip bytes|Upload a smaller)", str(error))
        return
    table.find("photos/look-1é.png")
    table.remarks_for(["photos/look-1é.png", "0012.jpg", "x"])
    assert all(remarks)


@pytest.mark.parametrize(
    "body",
    [
        b'"\n' * 60_000, b'x,"a\n' * 40_000, b'""' * 100_000, (b'x,""\n' * 999 + b'y,"\n') * 30, b'"a""\n' * 40_000,
        b"," * 900_000, b"\n" * 500_000, b'a,"' + b'b""' * 60_000 + b"\n", (ROW.encode() + b',"4\n') * 10_000,
        b"\xe9" * 900_000, b"\xe9\n" * 60_000,
    ],
    ids=range(11),
)  # fmt: skip
def test_no_bytes_take_long(body: bytes) -> None:
    started = time.monotonic()
    with contextlib.suppress(CatalogError):
        table, _ = load(catalog(ROW) + body)
        table.remarks_for(["photos/look-1.png", "x.png"])
    assert time.monotonic() - started < 20
