"""Which objects of DVC's cache and remote are needed, and deleting those that are not.

DVC's own `gc` deletes what it does not know: the files of a folder whose list is damaged, and on the remote everything
that another workspace published. So a list that cannot be read stops everything, and on the remote only those
objects go that a removed version named. What a commit needs is every MD5 in its dvc.lock and .dvc files: more than DVC
counts, never less.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.commands import run
from pipelines.dataset.object_names import PREFIX
from pipelines.dataset.objects import Objects
from pipelines.dataset.workspace import Workspace
from pipelines.errors import CredentialsError, DatasetError, StorageError
from pipelines.gcs.client import delete, list_objects, stat
from pipelines.gcs.threads import REQUESTS, in_threads
from pipelines.records import ObjectRef

logger = logging.getLogger(__name__)
_MD5 = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?:\.dir)?(?![0-9a-f])")
_FOLDER_LIST = ".dir"


@dataclass(frozen=True)
class CachedFile:
    """A file of the cache: its size in bytes, and when it got there or was last linked."""

    path: Path
    size: int
    at: datetime


class Needed:
    """The objects that commits and folders need. Texts and lists of files are read once, however many name them."""

    def __init__(self, workspace: Workspace, objects: Objects) -> None:
        self._workspace, self._objects = workspace, objects
        self._names: dict[str, set[str]] = {}  # by git's name of a file's content
        self._members: dict[str, set[str] | None] = {}  # by list; None when it is gone everywhere

    def by_commit(self, revision: str, *, strict: bool = True) -> set[str]:
        """Return the objects that a commit names, with the files of its folders.

        Raise DatasetError when the list of a folder has no good copy, unless it is gone everywhere and `strict` is off.
        """
        listing = self._workspace.git("ls-tree", "-r", revision)
        names: set[str] = set()
        for line in listing.splitlines():
            fields, _, path = line.partition("\t")
            blob = fields.split()[2]
            if _is_dvc_file(path):
                if blob not in self._names:
                    self._names[blob] = set(_MD5.findall(self._workspace.git("cat-file", "blob", blob)))
                names |= self._names[blob]
        return self._with_members(names, f"the commit {revision}", strict=strict)

    def by_folder(self, folder: Path, *, strict: bool = True) -> set[str]:
        """Return the objects that the files of a clone name as they are on disk now; see `by_commit`."""
        names: set[str] = set()
        for path in _dvc_files(folder):
            try:
                names |= set(_MD5.findall(path.read_text(encoding="utf-8", errors="replace")))
            except FileNotFoundError:  # DVC replaced it at this moment, or the clone was removed
                continue
        return self._with_members(names, str(folder), strict=strict)

    def _with_members(self, names: set[str], whose: str, *, strict: bool) -> set[str]:
        needed = set(names)
        for md5 in sorted(name for name in names if name.endswith(_FOLDER_LIST)):
            if md5 not in self._members:
                self._members[md5] = self._read_list(md5, whose)
            members = self._members[md5]
            if members is None and strict:
                raise DatasetError(
                    f"{whose} needs the list {md5}, which is neither in the cache nor on the remote, so it is not "
                    "known which objects it needs; `maskloop verify --all` says what is missing"
                )
            needed |= members or set()
        return needed

    def _read_list(self, md5: str, whose: str) -> set[str] | None:
        """Return the objects that a list names; None when there is no such object. Raise DatasetError if damaged."""
        try:
            entries = json.loads(self._objects.read(md5, f"a list of files that {whose} needs"))
        except DatasetError:
            settings = self._workspace.settings
            name = f"{PREFIX}{md5[:2]}/{md5[2:]}"
            if self._objects.path(md5).exists() or stat(self._objects.client, settings.dvc_bucket, name):
                raise
            return None
        return {str(entry["md5"]) for entry in entries}


def cached_files(objects: Objects) -> dict[str, CachedFile]:
    """Return the files of the cache by the MD5 names of their objects."""
    files = {}
    for path, state in _files(objects.cache / "files" / "md5"):
        name = path.parent.name + path.name
        if _MD5.fullmatch(name):
            files[name] = CachedFile(path, state.st_size, datetime.fromtimestamp(state.st_ctime, UTC))
    return files


def leftovers_of_cache(objects: Objects) -> dict[str, CachedFile]:
    """Return what a kill left half written in the cache, and damaged files that were set aside, by their paths."""
    return {
        str(path): CachedFile(path, state.st_size, datetime.fromtimestamp(state.st_ctime, UTC))
        for folder in (objects.damaged_folder, objects.cache / "incoming")
        for path, state in _files(folder)
    }


def files_below(folder: Path, pattern: str) -> dict[str, CachedFile]:
    """Return the files of a folder whose names have a pattern, by their names."""
    return {
        path.name: CachedFile(path, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))
        for path, state in _files(folder) if path.match(pattern) and path.parent == folder
    }  # fmt: skip


def remote_objects(objects: Objects, bucket: str) -> dict[str, ObjectRef]:
    """Return the objects of the remote by their MD5 names."""
    listed = {
        ref.name.removeprefix(PREFIX).replace("/", ""): ref for ref in list_objects(objects.client, bucket, PREFIX)
    }
    return {name: ref for name, ref in listed.items() if _MD5.fullmatch(name)}


def delete_cached(files: Mapping[str, CachedFile]) -> tuple[int, dict[str, str]]:
    """Delete files of the cache; return how many bytes are freed, and the reason for each that could not be."""
    freed, problems = 0, {}
    for name, file in files.items():
        try:
            file.path.unlink(missing_ok=True)
            freed += file.size
        except OSError as error:
            problems[name] = str(error)
    return freed, problems


def delete_objects(
    client: Client, refs: Mapping[str, ObjectRef], how: Callable[[Client, ObjectRef], None] = delete
) -> tuple[int, dict[str, str]]:
    """Delete objects at their generations; return how many bytes are freed, and the reason for each that could not be.

    A refused object stops no other. Raise what the bucket says when it refuses the first ones without any success.
    """
    ordered = sorted(refs)

    def remove(name: str) -> StorageError | CredentialsError | None:
        try:
            how(client, refs[name])
        except (StorageError, CredentialsError) as error:
            return error
        return None

    answers: dict[str, StorageError | CredentialsError] = {}
    for start in range(0, len(ordered), REQUESTS):
        batch = ordered[start : start + REQUESTS]
        answers |= {name: error for name, error in zip(batch, in_threads(remove, batch), strict=True) if error}
        if answers and len(answers) == start + len(batch):
            raise next(iter(answers.values()))
    freed = sum(max(refs[name].size, 0) for name in ordered if name not in answers)
    return freed, {name: str(error) for name, error in answers.items()}


def clear_records_of_remote(workspace: Workspace) -> None:
    """Delete DVC's records of what the remote holds, which list objects that are deleted now."""
    for folder in workspace.site_cache.glob("repo/*/index"):
        for path, _ in _files(folder):
            path.unlink(missing_ok=True)


