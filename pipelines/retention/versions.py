"""Dataset versions that go: their tags, and the objects that nothing else needs.

A version's tag is moved to refs/maskloop/removed before its objects are deleted, and leaves that only when all of them
are gone, so that a run that was killed is completed by the next one. It all happens under the workspace's lock: a sync
waits.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from pipelines.dataset.history import MIRROR, TAG, fetch_git_remote
from pipelines.dataset.objects import Objects
from pipelines.dataset.workspace import Workspace
from pipelines.errors import MaskloopError
from pipelines.gcs.client import find_bucket
from pipelines.retention.objects import (
    clear_records_of_remote,
    clones_of,
    delete_cached,
    delete_objects,
    head_of,
)
from pipelines.retention.plan import CACHE, REMOTE, Plan, first_of
from pipelines.retention.rule import Choice, Item, Rule, choose, describe
from pipelines.retention.use import REMOVED, ObjectUse, interrupted, references

logger = logging.getLogger(__name__)
_GENERATIONS = "the dataset bucket keeps what is deleted as older generations, until their own rule lets them go"
_VERSION = re.compile(r"dataset-\d+")
UsedBy = Callable[[], Mapping[str, str]]


class DatasetVersions:
    """The kind "versions".

    `planned_users` returns by tag why a version must stay once everything else is removed as planned, such as a model
    that was trained on it; `users` returns that as it is now.
    """

    name = "versions"

    def __init__(
        self, workspace: Workspace, objects: Objects, rule: Rule, planned_users: UsedBy, users: UsedBy, now: datetime
    ) -> None:
        self.workspace, self.objects, self._rule, self._now = workspace, objects, rule, now
        self._planned_users, self._users = planned_users, users
        self._use: ObjectUse | None = None
        self._choice: Choice | None = None

    def choice(self, users: UsedBy | None = None) -> Choice:
        """Return which versions stay and go; uses are looked up only when the rule would let some go."""
        if not self.workspace.path.exists():
            return Choice((), (), {})
        items = self._items()
        choice = choose(items, self._rule, {}, self._now)
        if not choice.go:
            return choice
        fetch_git_remote(self.workspace)
        in_use = {**self._checked_out(), **self._elsewhere(), **(users or self._planned_users)()}
        return choose(items, self._rule, in_use, self._now)

    def plan(self) -> Plan:
        """Return what goes; raise MaskloopError when it is not known what uses a version, or which objects it needs."""
        choice = self.planned_choice()
        return self._planned(self.use(), choice)

    def going(self) -> tuple[str, ...]:
        """Return the versions that go as planned; none when it is not known what uses them."""
        try:
            return self.planned_choice().go
        except MaskloopError as error:
            logger.info("all versions stay: %s", error)
            return ()

    def staying(self) -> list[str]:
        """Return the versions that stay, oldest first."""
        tags = self.workspace.dataset_tags() if self.workspace.path.exists() else []
        return [tag for tag in tags if tag not in self.going()]

    def planned_choice(self) -> Choice:
        """Return which versions stay and go as planned; it is found out once."""
        if self._choice is None:
            self._choice = self.choice()
        return self._choice

    def use(self) -> ObjectUse:
        """Return what needs the objects once the versions are removed as planned; it is read once."""
        if self._use is None:
            self._use = ObjectUse(self.workspace, self.objects, self.going())
        return self._use

    def remove(self, shown: Plan) -> Plan:
        """Remove the versions that were shown, unless something uses them by now, and the objects of removed ones."""
        if not self.workspace.path.exists() or not (shown.go or interrupted(self.workspace)):
            return shown
        with self.workspace.locked():
            choice = self.choice(self._users)
            use = ObjectUse(self.workspace, self.objects, [tag for tag in choice.go if tag in shown.go])
            plan = self._planned(use, choice)
            for tag in use.going:
                self._remove_tag(tag)
            freed, problems = self._delete(use)
            if not problems:
                for reference in interrupted(self.workspace):
                    self.workspace.git("update-ref", "-d", reference)
        self._use, self._choice = None, None
        return replace(plan, freed=freed, problem=first_of(problems, "objects"))

    def _planned(self, use: ObjectUse, choice: Choice) -> Plan:
        if not self.workspace.path.exists():
            return Plan(self.name, describe(self._rule))
        lost = {tag: self._describe(tag) for tag in use.going}
        left = tuple(sorted(name.rpartition("/")[2] for name in interrupted(self.workspace)))
        stay = len(choice.stay) + len(set(choice.go) - set(use.going))
        freed = use.freed()
        note = _GENERATIONS if freed[REMOTE] and self._keeps_generations() else ""
        return Plan(self.name, describe(self._rule), stay, lost, freed, choice.spared, note, interrupted=left)

    def _keeps_generations(self) -> bool:
        bucket = find_bucket(self.objects.client, self.workspace.settings.dvc_bucket)
        return bool(bucket and bucket.versioning_enabled)

    def _items(self) -> list[Item]:
        lines = self.workspace.git(
            "for-each-ref",
            "--sort=version:refname",
            "--format=%(refname:short) %(creatordate:unix)",
            f"{TAG}dataset-*",
        ).splitlines()
        pairs = [line.partition(" ")[::2] for line in lines]
        return [Item(tag, datetime.fromtimestamp(int(s), UTC)) for tag, s in pairs if _VERSION.fullmatch(tag)]

    def _checked_out(self) -> dict[str, str]:
        """Return the versions that a training or another process has checked out now."""
        heads = {head_of(clone): clone for clone in clones_of(self.workspace)}
        tags = self.workspace.git("for-each-ref", "--format=%(refname:short) %(*objectname) %(objectname)", TAG)
        return {
            line.split()[0]: f"{heads[commit]} has it checked out"
            for line in tags.splitlines() for commit in line.split()[1:] if commit in heads
        }  # fmt: skip

    def _elsewhere(self) -> dict[str, str]:
        """Return the versions whose tags the git remote has on other commits."""
        listed = dict(
            line.split()
            for line in self.workspace.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        )
        mirrored = {name.removeprefix(f"{MIRROR}tags/"): name for name in listed if name.startswith(f"{MIRROR}tags/")}
        return {
            tag: "the git remote has another version under its name"
            for tag, name in mirrored.items() if f"{TAG}{tag}" in listed and listed[f"{TAG}{tag}"] != listed[name]
        }  # fmt: skip

    def _describe(self, tag: str) -> str:
        summary = self.workspace.git("tag", "--list", "--format=%(contents:subject)", tag)
        commit = self.workspace.git("rev-parse", "--short", f"{tag}^{{commit}}")
        return f"{summary}; its commit {commit} stays, without data" if summary else f"its commit {commit} stays"

    def _remove_tag(self, tag: str) -> None:
        """Move a tag to the removed ones; the git remote's goes first, so that nobody fetches it again."""
        workspace, remote = self.workspace, self.workspace.git_remote
        workspace.git("update-ref", f"{REMOVED}{tag}", f"{TAG}{tag}")
        mirrored = f"{MIRROR}tags/{tag}"
        if remote and mirrored in references(workspace):
            workspace.git("push", "--quiet", remote, f":{TAG}{tag}")
            workspace.git("update-ref", "-d", mirrored)
        logger.info("%s is removed: %s", tag, self._describe(tag))
        workspace.git("update-ref", "-d", f"{TAG}{tag}")

    def _delete(self, use: ObjectUse) -> tuple[dict[str, int], dict[str, str]]:
        """Delete the unneeded objects, those of the remote first, as the cache cannot be asked what it held."""
        refs = {name: ref for name, ref in use.remote.items() if name in use.unneeded}
        files = {name: file for name, file in use.cached.items() if name in use.unneeded}
        on_remote, problems = delete_objects(self.objects.client, refs)
        in_cache, more = delete_cached(files)
        clear_records_of_remote(self.workspace)
        return {CACHE: in_cache, REMOTE: on_remote}, {**problems, **more}
