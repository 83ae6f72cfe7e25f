"""The workspace, the published versions, and the objects of both in DVC's cache and on its remote."""

import logging
import tempfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import yaml
from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import VERSION
from pipelines.dataset.objects import PREFIX, Objects
from pipelines.dataset.pipeline import describe_version
from pipelines.dataset.published import Published
from pipelines.dataset.remote import TRACKED, is_photo
from pipelines.dataset.workspace import Workspace
from pipelines.errors import CredentialsError, DatasetError, StorageError
from pipelines.forget.buckets import soft_deleted
from pipelines.forget.content import is_picture, names_subject
from pipelines.forget.rows import find_rows, remove_rows
from pipelines.forget.subjects import Subjects
from pipelines.forget.traces import Trace
from pipelines.fs import write_atomically
from pipelines.gcs.client import read
from pipelines.gcs.generations import delete_for_good, list_generations
from pipelines.records import ObjectRef

logger = logging.getLogger(__name__)
Known = dict[str, bool]
_REASON = "published versions are changed with --published only"


class Holders:
    """Which objects name the subjects or are a photo, by what needs them: versions, and the workspace as it is now.

    Each object is read once, however many versions need it. `known` caches by MD5 whether an object names the subjects.
    """

    def __init__(self, workspace: Workspace, client: Client, subjects: Subjects, known: Known) -> None:
        self._workspace, self._subjects, self._known = workspace, subjects, known
        self.objects = Objects(workspace.settings, client)
        self.problems: dict[str, str] = {}

    def by_tag(self) -> dict[str, dict[str, str]]:
        """Return the paths of each version's objects that name the subjects, with their MD5s; versions without none."""
        if not (self._workspace.path / ".git").exists():
            return {}
        published = Published(self._workspace)
        versions = {tag: self._holding(self._files(tag)) for tag in published.tags()}
        return {tag: files for tag, files in versions.items() if files}

    def in_workspace(self) -> dict[str, str]:
        """Return the same of the workspace, by what its pointers name."""
        return self._holding(self._files(None)) if (self._workspace.path / ".git").exists() else {}

    def needed(self) -> dict[str, list[str]]:
        """Return every object that a version or the workspace needs, with the names of what needs it."""
        needed: dict[str, list[str]] = {}
        if (self._workspace.path / ".git").exists():
            for tag in (*Published(self._workspace).tags(), None):
                for md5 in self._files(tag).values():
                    needed.setdefault(md5, []).append(tag or "the workspace")
        return needed

    def names(self, md5: str, data: bytes | None) -> bool:
        """Return whether an object with these bytes is a photo or names the subjects."""
        if md5 in self._subjects.md5s:
            return True
        if md5 not in self._known and data is not None:
            self._known[md5] = not is_picture(data) and names_subject(data, self._subjects.pattern)
        return self._known.get(md5, False)

    def is_known(self, md5: str) -> bool:
        """Return whether it is known what an object holds."""
        return md5 in self._known or md5 in self._subjects.md5s

    def _files(self, tag: str | None) -> dict[str, str]:
        problems: dict[str, str] = {}
        files = self.objects.tracked(self._workspace.path, self._workspace.site_cache, tag, problems=problems)
        self.problems |= {f"{path} of {tag or 'the workspace'}": why for path, why in problems.items()}
        return files

    def _holding(self, files: dict[str, str]) -> dict[str, str]:
        holding = {}
        for path, md5 in files.items():
            if Path(path).name in self._subjects.hashes or Path(path).stem in self._subjects.hashes:
                holding[path] = md5
            elif is_photo(path):
                continue
            elif self.is_known(md5):
                if self.names(md5, None):
                    holding[path] = md5
            else:
                try:
                    if self.names(md5, self.objects.read(md5, path)):
                        holding[path] = md5
                except DatasetError as error:
                    self.problems[path] = str(error)
        return holding


