"""Delimiters, quotation marks and rows of the wrong width: what cannot be read costs one row and names its line."""

import csv
import io
import random

import pytest

from pipelines.errors import CatalogError
from tests.unit.ingest.catalogues import HEADER, ROW, catalog, load, names, read, row


def remark(data: bytes) -> str:
    """Return the only remark about a catalogue."""
    [text] = load(data)[1]
    return text


class TestDelimiters:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_each_is_found_by_the_header(self, delimiter: str) -> None:
        cells = [*ROW.split(",")[:6], '"Wool, silk; cotton | linen\tjute"', *ROW.split(",")[7:]]
        data = catalog(delimiter.join(cells), header=HEADER.replace(",", delimiter))
        assert names(data) == {"look-1": "Wool, silk; cotton | linen\tjute"}
        assert load(data)[1] == []

    @pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;;", "\n\nsep=;"])
    def test_a_line_that_names_it_is_understood(self, first: str) -> None:
        data = f"{first}\n".encode() + catalog(ROW).replace(b",", b";")
        assert names(data) == {"look-1": "Look 1"}
        assert load(data)[0].rows[0].line == 3 + first.count("\n")

    def test_it_may_be_an_unusual_one(self) -> None:
        assert names(b"sep=^\n" + catalog(ROW).replace(b",", b"^")) == {"look-1": "Look 1"}

    def test_a_wrong_one_is_overruled_by_the_header(self) -> None:
        assert names(b"sep=,\n" + catalog(ROW).replace(b",", b";")) == {"look-1": "Look 1"}

    def test_column_names_in_quotation_marks_may_hold_another_one(self) -> None:
        header = HEADER.replace(",", ";") + ';"size, in cm"'
        assert names(catalog(ROW.replace(",", ";") + ";1,5", header=header)) == {"look-1": "Look 1"}

    def test_mapped_names_count_as_well(self) -> None:
        header = (
            HEADER.replace("id_file", "Nr, alt")
            .replace("name", "Titel")
            .replace(",", ";")
            .replace("Nr; alt", "Nr, alt")
        )
        data = catalog(ROW.replace(",", ";"), header=header)
        assert names(data, {"id_file": "Nr, alt", "name": "Titel"}) == {"look-1": "Look 1"}

    def test_a_title_above_the_header_is_left_out_and_said(self) -> None:
        data = b"Inventory, 2024\n\n" + catalog(ROW)
        assert names(data) == {"look-1": "Look 1"}
        assert remark(data) == "the header is taken to be line 3; the lines above it are left out"

    def test_all_together_as_excel_writes_unicode_text(self) -> None:
        text = catalog(row("é", '"a ""b"", c"').replace(",1999,", ",1999,", 1)).decode()
        data = text.replace('"a ""b"", c"', "\0").replace(",", "\t").replace("\0", '"a ""b"", c"')
        assert names(data.replace("\n", "\r\n").encode("utf-16")) == {"é": 'a "b", c'}


