"""A catalogue's bytes: packed or not, in whatever encoding a spreadsheet chose, and with cells in another one."""

import gzip
import io
import zlib

import pytest

from pipelines.errors import CatalogError
from pipelines.ingest import catalog_text
from tests.unit.ingest.catalogues import HEADER, catalog, load, names, row

UMLAUTS = catalog(*(row(f"look-{n}", f"Größe {n}") for n in range(1, 31)))


class TestOtherEncodingsOfSingleCells:
    def test_a_cell_of_windows_1252_changes_no_other_cell(self) -> None:
        data = catalog(row("a", "Größe"), row("b", "Straße"), row("c", "été")).replace(
            "Straße".encode(), "Straße".encode("cp1252")
        )
        table, remarks = load(data)
        assert [entry.values["name"] for entry in table.rows] == ["Größe", "Straße", "été"]
        assert [remark for remark in remarks if "read as Windows-1252 in line 3;" in remark] == remarks

    def test_the_other_cells_of_its_row_stay_right(self) -> None:
        data = catalog("é1,1999,Hérmès,,,,X,,,").replace(b"X", b"\xc9t\xe9")
        assert names(data) == {"é1": "Été"}
        assert load(data)[0].rows[0].values["collection"] == "Hérmès"

    def test_a_cell_in_a_file_of_ascii_is_read_and_named_by_its_line(self) -> None:
        data = catalog(*(row(f"look-{n}") for n in range(3000)), "x,1999,,,,,Gr\0e,,,").replace(b"\0", b"\xf6\xdf")
        table, remarks = load(data)
        assert len(table.rows) == 3001
        assert table.rows[-1].values["name"] == "Größe" or "taken for" in remarks[0]

    @pytest.mark.parametrize("wrong", [b"\x81\x8d", b"\xff\xff", b"\xc3", b"\xed\xa0\x80"])
    def test_bytes_of_no_encoding_cost_their_cell(self, wrong: bytes) -> None:
        read_names = names(catalog(row("a", "Größe"), row("b", "X"), row("c", "Maß")).replace(b"X", wrong))
        assert (read_names["a"], read_names["c"]) == ("Größe", "Maß")

    def test_many_such_lines_are_counted(self) -> None:
        rows = [row(f"u{n}", "Größe") for n in range(10)] + [row(f"w{n}", "X") for n in range(9)]
        _, [remark] = load(catalog(*rows).replace(b"X", b"Gr\xf6\xdfe"))
        assert "in 9 lines, such as 12, 13, 14, 15, 16" in remark

    def test_a_byte_order_mark_says_utf_8_even_if_a_cell_says_otherwise(self) -> None:
        data = b"\xef\xbb\xbf" + catalog(row("a", "X")).replace(b"X", b"Gr\xf6\xdfe")
        assert names(data) == {"a": "Größe"}


class TestWholeFiles:
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_excels_unicode_text_with_and_without_byte_order_mark(self, encoding: str) -> None:
        data = UMLAUTS.decode().replace(",", "\t").encode(encoding)
        assert names(data) == {f"look-{n}": f"Größe {n}" for n in range(1, 31)}

    @pytest.mark.parametrize("cut", [1, 3])
    def test_utf_16_that_ends_inside_a_letter_is_remarked(self, cut: int) -> None:
        table, remarks = load(UMLAUTS.decode().rstrip().encode("utf-16")[:-cut])
        assert len(table.rows) == 30
        assert any("unreadable in line 31" in remark for remark in remarks)

    def test_control_characters_are_left_out_and_remarked(self) -> None:
        table, remarks = load(catalog(row("a", "No\0 1\x1b"), row("b", "2")) + b"\x1a")
        assert [entry.values["name"] for entry in table.rows] == ["No 1", "2"]
        assert remarks == ["control characters are left out in lines 2, 4"]

    def test_a_byte_order_mark_between_two_exports_hides_no_id(self) -> None:
        assert set(names(catalog(row("a")) + "\ufeff".encode() + row("b").encode())) == {"a", "b"}

    def test_many_rows_of_cyrillic_are_refused_or_remarked(self) -> None:
        data = catalog(*(row(f"look-{n}", "Платье") for n in range(30))).decode().encode("cp1251")
        try:
            _, remarks = load(data)
        except CatalogError as error:
            assert "30 lines, such as 2, 3" in str(error)
        else:
            assert "the file is taken for" in remarks[0]


class TestPacked:
    def test_gzip_is_unpacked(self) -> None:
        assert names(gzip.compress(UMLAUTS)) == names(UMLAUTS)

    def test_several_members_are_one_file(self) -> None:
        assert names(gzip.compress(UMLAUTS[:100]) + gzip.compress(UMLAUTS[100:])) == names(UMLAUTS)

    @pytest.mark.parametrize("cut", [3, 15, 60])
    def test_a_file_that_ends_early_is_refused(self, cut: int) -> None:
        with pytest.raises(CatalogError, match="its gzip bytes end too early; upload the file again"):
            load(gzip.compress(UMLAUTS)[:cut])

    def test_damaged_bytes_are_refused(self) -> None:
        data = bytearray(gzip.compress(UMLAUTS))
        data[40] ^= 0xFF
        with pytest.raises(CatalogError, match="its gzip bytes are damaged"):
            load(bytes(data))

    def test_a_bomb_is_refused_without_unpacking_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalog_text, "MAX_BYTES", 1 << 20)
        file = io.BytesIO()
        pack = zlib.compressobj(9, wbits=31)
        for _ in range(64):
            file.write(pack.compress(bytes(1 << 20)))
        file.write(pack.flush())
        with pytest.raises(CatalogError, match="more than 1 MB of text"):
            load(file.getvalue())

    def test_many_small_members_are_bounded_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalog_text, "MAX_BYTES", 1 << 20)
        with pytest.raises(CatalogError, match="more than 1 MB of text"):
            load(gzip.compress(bytes(1 << 18)) * 5)

    @pytest.mark.parametrize("magic", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF-1.7"])
    def test_a_workbook_is_called_one(self, magic: bytes) -> None:
        with pytest.raises(CatalogError, match=r'(workbook|PDF).*save it as "CSV UTF-8" and upload it again'):
            load(magic + HEADER.encode())