class WorkspaceStore:
    """The workspace: photos, rows of shards and tables, the cache of compiled shards, and DVC's record of them."""

    name = "workspace"

    def __init__(self, workspace: Workspace, client: Client, subjects: Subjects, known: Known) -> None:
        self._workspace, self._client, self._subjects, self._known = workspace, client, subjects, known

    def traces(self) -> Iterator[Trace]:
        """Yield the files that hold the photos or name people, and pointers to older objects that do."""
        if not self._workspace.path.exists():
            return
        held = False
        for rows in find_rows(Dataset(self._workspace.path), self._subjects):
            held = True
            place = str(self._workspace.path / rows.path)
            yield Trace(self.name, rows.what, place, rows.size, self._remove, count=rows.count)
        if not held:  # else they are the same files
            for path in Holders(self._workspace, self._client, self._subjects, self._known).in_workspace():
                yield Trace(self.name, "record of DVC", str(self._workspace.path / path), 0, self._remove)

    def _remove(self) -> None:
        """Remove the rows and let DVC and git record it; the next sync reads everything again."""
        workspace = self._workspace
        with workspace.locked():
            (workspace.settings.var / "sync.json").unlink(missing_ok=True)
            if (workspace.path / ".git").exists() and not workspace.is_on_branch():
                workspace.checkout_branch()
            built = _is_built(workspace)
            remove_rows(Dataset(workspace.path), self._subjects)
            if record(workspace, stages=built):
                if not built:
                    self._take_lock_of_newest()
                workspace.git("add", "data", *(["dvc.lock"] if (workspace.path / "dvc.lock").exists() else []))
                if workspace.git("diff", "--cached", "--name-only"):
                    workspace.git("commit", "--quiet", "-m", "Rows that had to be removed are gone")

    def _take_lock_of_newest(self) -> None:
        """Replace the record of stages that are out of date by the newest version's; the next sync runs them."""
        tags = self._workspace.dataset_tags()
        if tags and self._workspace.show(tags[-1], "dvc.lock"):
            self._workspace.git("checkout", "--quiet", tags[-1], "--", "dvc.lock")


