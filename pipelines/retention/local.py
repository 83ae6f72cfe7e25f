"""Files of this machine, and pages of the target bucket, that only their age decides about."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.files import TRAINING
from pipelines.gcs.client import delete, list_objects
from pipelines.records import ObjectRef
from pipelines.retention.objects import delete_objects
from pipelines.retention.plan import BUCKET, LOCAL, Plan, first_of
from pipelines.retention.rule import Item, Rule, choose, describe

CHECKS = "checks/"  # pages of the checks, in the target bucket


class LocalFiles:
    """A kind of files and folders of this machine: what `find` returns."""

    def __init__(self, name: str, find: Callable[[], Iterable[Path]], rule: Rule, now: datetime) -> None:
        self.name, self._find, self._rule, self._now = name, find, rule, now

    def plan(self) -> Plan:
        """Return which of them go, by the time at which the newest of their files was changed."""
        return self._planned()[0]

    def remove(self, shown: Plan) -> Plan:
        """Delete what was shown and is still old."""
        plan, files = self._planned()
        freed, problems = 0, {}
        for name in plan.go.keys() & shown.go.keys():
            path, size, _ = files[name]
            try:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
                freed += size
            except OSError as error:
                problems[name] = str(error)
        go = {name: "" for name in plan.go if name in shown.go and name not in problems}
        return replace(plan, go=go, freed={LOCAL: freed}, problem=first_of(problems, "files"))

    def _planned(self) -> tuple[Plan, dict[str, tuple[Path, int, datetime]]]:
        files = {str(path): (path, *_size_and_date(path)) for path in self._find()}
        items = [Item(name, at) for at, name in sorted((at, name) for name, (_, _, at) in files.items())]
        choice = choose(items, self._rule, {}, self._now, newest_stays=False)
        freed = sum(files[name][1] for name in choice.go)
        go = dict.fromkeys(choice.go, "")
        return Plan(self.name, describe(self._rule), len(choice.stay), go, {LOCAL: freed}), files


class CheckPages:
    """The kind "checks": pages of the checks, whose links stand in the logs of syncs."""

    name = "checks"

    def __init__(self, bucket: Client, target: str, rule: Rule, now: datetime) -> None:
        self._bucket, self._target, self._rule, self._now = bucket, target, rule, now

    def plan(self) -> Plan:
        """Return which pages go; the newest stays."""
        return self._planned()[0]

    def remove(self, shown: Plan) -> Plan:
        """Delete the pages that were shown."""
        if not shown.go:
            return shown
        plan, refs = self._planned()
        go = {name: refs[name] for name in plan.go if name in shown.go}
        freed, problems = delete_objects(self._bucket, go, delete)
        return replace(plan, go=dict.fromkeys(go, ""), freed={BUCKET: freed}, problem=first_of(problems, "pages"))

    def _planned(self) -> tuple[Plan, dict[str, ObjectRef]]:
        refs = {ref.name: ref for ref in list_objects(self._bucket, self._target, CHECKS)}
        dated = sorted((ref.stored_at or self._now, name) for name, ref in refs.items())
        choice = choose([Item(name, at) for at, name in dated], self._rule, {}, self._now)
        freed = sum(max(refs[name].size, 0) for name in choice.go)
        note = "the bucket's lifecycle rule deletes every one after 365 days"
        go = dict.fromkeys(choice.go, "")
        return Plan(self.name, describe(self._rule), len(choice.stay), go, {BUCKET: freed}, note=note), refs


def checkouts(var: Path, rule: Rule, now: datetime) -> LocalFiles:
    """Return the kind "checkouts": versions that were checked out by processes that were killed."""
    return LocalFiles("checkouts", lambda: (var / "checkouts").glob("*"), rule, now)


def checkpoints(var: Path, rule: Rule, now: datetime) -> LocalFiles:
    """Return the kind "checkpoints": trainings that were not finished."""
    return LocalFiles("checkpoints", lambda: (var / "training" / TRAINING).glob("*"), rule, now)


def logs(var: Path, rule: Rule, now: datetime) -> LocalFiles:
    """Return the kind "logs": rotated logs of the services, and Airflow's logs of its runs."""

    def find() -> Iterable[Path]:
        yield from (path for path in (var / "logs").glob("*.log.*") if path.is_file())
        yield from (path for path in (var / "airflow" / "logs").rglob("*.log") if path.is_file())

    return LocalFiles("logs", find, rule, now)


def _size_and_date(path: Path) -> tuple[int, datetime]:
    """Return the bytes of a file or folder, and when the newest of its files was changed."""
    size, newest = 0, 0.0
    for file in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]:
        try:
            state = file.lstat()
        except FileNotFoundError:  # removed at this moment
            continue
        size, newest = size + (0 if file.is_dir() else state.st_size), max(newest, state.st_mtime)
    return size, datetime.fromtimestamp(newest, UTC)
