"""The files of DVC's cache and the objects of its remote."""

import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.object_names import PREFIX
from pipelines.dataset.workspace import Workspace
from pipelines.errors import CredentialsError, StorageError
from pipelines.forget.buckets import soft_deleted
from pipelines.forget.content import is_picture
from pipelines.forget.holders import Holders, Known, size_of
from pipelines.forget.subjects import Subjects
from pipelines.forget.traces import Trace
from pipelines.gcs.client import read
from pipelines.gcs.generations import delete_for_good, list_generations
from pipelines.records import ObjectRef

logger = logging.getLogger(__name__)


class ObjectsStore:
    """Files of DVC's cache and objects of its remote, in every generation."""

    name = "objects of DVC"

    def __init__(self, workspace: Workspace, client: Client, subjects: Subjects, known: Known) -> None:
        self._workspace, self._client, self._subjects, self._known = workspace, client, subjects, known

    def traces(self) -> Iterator[Trace]:
        """Yield what the cache and the remote hold; what a version or the workspace needs cannot be removed."""
        holders = Holders(self._workspace, self._client, self._subjects, self._known)
        holders.by_tag()  # so that each needed object is known
        holders.in_workspace()
        needed = holders.needed()
        for path in sorted(_cached(holders.objects.cache)):
            md5 = _md5_of_cached(path)
            known = holders.is_known(md5) and path.parent != holders.objects.damaged_folder
            is_photo_of_others = md5 in needed and not known
            if not is_photo_of_others and holders.names(md5, None if known else _read(path)):
                yield self._trace("file of the cache", str(path), size_of(path), needed.get(md5), path.unlink)
        settings = self._workspace.settings
        for ref in list_generations(self._client, settings.dvc_bucket, PREFIX):
            md5 = ref.name.removeprefix(PREFIX).replace("/", "")
            if md5 in needed and not holders.is_known(md5):
                continue
            data = None if holders.is_known(md5) else self._read(ref)
            if holders.names(md5, data):
                remove = partial(delete_for_good, self._client, ref)
                place = f"{ref.uri}#{ref.generation}"
                yield self._trace("object on the remote", place, max(ref.size, 0), needed.get(md5), remove)
        yield from soft_deleted(
            self.name, self._client, settings.dvc_bucket,
            lambda ref: holders.names(ref.name.removeprefix(PREFIX).replace("/", ""), None),
        )  # fmt: skip

    def _trace(
        self, what: str, place: str, size: int, holders: Collection[str] | None, remove: Callable[[], None]
    ) -> Trace:
        if holders:
            return Trace(self.name, what, place, size, None, f"{', '.join(sorted(set(holders)))} holds it")
        return Trace(self.name, what, place, size, remove)

    def _read(self, ref: ObjectRef) -> bytes | None:
        try:
            return read(self._client, ref)
        except (StorageError, CredentialsError) as error:
            logger.warning("%s cannot be searched: %s", ref.uri, error)
            return None


def _cached(cache: Path) -> Iterator[Path]:
    for folder in (cache / "files", cache / "damaged", cache / "incoming", cache / "runs"):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _read(path: Path) -> bytes | None:
    """Return the bytes of a file of the cache; None for a photo, and for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
            return None if is_picture(head) else head + file.read()
    except OSError:
        return None


def _md5_of_cached(path: Path) -> str:
    if path.parent.name in ("damaged", "incoming"):
        return path.name.partition("-")[0]
    return path.parent.name + path.name
