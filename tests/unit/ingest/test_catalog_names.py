"""Which row describes which photo, and what is said about those that fit nothing."""

import logging
import unicodedata

import pytest

from tests.unit.ingest.catalogues import of_ids


def found_row(ids: list[str], photo: str) -> str | None:
    """Return the number of the row (from 1) that describes a photo; several are joined."""
    metadata = of_ids(*ids).find(photo)
    return None if metadata is None else metadata["name"].replace("row ", "")


@pytest.mark.parametrize(
    ("id_file", "photo"),
    [
        ("001", "photos/1999/001.png"),
        ("001.png", "photos/1999/001.png"),
        ("1999/001", "photos/1999/001.png"),
        ("1999/001.PNG", "photos/1999/001.png"),
        ("photos/1999/001.png", "photos/1999/001.png"),
        ("/photos/1999/001", "photos/1999/001.png"),
        ("./1999/001.png", "photos/1999/001.png"),
        ("1999\\001.png", "photos/1999/001.png"),
        ("gs://archive/photos/1999/001.png", "photos/1999/001.png"),
        ("look.v1", "look.v1.jpg"),
        ("look.v1.jpg", "look.v1.jpg"),
        ("12.5", "photos/12.5.jpg"),
        ("scan.tif", "photos/scan.jpg"),
        ("c9.jpg", "photos/c9.png"),
        ("c9.jpeg", "photos/c9.JPG"),
        ("B7", "photos/b7.png"),
        ("Photos/B7.JPG", "photos/b7.png"),
        ("a\u200bb", "photos/ab.png"),
        ("a ", "photos/a.png"),
        ("x.foo", "photos/x.foo"),
        ("a//b", "a//b.png"),
    ],
)
def test_an_id_fits_a_photo(id_file: str, photo: str) -> None:
    assert found_row([id_file], photo) == "1"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_letters_with_accents_are_equal_in_any_unicode_form(form: str, other: str) -> None:
    photo = f"photos/{unicodedata.normalize(other, 'été Å')}.png"  # type: ignore[arg-type]  # a form's name
    assert found_row([unicodedata.normalize(form, "été Å")], photo) == "1"  # type: ignore[arg-type]  # a form's name


@pytest.mark.parametrize(
    ("id_file", "photo"),
    [
        ("12", "photos/0012.png"),
        ("0012", "photos/12.png"),
        ("12.0", "photos/0012.png"),
        ("12.0", "photos/12.png"),
        ("1.20E+11", "photos/120345678901.png"),
        ("2020/001", "photos/1999/001.png"),
        ("o/001", "photo/001.png"),
        ("archive/photos/1999/001.png", "photos/1999/001.png"),
        ("1999", "photos/1999/001.png"),
        ("Maße", "photos/Masse.png"),
    ],
)
def test_an_id_does_not_fit_a_photo(id_file: str, photo: str) -> None:
    assert found_row([id_file], photo) is None


@pytest.mark.parametrize(
    ("ids", "photo", "rows"),
    [
        (["001", "1999/001"], "photos/1999/001.png", "2"),
        (["001", "1999/001"], "photos/2020/001.png", "1"),
        (["1999/001", "photos/1999/001", "001"], "photos/1999/001.png", "2"),
        (["c9.jpg", "c9.png"], "c9.png", "2"),
        (["c9.jpg", "c9.png"], "c9.webp", None),
        (["c9", "c9.png", "c9.jpg"], "c9.png", "1 · 2"),
        (["b7", "B7"], "B7.png", "2"),
        (["b7", "B7"], "b7.png", "1"),
        (["bA", "Ba"], "ba.png", None),
        (["B7", "B7"], "b7.png", "1 · 2"),
    ],
)
def test_the_nearest_ids_win(ids: list[str], photo: str, rows: str | None) -> None:
    assert found_row(ids, photo) == rows


def remarks(ids: list[str], photos: list[str]) -> list[tuple[str, str]]:
    return of_ids(*ids).remarks_for(photos)


