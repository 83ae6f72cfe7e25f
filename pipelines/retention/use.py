"""What needs the objects of a workspace: remaining versions, branches, unpublished states, and other clones."""

from collections.abc import Sequence
from functools import cached_property

from rich.progress import track

from pipelines.dataset.history import MIRROR, TAG
from pipelines.dataset.objects import Objects
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.records import ObjectRef
from pipelines.retention.objects import (
    CachedFile,
    Needed,
    cached_files,
    clones_of,
    head_of,
    remote_objects,
    sizes,
)
from pipelines.retention.plan import CACHE, REMOTE

REMOVED = "refs/maskloop/removed/"  # tags whose objects are not all deleted yet


class ObjectUse:
    """The objects of a workspace as they are now, and what needs them once the versions `going` are removed."""

    def __init__(self, workspace: Workspace, objects: Objects, going: Sequence[str] = ()) -> None:
        self._workspace, self._objects, self.going = workspace, objects, tuple(going)
        self._needed_by = Needed(workspace, objects)

    @cached_property
    def cached(self) -> dict[str, CachedFile]:
        """Return the files of the cache by MD5 name."""
        return cached_files(self._objects)

    @cached_property
    def remote(self) -> dict[str, ObjectRef]:
        """Return the objects of the remote by MD5 name."""
        return remote_objects(self._objects, self._workspace.settings.dvc_bucket)

    @cached_property
    def needed(self) -> set[str]:
        """Return what remaining versions, branches, unpublished states and other clones need.

        Raise DatasetError when that is not known, because a list of files has no good copy.
        """
        workspace = self._workspace
        left = {f"{place}{tag}" for tag in self.going for place in (TAG, f"{MIRROR}tags/")}
        staying = [name for name in references(workspace) if name not in left and not name.startswith(REMOVED)]
        commits = {name: name.startswith(f"{TAG}dataset-") for name in staying}  # True: all of it must be known
        commits |= dict.fromkeys(workspace.git("stash", "list", "--format=%H").split(), False)
        commits["HEAD"] = strict = workspace.is_on_branch()
        needed = self._needed_by.by_folder(workspace.path, strict=strict)
        for commit, strict in track(commits.items(), "reading versions", transient=True, disable=len(commits) < 20):
            needed |= self._needed_by.by_commit(commit, strict=strict)
        for clone in clones_of(workspace):
            needed |= self._needed_by.by_folder(clone, strict=False)
            if is_commit(workspace, head := head_of(clone)):
                needed |= self._needed_by.by_commit(head, strict=False)
        return needed

    @cached_property
    def unneeded(self) -> set[str]:
        """Return the objects that only the versions that go need, and those whose removal was interrupted."""
        named: set[str] = set()
        for reference in [*(f"{TAG}{tag}" for tag in self.going), *interrupted(self._workspace)]:
            named |= self._needed_by.by_commit(reference, strict=False)
        return named - self.needed if named else named

    def freed(self) -> dict[str, int]:
        """Return how many bytes the unneeded objects take, by place."""
        in_cache, on_remote = sizes(self.cached, self.remote, self.unneeded) if self.unneeded else (0, 0)
        return {CACHE: in_cache, REMOTE: on_remote}


def interrupted(workspace: Workspace) -> list[str]:
    """Return the references of removed versions whose objects are not all deleted yet."""
    return [name for name in references(workspace) if name.startswith(REMOVED)]


def is_commit(workspace: Workspace, name: str) -> bool:
    """Return whether the workspace has this commit."""
    try:
        return bool(name) and not workspace.git("cat-file", "-e", f"{name}^{{commit}}")
    except DatasetError:
        return False


def references(workspace: Workspace) -> list[str]:
    """Return the full names of all references of a workspace."""
    return workspace.git("for-each-ref", "--format=%(refname)").splitlines()
