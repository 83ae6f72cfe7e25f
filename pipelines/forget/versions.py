"""The workspace and the published versions."""

import logging
from collections.abc import Iterator
from functools import partial

import yaml
from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import VERSION
from pipelines.dataset.objects import Objects
from pipelines.dataset.published import Published
from pipelines.dataset.remote import TRACKED, upload_missing
from pipelines.dataset.summary import describe_version
from pipelines.dataset.workspace import Workspace
from pipelines.forget.holders import Holders, Known, size_of
from pipelines.forget.rows import find_rows, remove_rows
from pipelines.forget.subjects import Subjects
from pipelines.forget.traces import Trace
from pipelines.fs import write_atomically

logger = logging.getLogger(__name__)
_REASON = "published versions are changed with --published only"


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
            size = sum(size_of(holders.objects.path(md5)) for md5 in set(files.values()))
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
        remote = self._workspace.git_remote
        if remote and self._subjects.tags:
            refs = [f"+refs/tags/{tag}:refs/tags/{tag}" for tag in self._subjects.tags]
            self._workspace.git("push", "--quiet", remote, "HEAD", *refs)

    def _rewrite(self, tag: str) -> None:
        """Write a version without the subjects: its objects first, then the commit and the tag.

        The tag keeps its message. What else the version holds stays byte for byte.
        """
        objects, published = Objects(self._workspace.settings, self._client), Published(self._workspace)
        files = self._workspace.tracked(objects, tag)
        with published.checked_out(tag, *(path for path in TRACKED if path.as_posix() in files)) as dataset:
            clone = Workspace(dataset.root, self._workspace.settings)
            remove_rows(dataset, self._subjects)
            record(clone)
            if dataset.path(VERSION).exists():
                text = describe_version(dataset, len(dataset.annotations.photos()))
                write_atomically(dataset.path(VERSION), text.encode())
            files = clone.tracked(objects)
            upload_missing(objects, files, set(files.values()), tag, "the version stays as it was, run again")
            summary = published.summary(tag)
            clone.git("add", "data", *(["dvc.lock"] if (clone.path / "dvc.lock").exists() else []))
            clone.git("commit", "--quiet", "--allow-empty", "-m", f"{tag} without rows that had to be removed")
            clone.git("tag", "--force", "--annotate", tag, "-m", summary or tag)
            with self._workspace.locked():
                ref = f"+refs/tags/{tag}:refs/tags/{tag}"
                self._workspace.git("fetch", "--quiet", "--no-tags", str(clone.path), ref)
        logger.info("%s was rewritten", tag)


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