class TestRemarks:
    def test_there_are_none_where_all_fits(self) -> None:
        assert remarks(["a", "x/b"], ["p/a.png", "p/x/b.png"]) == []

    def test_there_are_none_without_photos_or_rows(self) -> None:
        assert remarks(["a"], []) == []

    def test_sums_name_rows_and_photos_that_fit_nothing(self) -> None:
        ids, photos = [f"id{n}" for n in range(1200)], ["p/id0.png", "p/other.png", "p/another.png"]
        assert remarks(ids, photos) == [
            ("", "1,199 of 1,200 rows fit no photo, such as id1 (line 3), id2 (line 4), id3 (line 5), id4 (line 6), "
             "id5 (line 7)"),
            ("", "2 of 3 photos have no row, such as p/another.png, p/other.png"),
        ]  # fmt: skip

    def test_a_row_of_two_photos_names_both(self) -> None:
        [total, about] = remarks(["001"], ["photos/2020/001.png", "photos/1999/001.png"])
        assert total == ("", "1 id fits more than one photo, which all show its rows")
        assert about[0] == "photos/1999/001.png"
        assert about[1].startswith(
            "the id_file 001 (line 2) fits 2 photos: photos/1999/001.png, photos/2020/001.png. If the row describes one"
        )

    def test_a_row_with_the_path_leaves_the_bare_name_to_the_other_photo(self) -> None:
        assert remarks(["001", "1999/001"], ["photos/1999/001.png", "photos/2020/001.png"]) == []

    def test_rows_of_one_id_are_named_once(self) -> None:
        assert len(remarks(["001", "001"], ["a/001.png", "b/001.png"])) == 2

    def test_case_and_suffix_are_said(self) -> None:
        [(name, message)] = remarks(["B7", "c9.jpg"], ["b7.png", "c9.png"])
        assert (name, message.partition(":")[0]) == (
            "",
            "2 photos fit their rows only when case and suffix are ignored",
        )
        assert "b7.png (B7, line 2), c9.png (c9.jpg, line 3)" in message

    def test_ids_that_differ_in_case_only_are_named_at_the_photo(self) -> None:
        about = dict(remarks(["bA", "Ba"], ["ba.png"]))
        assert "line 2 has the id_file bA and line 3 has the id_file Ba: they differ" in about["ba.png"]

    @pytest.mark.parametrize(
        ("id_file", "photo", "advice"),
        [
            ("12", "0012.png", "changed the number; write 0012 there"),
            ("12.0", "0012.png", "changed the number; write 0012 there"),
            ("12,0", "0012.png", "changed the number; write 0012 there"),
            ("0012", "12.png", "changed the number; write 12 there"),
            ("1.20E+11", "120345678901.png", "changed the number; write 120345678901 there"),
            ("1,20345678901E+11", "120345678901.png", "changed the number; write 120345678901 there"),
            ("12.tif", "0012.png", "changed the number; write 0012 there"),
            ("2020/001", "photos/1999/001.png", "another folder or a longer path; write photos/1999/001 there"),
            ("D:/scans/1999/001.tif", "photos/1999/001.png", "another folder or a longer path; write photos/1999/001"),
            ("look_1", "Look-001.png", "spelled in another way; write Look-001 there"),
            ("ete 1", "été_1.png", "spelled in another way; write été_1 there"),
        ],
    )
    def test_what_may_be_meant_is_suggested(self, id_file: str, photo: str, advice: str) -> None:
        about = dict(remarks([id_file, "other"], [photo, "other.png"]))
        assert f"line 2 has the id_file {id_file}, which may be this photo: " in about[photo]
        assert advice in about[photo]

    def test_a_row_that_fits_another_photo_is_not_suggested(self) -> None:
        assert list(dict(remarks(["12"], ["12.png", "0012.png"]))) == [""]

    @pytest.mark.parametrize("photo", ["9" * 400, "²", "٣", "-", ".png", "", "//", "a" * 5000])
    def test_odd_names_are_compared_as_well(self, photo: str) -> None:
        ids = ["1E+99", "9" * 500, "²", "1.5E+11", "٣", "0" * 60, "12.00", "-", "..", "/a/"]
        assert remarks(ids, [photo, f"{photo}.jpg", "7.jpg"])

    @pytest.mark.parametrize(
        ("ids", "photos", "reason"),
        [
            (["1", "2"], ["0001.png", "0002.png"], "A spreadsheet has probably changed the numbers"),
            (["x/1", "x/2"], ["y/1.png", "y/2.png"], "The ids probably name folders"),
            (["Look 1", "Look 2"], ["look_1.png", "look_2.png"], "The ids are probably spelled in another way"),
            (
                ["Coat", "Dress"],
                ["0001.png", "0002.png"],
                "The column id_file must hold the photo's file name or its path",
            ),
        ],
    )
    def test_a_catalogue_that_fits_nothing_is_loud(
        self, ids: list[str], photos: list[str], reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        message = remarks(ids, photos)[0][1]
        assert message.startswith(
            f"0 of 2 rows fit a photo, so that no photo shows details. Ids look like {ids[0]} (li"
        )
        assert photos[0] in message
        assert reason in message
        assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]

    def test_thousands_of_rows_are_counted_with_separators(self) -> None:
        photos = [f"p/{n}.jpg" for n in range(31_204)]
        assert remarks([f"x{n}" for n in range(31_204)], photos)[0][1].startswith("0 of 31,204 rows fit a photo")
