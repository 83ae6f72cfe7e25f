"""Files of the machine: which are deleted, overwritten, compacted, or only named."""

import sqlite3
from pathlib import Path

import pytest

from pipelines.errors import StorageError
from pipelines.forget.local import LocalFiles, compact, overwrite
from pipelines.forget.subjects import Photo, Subjects
from pipelines.photos.decode import sha256_hex
from pipelines.settings import Settings
from tests.unit.forget.test_subjects import SHA256, SUBJECTS, URI

BYTES = b"\x89PNG the photo"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, var=tmp_path)


def remove_all(settings: Settings, subjects: Subjects = SUBJECTS) -> list[str]:
    """Remove what can be; return the places of what is left, relative to the folder."""
    for trace in list(LocalFiles(settings, subjects).traces()):
        if trace.remove:
            trace.remove()
    return [str(Path(trace.place).relative_to(settings.var)) for trace in LocalFiles(settings, subjects).traces()]


def test_caches_go_logs_are_overwritten_and_other_files_are_named(settings: Settings) -> None:
    files = {
        "ingest.json": URI, f"quality/lite/{SHA256}": "features", "notes.txt": SHA256, "airflow/logs/a/1.log": URI,
        "reports/people/ab.json": '{"person": "ada@example.org"}',
        "label-studio/export/p.json": SHA256, "bench/results.json": "nothing", "alerts/x.json": "{}",
    }  # fmt: skip
    for name, text in files.items():
        (settings.var / name).parent.mkdir(parents=True, exist_ok=True)
        (settings.var / name).write_text(text, encoding="utf-8")
    assert remove_all(settings) == ["notes.txt"]
    assert (settings.var / "bench/results.json").read_text() == "nothing"
    assert set((settings.var / "airflow/logs/a/1.log").read_text()) == {"*"}
    assert not (settings.var / "ingest.json").exists()


def test_a_log_that_a_program_has_open_keeps_its_size_and_what_is_written_later(settings: Settings) -> None:
    path = settings.var / "a.log"
    with path.open("ab", buffering=0) as program:
        program.write(f"before {SHA256} after\n".encode())
        overwrite(path, SUBJECTS)
        program.write(b"next\n")
    text = path.read_text()
    assert text == "before " + "*" * 64 + " after\nnext\n"


def test_a_photo_is_found_by_its_bytes(settings: Settings) -> None:
    import hashlib

    (settings.var / "copy").write_bytes(BYTES)
    (settings.var / "other").write_bytes(BYTES[:-1] + b"0")
    md5 = hashlib.md5(BYTES, usedforsecurity=False).hexdigest()
    subjects = Subjects((Photo(sha256_hex(BYTES), md5s=(md5,), sizes=(len(BYTES),)),))
    assert remove_all(settings, subjects) == ["copy"]


def test_freed_pages_of_databases_hold_nothing(settings: Settings) -> None:
    path = settings.var / "label-studio" / "label_studio.sqlite3"
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA secure_delete=OFF")  # as most programs have it
        database.execute("CREATE TABLE task (data TEXT)")
        database.executemany("INSERT INTO task VALUES (?)", [(URI * 50,), ("other",)] * 50)
        database.commit()
        database.execute("DELETE FROM task WHERE data LIKE 'gs:%'")
    database.close()
    assert SUBJECTS.pattern.search(path.read_bytes())
    assert remove_all(settings) == []
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM task").fetchone() == (50,)


def test_a_live_row_stays_and_is_named(settings: Settings) -> None:
    with sqlite3.connect(settings.var / "airflow.db") as database:
        database.execute("CREATE TABLE log (text TEXT)")
        database.execute("INSERT INTO log VALUES (?)", (URI,))
    database.close()
    assert remove_all(settings) == ["airflow.db"]


def test_a_database_that_is_none_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(StorageError, match="cannot be compacted"):
        compact(path)