class VersionsStore:
    """The published versions: each that holds a photo or names a person is rewritten, with its tag."""

    name = "published versions"

    def __init__(self, workspace: Workspace, client: Client, subjects: Subjects, known: Known) -> None:
        self._workspace, self._client, self._subjects, self._known = workspace, client, subjects, known

    def traces(self) -> Iterator[Trace]:
        """Yield a trace per version; without --published none of them can be removed."""
        holders = Holders(self._workspace, self._client, self._subjects, self._known)
        for tag, files in holders.by_tag().items():
            size = sum(_size(holders.objects.path(md5)) for md5 in set(files.values()))
            remove = partial(self._rewrite, tag) if self._subjects.published else None
            yield Trace(self.name, "version", tag, size, remove, "" if remove else _REASON)
        for place, problem in holders.problems.items():
            yield Trace(self.name, "file that cannot be searched", place, 0, None, problem)
        if not (self._workspace.path / ".git").exists():
            return
        for photo in self._subjects.photos:
            if commits := self._workspace.git("log", "--all", "--format=%h", f"-S{photo.sha256}").split():
                reason = "git history keeps it; clone the workspace anew after rewriting its history by hand"
                yield Trace(self.name, "hash in git history", ", ".join(commits), 0, None, reason)
        for person in self._subjects.people:
            if commits := self._workspace.git("log", "--all", "--format=%h", f"-S{person.email}").split():
                reason = "git history keeps the address (see check.annotators of params.yaml)"
                yield Trace(self.name, "address in git history", ", ".join(commits), 0, None, reason)

    def tags(self) -> list[str]:
        """Return the versions that hold a photo or name a person."""
        return list(Holders(self._workspace, self._client, self._subjects, self._known).by_tag())

    def push(self) -> None:
        """Push the tags of the rewritten versions over the old ones; doing it again changes nothing."""
        remote = self._workspace.settings.git_remote
        if remote and self._subjects.tags:
            refs = [f"+refs/tags/{tag}:refs/tags/{tag}" for tag in self._subjects.tags]
            self._workspace.git("push", "--quiet", remote, "HEAD", *refs)

    def _rewrite(self, tag: str) -> None:
        """Write a version without the subjects: its objects first, then the commit and the tag.

        The tag keeps its message. What else the version holds stays byte for byte.
        """
        settings = self._workspace.settings
        folder = settings.var / "checkouts"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{tag}-", dir=folder) as scratch:
            clone = Workspace(Path(scratch) / "clone", settings)
            clone.ensure(self._workspace.path)
            clone.git("fetch", "--quiet", "--tags", "--force", str(self._workspace.path))
            files = Objects(settings, self._client).tracked(self._workspace.path, self._workspace.site_cache, tag)
            clone.check_out(tag, self._workspace.path, *(path for path in TRACKED if path.as_posix() in files))
            dataset = Dataset(clone.path)
            remove_rows(dataset, self._subjects)
            record(clone)
            if dataset.path(VERSION).exists():
                text = describe_version(dataset, len(dataset.annotations.photos()))
                write_atomically(dataset.path(VERSION), text.encode())
            publish_objects(clone, self._client, tag)
            summary = self._workspace.git("tag", "--list", "--format=%(contents:subject)", tag)
            clone.git("add", "data", *(["dvc.lock"] if (clone.path / "dvc.lock").exists() else []))
            clone.git("commit", "--quiet", "--allow-empty", "-m", f"{tag} without rows that had to be removed")
            clone.git("tag", "--force", "--annotate", tag, "-m", summary or tag)
            with self._workspace.locked():
                ref = f"+refs/tags/{tag}:refs/tags/{tag}"
                self._workspace.git("fetch", "--quiet", "--no-tags", str(clone.path), ref)
        logger.info("%s was rewritten", tag)


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
                yield self._trace("file of the cache", str(path), _size(path), needed.get(md5), path.unlink)
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


def record(workspace: Workspace, *, stages: bool = True) -> bool:
    """Let DVC record a workspace's files as they are, with `stages` also what stages made; return whether it has any.

    Outputs of stages that are out of date must not be recorded: DVC would take them for those of the present inputs.
    """
    pointers = sorted(path.with_suffix("") for path in (workspace.path / "data").glob("*.dvc"))
    if not pointers:
        return False
    workspace.dvc("add", *(str(path.relative_to(workspace.path)) for path in pointers))
    if stages and (done := _stages(workspace)):
        workspace.dvc("commit", "--force", *done)
    return True


def _is_built(workspace: Workspace) -> bool:
    """Return whether what the stages made is of the present annotations, parameters and code."""
    done = _stages(workspace)
    return bool(done) and workspace.dvc("status", "--json", *done).strip() == "{}"


def _stages(workspace: Workspace) -> list[str]:
    """Return the stages of a dataset that ran."""
    lock = workspace.path / "dvc.lock"
    if not lock.exists():
        return []
    done = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    return [stage for stage in ("compile", "check", "split") if stage in done]


def publish_objects(workspace: Workspace, client: Client, version: str) -> None:
    """Upload the objects that a version needs, and verify them on the remote; raise DatasetError when some lack."""
    objects = Objects(workspace.settings, client)
    files = objects.tracked(workspace.path, workspace.site_cache)
    missing = objects.missing_on_remote(set(files.values()))
    reasons = objects.upload(missing)
    if lacking := objects.missing_on_remote(missing):
        first = sorted(lacking)[0]
        raise DatasetError(
            f"{len(lacking)} objects of {version} are not on the remote, such as {objects.remote_uri(first)}: "
            f"{reasons.get(first) or 'it was changed meanwhile'}; the version stays as it was, run again"
        )


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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
