"""Files in the folder for state: caches, logs, what Label Studio wrote beside its database, and databases.

Objects of DVC and the workspace have stores of their own. Caches are deleted, lines of logs are overwritten in place,
and databases are compacted, so that freed pages hold nothing. Whatever else names a photo or a person is named.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pipelines.dataset.object_names import md5_of
from pipelines.dataset.workspace import Workspace
from pipelines.errors import StorageError
from pipelines.forget.buckets import embedding_names
from pipelines.forget.content import LARGEST, is_picture, names_subject
from pipelines.forget.subjects import PENDING, Subjects
from pipelines.forget.traces import Trace
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_SQLITE = b"SQLite format 3\0"
_SUFFIXES_OF_SQLITE = ("-wal", "-shm", "-journal")
_BUSY_S = 30  # seconds to wait for other users of a database
# Caches and pages that are made anew, by their first folder or their name.
_CACHES = (
    "ingest.json", "sync.json", "dvc-verified.json", "report.html", "reports", "checkouts", "quality",
    "segment-anything", "training",
)  # fmt: skip
_OTHER_STORES = ("dvc-cache", "buckets", "mlflow")  # searched through their own programs as well
_SITE_CACHE = "dvc-site"


class LocalFiles:
    """The files below the folder for state."""

    name = "files of this machine"

    def __init__(self, settings: Settings, subjects: Subjects) -> None:
        self._root, self._settings, self._subjects = settings.var, settings, subjects
        self._embeddings = embedding_names(settings, subjects)

    def traces(self) -> Iterator[Trace]:
        """Yield each file that is a photo or names a photo or a person."""
        for path in self._files():
            try:
                what = self._what(path)
                size = path.stat().st_size
            except FileNotFoundError:  # a cache evicted it meanwhile
                continue
            except OSError as error:
                yield Trace(self.name, "file that cannot be read", str(path), 0, None, str(error))
                continue
            if what:
                yield self._trace(path, what, size)

    def _files(self) -> Iterator[Path]:
        skipped = {self._root / "dvc-cache", self._settings.workspace_path}
        for folder, folders, names in os.walk(self._root):
            folders[:] = sorted(name for name in folders if Path(folder) / name not in skipped)
            for name in sorted(names):
                path = Path(folder) / name
                if path != self._root / PENDING and path.is_file() and not path.is_symlink():
                    yield path

    def _what(self, path: Path) -> str:
        """Return what a file is to the subjects; an empty text when it has nothing to do with them."""
        size = path.stat().st_size
        if path.name in self._embeddings:
            return "embedding"
        if self._subjects.name_pattern.search(path.name):
            return "file of the photo"
        if size in self._subjects.sizes and md5_of(path) in self._subjects.md5s:
            return "photo"
        if not size or size > LARGEST:
            return ""
        data = path.read_bytes()
        if is_picture(data) or not names_subject(data, self._subjects.pattern):
            return ""
        return "database" if data.startswith(_SQLITE) else "text"

    def _trace(self, path: Path, what: str, size: int) -> Trace:
        place = path.relative_to(self._root)
        remove = self._removal(path, place, what)
        if remove is None:
            first = place.parts[0]
            owner = f"{first}'s own program" if first in _OTHER_STORES else "whoever wrote it"
            reason = f"it belongs to {owner}; look into it, and change or delete it by hand"
            return Trace(self.name, what, str(path), size, None, reason)
        return Trace(self.name, what, str(path), size, remove)

    def _removal(self, path: Path, place: Path, what: str) -> Callable[[], None] | None:
        first = place.parts[0]
        if first == _SITE_CACHE:
            return partial(self._delete_site_cache, path)
        if path.name.endswith(_SUFFIXES_OF_SQLITE):
            return partial(compact, path.with_name(path.name[: path.name.rindex("-")]))
        if what == "database":
            return partial(compact, path)
        if first == "training":
            return partial(self._delete_in_training, path)
        if first in _CACHES or what == "embedding":
            return partial(path.unlink, missing_ok=True)
        if first == "label-studio" and "export" in place.parts:
            return partial(path.unlink, missing_ok=True)
        if what == "text" and (path.suffix == ".log" or "logs" in place.parts):
            return partial(overwrite, path, self._subjects)
        return None

    def _delete_site_cache(self, path: Path) -> None:
        """Delete what DVC recorded of files that it hashed; it hashes them again."""
        with Workspace(self._settings.workspace_path, self._settings).locked():
            path.unlink(missing_ok=True)

    def _delete_in_training(self, path: Path) -> None:
        """Delete a file of the clone that models are trained in; the next training checks its version out anew."""
        with Workspace(self._root / "training", self._settings).locked():
            if ".git" not in path.relative_to(self._root).parts:
                path.unlink(missing_ok=True)


def overwrite(path: Path, subjects: Subjects) -> None:
    """Overwrite what names the subjects in a log with asterisks, in place: a program may have it open."""
    with path.open("r+b") as file:
        data = file.read()
        for match in subjects.pattern.finditer(data):
            file.seek(match.start())
            file.write(b"*" * (match.end() - match.start()))
        file.flush()
        os.fsync(file.fileno())


def compact(path: Path) -> None:
    """Write an SQLite database anew without its freed pages, and empty its log.

    Raise StorageError when another program holds it too long.
    """
    try:
        database = sqlite3.connect(path, timeout=_BUSY_S)
        try:
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            database.close()
    except sqlite3.Error as error:
        raise StorageError(
            f"{path} cannot be compacted ({error}); stop the program that uses it and run again"
        ) from error
