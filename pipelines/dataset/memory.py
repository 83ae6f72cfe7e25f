"""What compiling remembers from run to run, so that a run compiles what changed; losing it costs time and nothing else.

A file of the workspace's DVC folder, which git and DVC ignore. A mask is remembered under a digest of its annotation's
bytes, the parameters and the code that made it, so nothing outdated can ever be found. What a run did not use is
forgotten at its end.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

PLACE = Path(".dvc/tmp/compiled.sqlite")
_TABLES = """
CREATE TABLE IF NOT EXISTS source (
    name TEXT PRIMARY KEY, stamp TEXT, uuid TEXT, photo TEXT, uri TEXT, annotator TEXT, updated_at TEXT, digest TEXT,
    gold INTEGER, blind INTEGER, planted INTEGER);
CREATE TABLE IF NOT EXISTS mask (key TEXT PRIMARY KEY, row TEXT, png BLOB);
"""
_USED = "CREATE TEMP TABLE used (key TEXT PRIMARY KEY)"
_VERSION = 3  # of the tables; a memory of another one is made anew


@dataclass(frozen=True)
class Source:
    """An annotation file as far as choosing among them goes; `photo` is a SHA-256, `digest` that of the file.

    `gold`: somebody marked it as the truth for its photo; `blind`: no model drew any of it; `planted`: it started from
    a wrong region that was put there on purpose.
    """

    uuid: str
    photo: str
    uri: str
    annotator: str
    updated_at: str
    digest: str
    gold: bool = False
    blind: bool = False
    planted: bool = False


class Memory:
    """Annotation files that were read, and masks that were made of them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def source(self, name: str, stamp: str) -> Source | None:
        """Give what was read from a file, if it still has the stamp that it had then."""
        query = (
            "SELECT uuid, photo, uri, annotator, updated_at, digest, gold, blind, planted FROM source "
            "WHERE name = ? AND stamp = ?"
        )
        found = self._database.execute(query, (name, stamp)).fetchone()
        if found is None:
            return None
        uuid, photo, uri, annotator, updated_at, digest, *marks = found
        return Source(uuid, photo, uri, annotator, updated_at, digest, *map(bool, marks))

    def keep_source(self, name: str, stamp: str, source: Source) -> None:
        """Remember what was read from a file."""
        self._database.execute(
            "REPLACE INTO source VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (name, stamp, *astuple(source))
        )

    def mask(self, key: str) -> tuple[dict[str, Any], bytes] | None:
        """Give a manifest row and the mask's PNG."""
        found = self._database.execute("SELECT row, png FROM mask WHERE key = ?", (key,)).fetchone()
        self._database.execute("INSERT OR IGNORE INTO used VALUES (?)", (key,))
        return (json.loads(found[0]), found[1]) if found else None

    def keep_mask(self, key: str, row: dict[str, Any], png: bytes) -> None:
        """Remember a manifest row and the mask's PNG."""
        self._database.execute("REPLACE INTO mask VALUES (?, ?, ?)", (key, json.dumps(row), png))

    def forget_other_files(self, names: Iterable[str]) -> None:
        """Forget files of other names than these."""
        self._database.execute("CREATE TEMP TABLE there (name TEXT PRIMARY KEY)")
        self._database.executemany("INSERT INTO there VALUES (?)", ((name,) for name in names))
        self._database.execute("DELETE FROM source WHERE name NOT IN (SELECT name FROM there)")

    def forget_unused_masks(self) -> None:
        """Forget masks that nobody asked for."""
        self._database.execute("DELETE FROM mask WHERE key NOT IN (SELECT key FROM used)")


@contextmanager
def opened(place: Path = PLACE) -> Iterator[Memory]:
    """Open the memory, made anew when it is not there, damaged, or of another version; kept when all went well."""
    place.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(place)
    try:
        usable = database.execute("PRAGMA user_version").fetchone()[0] == _VERSION
    except sqlite3.DatabaseError:
        usable = False
    if not usable:
        database.close()
        place.unlink()
        database = sqlite3.connect(place)
        database.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")  # last: a kill before leaves no version
    database.execute(_USED)
    try:
        with database:
            yield Memory(database)
    finally:
        database.close()