def clones_of(workspace: Workspace) -> list[Path]:
    """Return the other clones that use this cache: that of the training, and versions that are checked out now."""
    var = workspace.settings.var
    clones = [var / "training", *sorted((var / "checkouts").glob("*/clone"))]
    return [path for path in clones if (path / ".git").exists() and path != workspace.path]


def head_of(clone: Path) -> str:
    """Return the commit that a clone has checked out; an empty text when it has none."""
    try:
        return run(["git", "rev-parse", "HEAD"], clone)
    except (DatasetError, FileNotFoundError):  # it is being made or removed at this moment
        return ""


def sizes(files: Mapping[str, CachedFile], refs: Mapping[str, ObjectRef], names: Collection[str]) -> tuple[int, int]:
    """Return how many bytes objects take in the cache and on the remote."""
    return (
        sum(files[name].size for name in names if name in files),
        sum(max(refs[name].size, 0) for name in names if name in refs),
    )


def _is_dvc_file(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name == "dvc.lock" or name.endswith(".dvc")


def _dvc_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".git", ".dvc", "pipelines", "images", "annotations")]
        yield from (Path(place) / name for name in names if _is_dvc_file(name))


def _files(folder: Path) -> Iterable[tuple[Path, os.stat_result]]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            try:
                yield path, path.stat()
            except FileNotFoundError:  # another process removed it
                continue