class TestQuotationMarks:
    def test_inch_marks_swallow_no_row(self) -> None:
        data = catalog(row("a"), 'b,1999,,,,,"4 heel,,,', 'c,1999,,,,,5" heel,,,', row("d"))
        assert names(data) == {"a": "", "b": '"4 heel', "c": '5" heel', "d": ""}
        assert "a quotation mark begins a cell but does not close it in line 3" in remark(data)

    @pytest.mark.parametrize(
        "rows",
        [
            ('b,1999,,,,,"4 heel,,,', 'c,1999,,,,,5",,,'),
            ('b,1999,,,,,"4 heel', 'c,1999,,,,,5",,,'),
            ('b,1999,,,,,"4 heel,,,', 'c,1999,,,,,5"'),
            ('b,1999,,,,,"4 heel', 'c,1999,,,,,5"'),
            ('b,1999,,,,,"4 heel,,,', "x,2000,,,,,,,,", "", 'c,1999,,,,,5",,,'),
            ('b,1999,,,,,"4 heel,,,', 'c,1999,"Spring, Summer",,,,5" heel,,,'),
            ('b,1999,,,,,,,,"4 heel', 'c,1999,,,,,,,,5"'),
            ('b,"4 heel,,,,,,,,', 'c,5",,,,,,,,'),
        ],
    )  # fmt: skip
    def test_marks_that_close_each_other_in_another_row_are_text(self, rows: tuple[str, ...]) -> None:
        table, remarks = load(catalog(row("a"), *rows, row("d")))
        ids = [entry.id_file for entry in table.rows]
        assert ids == [*"ab", *[line[0] for line in rows[1:] if line], "d"]
        assert any("does not close it in line 3" in text for text in remarks)

    def test_a_row_behind_them_with_a_cell_too_many_is_named(self) -> None:
        table, remarks = load(catalog(row("a"), 'b,1999,,,,,"4 heel,,,', 'c,1999,,,,,5",,,,', row("d")))
        assert [entry.id_file for entry in table.rows] == ["a", "b", "d"]
        assert "line 3:" in remarks[0]
        assert "line 4 (11 cells, id_file c)" in remarks[1]

    def test_a_mark_that_nothing_closes_costs_no_row(self) -> None:
        data = catalog(row("a"), row("b", '"Look'), row("c"), row("d"))
        assert names(data) == {"a": "", "b": '"Look', "c": "", "d": ""}
        assert "in line 3:" in remark(data)

    def test_inch_marks_in_a_file_that_quotes_every_cell_are_text(self) -> None:
        lines = [[*"a1", *[""] * 4, name, *[""] * 3] for name in ('4" heel', '5"', '"6', "x")]
        rows = [",".join(f'"{cell}"' for cell in (f"l{number}", *cells[1:])) for number, cells in enumerate(lines)]
        data = catalog(*rows, header=f'"{HEADER.replace(",", chr(34) + "," + chr(34))}"')
        assert names(data) == {"l0": '4" heel', "l1": '5"', "l2": '"6', "l3": "x"}
        assert "does not close it in lines 2, 3, 4:" in load(data)[1][0]

    def test_marks_inside_and_behind_a_text_are_text(self) -> None:
        data = catalog(row("a", '4" heel'), row("b", '4"'), row("c", 'the "new" look'))
        assert names(data) == {"a": '4" heel', "b": '4"', "c": 'the "new" look'}
        assert load(data)[1] == []

    @pytest.mark.parametrize(
        "name",
        [
            "Look 1\nback", "Look\n\n1", "Look, 1\nback, black, wool", 'Look "1",\n"back"', "\nLook", "Look\n",
            "Wool,\nsilk,\ncotton", "a\n" * 300 + "b", "one, two, three, four\nfive, six, seven, eight",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_texts_may_run_over_lines(self, name: str, end: str) -> None:
        quoted = '"' + name.replace('"', '""') + '"'
        data = catalog(row("a", quoted), row("b"), end="\n").decode().replace("\n", end).encode()
        table, remarks = load(data)
        assert [entry.values.get("name", "") for entry in table.rows] == [name.strip(), ""]
        assert table.rows[1].line == 3 + name.count("\n")
        assert remarks == []

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    def test_what_a_csv_writer_writes_is_read_as_it_was(self, delimiter: str) -> None:
        words = [
            "wool",
            "silk, linen",
            '5" belt',
            '"new"',
            "in 1999,",
            "| red;",
            "zip\nback",
            "a\tb",
            "2001",
            "1, 2, 3",
        ]
        random_words = random.Random(0)
        header = [*HEADER.split(","), "notes"]
        for _ in range(100):
            random_words.shuffle(header)
            file = io.StringIO()
            writer = csv.DictWriter(file, header, restval="", delimiter=delimiter)
            writer.writeheader()
            texts = [" ".join(random_words.choices(words, k=random_words.randrange(12))) for _ in range(16)]
            for number, (name, notes) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
                writer.writerow({"id_file": f"l{number}", "year": "1999", "name": name, "notes": notes})
            table, remarks = load(file.getvalue().encode())
            assert [entry.values.get("name", "") for entry in table.rows] == [text.strip() for text in texts[::2]]
            assert remarks == []

    @pytest.mark.parametrize("column", range(12))
    def test_they_may_stand_in_any_column(self, column: int) -> None:
        header = [*HEADER.split(","), "x", "y"]
        cells = [*ROW.split(","), "", ""]
        header.insert(column, "notes")
        cells.insert(column, '"red, blue\nand green, then, more"')
        assert names(catalog(",".join(cells), header=",".join(header))) == {"look-1": "Look 1"}

    def test_the_header_may_run_over_lines_too(self) -> None:
        data = catalog(row("a", "A") + ",n", header=HEADER + ',"notes\n(internal)"')
        assert names(data) == {"a": "A"}
        assert load(data)[0].rows[0].line == 3

    def test_a_mark_in_the_header_swallows_no_row(self) -> None:
        table, remarks = load(catalog(row("a") + ',5"', row("b") + ",", header=HEADER + ',"size'))
        assert [entry.id_file for entry in table.rows] == ["a", "b"]
        assert "in line 1:" in remarks[0]

    def test_how_spreadsheets_are_told_that_a_number_is_text(self) -> None:
        assert set(read(catalog(row('="0012"'), row('"=""0013"""')))) == {"0012", "0013"}


class TestRowsOfAnotherWidth:
    def test_a_row_with_a_cell_too_many_is_left_out_and_named(self) -> None:
        rows = [row(f"look-{n}") for n in range(30_000)]
        rows[20_000] = "look-x,1999,,,,,Wool, silk,,,"
        table, [text] = load(catalog(*rows))
        assert len(table.rows) == 29_999
        assert text.startswith(
            "1 row with more cells than the header's 10 is left out: line 20002 (11 cells, id_file look-x)"
        )

    def test_a_delimiter_at_the_end_of_every_line_is_no_cell(self) -> None:
        data = catalog(*[row(f"a{n}") + "," for n in range(5)], row("b"), "c,1999,,,,,Wool, silk,,,,")
        assert set(names(data)) == {*[f"a{n}" for n in range(5)], "b"}
        remarks = load(data)[1]
        assert "line 8 (12 cells, id_file c)" in remarks[0]
        assert remarks[1] == "empty cells behind the header's last column are left out in lines 2, 3, 4, 5, 6"

    def test_a_header_that_stands_again_is_no_row(self) -> None:
        data = catalog(row("a"), HEADER, row("b"))
        assert names(data) == {"a": "", "b": ""}
        assert remark(data) == "the header stands again in line 3, which is left out"

    def test_many_are_counted(self) -> None:
        text = remark(catalog(*[row(f"l{n}") for n in range(20)], *[row(f"m{n}") + ",more" for n in range(9)]))
        assert text.startswith(
            "9 rows with more cells than the header's 10 are left out: line 22 (11 cells, id_file m0)"
        )

    def test_most_of_them_mean_another_header(self) -> None:
        with pytest.raises(
            CatalogError, match=r"3 of 4 rows have more cells than the 10 of the header, such as line 2 \("
        ):
            load(catalog(*[row(f"m{n}") + ",more" for n in range(3)], row("a")))

    def test_short_rows_are_filled_up_and_named(self) -> None:
        data = catalog("a,1999", row("b", "B"), "c")
        assert names(data) == {"a": "", "b": "B", "c": ""}
        assert remark(data) == "cells are missing at the end of lines 2, 4; they count as empty"

    def test_empty_lines_count_as_lines_only(self) -> None:
        table, remarks = load(b"\n" + catalog(row("a"), "", "  ", row("b")))
        assert [(entry.id_file, entry.line) for entry in table.rows] == [("a", 3), ("b", 6)]
        assert remarks == []

    def test_a_line_of_endless_length_is_left_out(self) -> None:
        data = catalog(row("a"), "x," * 600_000, row("b"))
        assert names(data) == {"a": "", "b": ""}
        assert remark(data) == "more than 1,000,000 characters stand in line 3: no row is read there"
