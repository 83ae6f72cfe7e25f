"""How texts that name a photo or a person are found, and what stands in their place."""

import gzip
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigurationError
from pipelines.forget.content import names_subject
from pipelines.forget.ledger import Forgotten
from pipelines.forget.rows import without_subjects
from pipelines.forget.subjects import Person, Photo, Subjects, joined, load_pending

SHA256 = "ab12cd34ef56" + "0" * 52
OTHER = "ff12cd34ef56" + "1" * 52
URI = "gs://archive/Été 99/b#1.png"
SUBJECTS = Subjects(
    (Photo(SHA256, ((URI, 1),), (URI,), ("0f" * 16,), (99,), (4,), "photo-1"),),
    (Person("ada@example.org", ("Ada Lovelace",), 7, "person-1"),),
)


@pytest.mark.parametrize(
    "text",
    [
        SHA256, f"overlay {SHA256[:12]}", URI, f"{URI}: gone.", '"gs://archive/\\u00c9t\\u00e9 99/b#1.png"',
        "/gs%3A%2F%2Farchive%2F%C3%89t%C3%A9%2099%2Fb%231.png", "gs://archive/%C3%89t%C3%A9%2099/b%231.png",
        "0f" * 16, "ADA@Example.org", "mailto:ada@example.org, bob", "ada@example.org.",
    ],
)  # fmt: skip
def test_each_way_to_write_it_is_found(text: str) -> None:
    assert names_subject(text.encode(), SUBJECTS.pattern)
    assert names_subject(gzip.compress(text.encode()), SUBJECTS.pattern)


@pytest.mark.parametrize(
    "text",
    [
        OTHER, f"{URI}2", f"{URI}.webp", f"{URI}/c", "nada@example.org", "ada@example.org.uk", "ada@example.organic",
        "1" + "0f" * 16,
    ],
)  # fmt: skip
def test_what_is_only_alike_is_not(text: str) -> None:
    assert not names_subject(text.encode(), SUBJECTS.pattern)


def test_without_subjects_nothing_is_found() -> None:
    assert not names_subject(b"anything", Subjects().pattern)
    assert not Subjects().name_pattern.search("anything")


def test_names_of_pictures_are_found() -> None:
    assert SUBJECTS.name_pattern.search(f"overlay-00-miou-0.31-{SHA256[:8]}.jpg")
    assert SUBJECTS.name_pattern.search(f"copies/{SHA256}.jpg")
    assert not SUBJECTS.name_pattern.search(f"overlay-00-miou-0.31-{OTHER[:8]}.jpg")


def test_columns_of_parquet_are_searched_but_not_their_bytes() -> None:
    def names(column: pa.Array) -> bool:
        file = io.BytesIO()
        pq.write_table(pa.table({"column": column}), file, compression="zstd")
        return names_subject(file.getvalue(), SUBJECTS.pattern)

    assert names(pa.array([OTHER, SHA256]))
    assert names(pa.array([[OTHER], ["bob", "Ada@example.org"]]))
    assert names(pa.array([{"image": {"uri": URI}}]))
    assert names(pa.array(["a", SHA256]).dictionary_encode())
    assert not names(pa.array([OTHER]))
    assert not names(pa.array([SHA256.encode()]))


def test_a_table_loses_the_rows_and_the_names_and_keeps_the_rest() -> None:
    table = pd.DataFrame({
        "sha256": [SHA256, OTHER], "uri": [URI, "gs://archive/c.png"], "family": [SHA256, SHA256],
        "annotators": [["ada@example.org"], ["bob@x.org", "ada@example.org"]], "pixels": [1, 2],
    })  # fmt: skip
    [row] = without_subjects(table, SUBJECTS).to_dict("records")
    assert row == {
        "sha256": OTHER, "uri": "gs://archive/c.png", "family": "photo-1", "annotators": ["bob@x.org", "person-1"],
        "pixels": 2,
    }  # fmt: skip


def test_the_list_recognises_photos_and_people_without_naming_them() -> None:
    forgotten = Forgotten("00" * 32).with_photos([SHA256]).with_person("Ada@example.org", 7, "person-1")
    assert SHA256 in forgotten
    assert OTHER not in forgotten
    assert SHA256 not in Forgotten("11" * 32, forgotten.photos), "another archive's key"
    assert (forgotten.pseudonym("ada@example.org"), forgotten.pseudonym("bob@x.org")) == ("person-1", "bob@x.org")
    assert SHA256 not in forgotten.without_photo(SHA256)
    assert not any(text in repr(forgotten) for text in (SHA256[:12], "example"))
    table = pd.DataFrame({"sha256": [OTHER], "family": [OTHER], "annotators": [["bob@x.org"]]})
    assert forgotten.without(table) is table, "nothing to do, so that its bytes stay"
    table = pd.DataFrame({"sha256": [SHA256, OTHER], "family": [SHA256] * 2, "annotators": [["ada@example.org"]] * 2})
    assert forgotten.without(table).to_dict("records") == [
        {"sha256": OTHER, "family": forgotten.alias(SHA256), "annotators": ["person-1"]}
    ]


def test_what_is_pending_is_read_again_or_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "forget.json"
    assert load_pending(path).is_empty
    SUBJECTS.write(path)
    assert load_pending(path) == SUBJECTS
    assert path.stat().st_mode & 0o077 == 0
    assert joined(SUBJECTS, Subjects((Photo(SHA256, md5s=("aa",)),), published=True)).md5s == {"0f" * 16, "aa"}
    path.write_text('{"photos": [{}]}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is damaged"):
        load_pending(path)
