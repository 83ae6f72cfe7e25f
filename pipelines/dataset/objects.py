"""The objects of dataset versions: files that DVC names by the MD5 of their bytes, in its cache and on its remote.

DVC compares neither a file of its cache nor an object of its remote with its name. Whatever is read, checked out or
uploaded is therefore compared here first. An object that is damaged in one place is replaced by a good copy from
another one: the workspace, the cache, the remote, or for a photo the bucket it came from. Nothing is deleted: a damaged
file of the cache is moved to `damaged` beside it, and an object of the remote is only overwritten by good bytes.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.object_names import PREFIX, by_md5, is_named, is_object, listed_md5, remote_name
from pipelines.errors import CredentialsError, DatasetError, StorageError
from pipelines.fs import atomic_path, write_atomically
from pipelines.gcs.client import connect, list_objects, read, set_pool_size, stat, write
from pipelines.gcs.threads import REQUESTS, in_threads
from pipelines.records import ObjectRef
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_BINARY = "application/octet-stream"
_LISTED_FROM = 1600  # objects; a thousand are listed with one request
_FAILURES = 16  # of the remote without a single success, after which it is not asked any more

Source = Callable[[str], bytes | None]  # returns the bytes of an object, or None when it has none


class Objects:
    """The objects of the settings' cache and remote; `client` is only made when the remote is needed."""

    def __init__(self, settings: Settings, client: Client | None = None) -> None:
        self._settings, self._client, self._has_pool = settings, client, False
        self._connecting, self._replacing = threading.Lock(), threading.Lock()
        self.cache = settings.var / "dvc-cache"
        self.damaged_folder = self.cache / "damaged"
        self.replaced: set[str] = set()  # whose damaged files of the cache were replaced
        self._verified_path = settings.var / "dvc-verified.json"

    @property
    def client(self) -> Client:
        """Return the client of the remote's bucket."""
        with self._connecting:
            client = self._client = self._client or connect(self._settings)
            if not self._has_pool:
                set_pool_size(client, REQUESTS)
                self._has_pool = True
            return client

    def path(self, md5: str) -> Path:
        """Return the file of an object in the cache, where it may be missing."""
        return self.cache / "files" / "md5" / md5[:2] / md5[2:]

    def read(self, md5: str, what: str) -> bytes:
        """Return an object's bytes, from the cache or else from the remote; a damaged file of the cache is replaced.

        Raise DatasetError, which names `what`, when there is no good copy.
        """
        if (data := self._in_cache(md5)) is None:
            if reasons := self.restore([md5]):
                raise DatasetError(
                    f"{what}: {reasons[md5]}; `maskloop sync` makes it anew if it is of an unpublished version, and "
                    "`maskloop verify --all` looks for good copies otherwise"
                )
            data = self.path(md5).read_bytes()
        return data

    def require(self, files: Mapping[str, str], version: str) -> None:
        """Bring good bytes of a version's files, given by their paths, to the cache.

        Raise DatasetError, which names them, when some have no good copy.
        """
        damaged, missing = self.unusable(files.values())
        if reasons := self.restore(damaged | missing):
            first = sorted(reasons)[0]
            raise DatasetError(
                f"{len(reasons)} files of {version} have no good copy, such as {by_md5(files)[first][0]}: "
                f"{reasons[first]}; `maskloop verify {version}` looks for good copies elsewhere and names all of them"
            )

    def unusable(self, md5s: Iterable[str], *, unless_verified: bool = False) -> tuple[set[str], set[str]]:
        """Return which objects are damaged in the cache, and which it lacks.

        Every file is read and hashed; with `unless_verified`, files are not whose inode, time of change and size are
        still those with which they were last hashed.
        """
        verified = self._verified() if unless_verified else {}
        ordered = sorted(set(md5s))

        def examine(md5: str) -> tuple[str, list[int] | None]:
            state = _state(self.path(md5))
            if state is None:
                return "missing", None
            if verified.get(md5) == state or is_object(self.path(md5), md5):
                return "good", state
            return "damaged", None

        answers = list(zip(ordered, in_threads(examine, ordered), strict=True))
        if unless_verified:
            states = {md5: state for md5, (_, state) in answers if state}
            if states != verified:
                write_atomically(self._verified_path, json.dumps(states).encode())
        damaged = {md5 for md5, (answer, _) in answers if answer == "damaged"}
        return damaged, {md5 for md5, (answer, _) in answers if answer == "missing"}

    def restore(self, md5s: Collection[str], *sources: Source) -> dict[str, str]:
        """Write good bytes of objects to the cache: from `sources`, or else from the remote.

        Return the reason for each object that has no good copy; its file in the cache stays as it is.
        """

        def bring(md5: str) -> str:
            for source in (*sources, self.read_remote):
                data = source(md5)
                if data is not None and is_named(data, md5):
                    self._replace(md5, data)
                    return ""
            return f"neither {self.path(md5)} nor {self.remote_uri(md5)} holds bytes with this MD5"

        return _reasons(md5s, bring)

    def read_remote(self, md5: str) -> bytes | None:
        """Return an object's bytes from the remote, or None when it is missing or damaged there."""
        ref = stat(self.client, self._settings.dvc_bucket, remote_name(md5))
        if ref is None or (ref.md5 and ref.md5 != listed_md5(md5)):
            return None
        data = read(self.client, ref)
        return data if is_named(data, md5) else None

    def missing_on_remote(self, md5s: Collection[str]) -> set[str]:
        """Return the objects that the remote lacks or holds with other content, by the MD5 that it lists."""
        name = self._settings.dvc_bucket
        if len(md5s) > _LISTED_FROM:
            listed = {ref.name: ref for ref in list_objects(self.client, name, PREFIX)}
            return {md5 for md5 in md5s if not self._holds(listed.get(remote_name(md5)), md5)}

        return self._failing(md5s, lambda md5: self._holds(stat(self.client, name, remote_name(md5)), md5))

    def damaged_on_remote(self, md5s: Collection[str]) -> set[str]:
        """Download objects and return those that the remote lacks, or whose bytes are not those of their names."""
        return self._failing(md5s, lambda md5: self.read_remote(md5) is not None)

    def _failing(self, md5s: Collection[str], is_good: Callable[[str], bool]) -> set[str]:
        """Return the objects that are not good, or that the remote refuses; raise when it refuses all of them."""
        return set(_reasons(md5s, lambda md5: "" if is_good(md5) else "not good", is_answered_by_any=True))

    def _holds(self, ref: ObjectRef | None, md5: str) -> bool:
        if ref is not None and not ref.md5:  # composed of parts: buckets list no MD5 of such objects
            return self.read_remote(md5) is not None
        return ref is not None and ref.md5 == listed_md5(md5)

    def upload(self, md5s: Collection[str]) -> dict[str, str]:
        """Upload objects from the cache, after their bytes were compared with their names; overwrite damaged ones.

        Return the reason for each that could not be uploaded.
        """

        def send(md5: str) -> str:
            data = self._in_cache(md5)
            if data is None:
                return f"{self.path(md5)} is damaged or missing"
            ref = stat(self.client, self._settings.dvc_bucket, remote_name(md5))
            if ref is None or ref.md5 != listed_md5(md5) or self.read_remote(md5) is None:
                generation = ref.generation if ref else 0
                write(self.client, self._settings.dvc_bucket, remote_name(md5), data, _BINARY, replaces=generation)
            return ""

        return _reasons(md5s, send)

    def relink(self, workspace: Path) -> None:
        """Replace files of a workspace that are links to damaged files of the cache, which were replaced there."""
        if not self.damaged_folder.exists():
            return
        inodes = {
            (entry.stat().st_dev, entry.stat().st_ino): entry.name.partition("-")[0]
            for entry in os.scandir(self.damaged_folder)
        }
        links = {}
        for path in _files(workspace / "data"):
            state = path.lstat()
            if md5 := inodes.get((state.st_dev, state.st_ino)):
                links[path] = md5
        self.restore({md5 for md5 in links.values() if not self.path(md5).exists()})  # a kill may have come before it
        for path, md5 in links.items():
            if (data := self._in_cache(md5)) is not None:
                _replace_file(path, data, workspace / ".dvc" / "tmp")

    def set_aside(self, md5: str) -> Path | None:
        """Move an object's file from the cache to the folder of damaged files; return its path, None without a file."""
        path = self.path(md5)
        state = _state(path)
        if state is None:
            return None
        self.damaged_folder.mkdir(parents=True, exist_ok=True)
        try:
            return path.rename(self.damaged_folder / f"{md5}-{state[0]}")
        except FileNotFoundError:  # another process was first
            return None

    def remote_uri(self, md5: str) -> str:
        """Return an object's address on the remote."""
        return f"gs://{self._settings.dvc_bucket}/{remote_name(md5)}"

    def _replace(self, md5: str, data: bytes) -> None:
        """Write good bytes of an object to the cache, once however many threads bring them.

        While a restore runs, a source of photos reads the manifest in several threads, and it may be restored itself.
        """
        with self._replacing:
            if self._in_cache(md5) is not None:
                return
            if (aside := self.set_aside(md5)) is not None:
                logger.warning("%s was damaged and is replaced by a good copy; it is kept as %s", self.path(md5), aside)
                self.replaced.add(md5)
            self.path(md5).parent.mkdir(parents=True, exist_ok=True)
            _replace_file(self.path(md5), data, self.cache / "incoming")

    def _in_cache(self, md5: str) -> bytes | None:
        """Return an object's bytes from the cache; None when it is missing, damaged or cannot be read."""
        try:
            data = self.path(md5).read_bytes()
        except OSError:
            return None
        return data if is_named(data, md5) else None

    def _verified(self) -> dict[str, list[int]]:
        try:
            return dict(json.loads(self._verified_path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}


def _reasons(md5s: Collection[str], act: Callable[[str], str], *, is_answered_by_any: bool = False) -> dict[str, str]:
    """Return the reason, given by `act` or the remote's error, for each object that `act` did not succeed with.

    One object's error stops nothing, but that of a remote that is down is raised: there were many, and no success. With
    `is_answered_by_any` the remote is not down once `act` returns, whatever it returns.
    """
    failed, succeeded = 0, False

    def attempt(md5: str) -> str:
        nonlocal failed, succeeded
        try:
            reason = act(md5)
        except (StorageError, CredentialsError) as error:
            failed += 1
            if failed >= _FAILURES and not succeeded:
                raise
            return str(error)
        succeeded = succeeded or is_answered_by_any or not reason
        return reason

    ordered = sorted(md5s)
    return {md5: reason for md5, reason in zip(ordered, in_threads(attempt, ordered), strict=True) if reason}


def _replace_file(path: Path, data: bytes, scratch: Path) -> None:
    """Write a file that is complete or as it was before, and read-only like DVC's own ones.

    What a kill leaves is in the folder `scratch` of the same file system, where DVC does not take it for data.
    """
    whole = scratch / f"{path.name}-{os.getpid()}-{threading.get_ident()}"
    with atomic_path(whole) as part:
        part.write_bytes(data)
        part.chmod(0o444)
    whole.replace(path)


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def _state(path: Path) -> list[int] | None:
    """Return a file's inode, time of change in ns, and size; None when there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return [state.st_ino, state.st_mtime_ns, state.st_size]
