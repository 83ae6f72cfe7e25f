"""What is made of photos in the target bucket and can be made again: embeddings, and the copies that browsers show.

Those of photos that have a task or are in a dataset version stay. A Label Studio without any task lets nothing go: a
lost database is more likely than a wish.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from google.cloud.storage import Client

from pipelines.dataset.published import Published
from pipelines.errors import ServiceError
from pipelines.fs import held
from pipelines.gcs.client import COPIES, EMBEDDINGS, delete, list_objects
from pipelines.records import ImageRef, ObjectRef, Task
from pipelines.retention.objects import CachedFile, delete_cached, delete_objects, files_below
from pipelines.retention.plan import BUCKET, LOCAL, Plan, first_of
from pipelines.retention.rule import Item, Rule, choose, describe
from pipelines.segmentation.embeddings import embedding_name

_ACTIVE_DAYS = 1  # ingest stores a copy, and a click an embedding, before there is anything that needs it
_LIFECYCLE = "the bucket's lifecycle rule deletes every one after 60 days"


class Photos:
    """The photos that have a task or are in a version, and what people see of models' predictions on them.

    `tasks` reads the tasks of Label Studio; it is asked once. `tags` returns the versions that stay.
    """

    def __init__(
        self, tasks: Callable[[], Sequence[Task]], published: Published, tags: Callable[[], Sequence[str]]
    ) -> None:
        self._read_tasks, self._published, self._tags = tasks, published, tags

    @cached_property
    def tasks(self) -> Sequence[Task]:
        """Return all tasks; raise ServiceError when there is none, or Label Studio does not answer."""
        tasks = self._read_tasks()
        if not tasks:
            raise ServiceError(
                "Label Studio has no task, which a lost database is more likely to explain than a wish, so that it is "
                "not known which photos are in use; run `maskloop ingest` first"
            )
        return tasks

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Return by SHA-256 why a photo is in use."""
        return {**self._in_versions, **{task.image.sha256: f"task {task.id}" for task in self.tasks}}

    @cached_property
    def _in_versions(self) -> dict[str, str]:
        return {str(photo): tag for tag in self._tags() for photo in self._published.manifest(tag)["sha256"]}

    def addresses(self) -> dict[str, str]:
        """Return, by the key under which a photo is encoded, why it is in use."""
        keys: dict[str, str] = {}
        for tag in self._tags():
            rows = self._published.manifest(tag)[["uri", "generation"]].itertuples(index=False, name=None)
            keys |= {f"{uri}#{int(generation)}": tag for uri, generation in rows}
        for task in self.tasks:
            keys |= dict.fromkeys(_keys(task.image), f"task {task.id}")
        return keys

    def shown_predictions(self) -> dict[str, str]:
        """Return, by model version, why people still see or compare what it predicted."""
        reasons: dict[str, str] = {}
        if tags := self._published.tags():
            manifest = self._published.manifest(tags[-1])
            used = set(map(str, manifest["prediction_version"])) if "prediction_version" in manifest.columns else set()
            reasons = dict.fromkeys(used, f"`maskloop report` compares its masks in {tags[-1]}")
        counts: dict[str, int] = {}
        for task in self.tasks:
            for version in task.prediction_versions:
                counts[version] = counts.get(version, 0) + 1
        return reasons | {version: f"{count} tasks hold its predictions" for version, count in counts.items()}


class OfPhotos:
    """The kinds "embeddings" and "copies": objects below a prefix, and files in a folder if there is one.

    `in_use` returns by name why an object must stay; `note` stands with what is shown. While they are deleted, the
    file `lock` is held.
    """

    def __init__(
        self, name: str, bucket: Client, target: str, prefix: str, rule: Rule,
        in_use: Callable[[Mapping[str, ObjectRef]], Mapping[str, str]], now: datetime, *,
        folder: Path | None = None, note: str = "", lock: Path | None = None,
    ) -> None:  # fmt: skip
        self.name, self._bucket, self._target, self._prefix, self._rule = name, bucket, target, prefix, rule
        self._in_use, self._now, self._folder, self._note = in_use, now, folder, note
        self._lock = lock

    def plan(self) -> Plan:
        """Return which go; uses are looked up only when the rule would let some go."""
        return self._planned()[0]

    def remove(self, shown: Plan) -> Plan:
        """Delete what was shown, unless something uses it by now."""
        if not shown.go:
            return shown
        with held(self._lock) if self._lock else nullcontext():
            return self._remove(shown)

    def _remove(self, shown: Plan) -> Plan:
        plan, refs, files = self._planned()
        go = plan.go.keys() & shown.go.keys()
        in_bucket, problems = delete_objects(self._bucket, {name: refs[name] for name in go if name in refs}, delete)
        local, more = delete_cached({name: files[name] for name in go if name in files})
        problems |= more
        return replace(
            plan, go={name: plan.go[name] for name in sorted(go)}, freed={BUCKET: in_bucket, LOCAL: local},
            problem=first_of(problems, self.name),
        )  # fmt: skip

    def _planned(self) -> tuple[Plan, dict[str, ObjectRef], dict[str, CachedFile]]:
        refs = {
            ref.name.removeprefix(self._prefix): ref for ref in list_objects(self._bucket, self._target, self._prefix)
        }
        files = files_below(self._folder, "*.npz") if self._folder else {}
        dates = {name: ref.stored_at or self._now for name, ref in refs.items()}
        for name, file in files.items():
            dates[name] = max(dates.get(name, file.at), file.at)
        items = [Item(name, at) for at, name in sorted((at, name) for name, at in dates.items())]
        active = self._now - timedelta(days=_ACTIVE_DAYS)
        young = {item.name: "it is younger than a day" for item in items if item.at > active}
        choice = choose(items, self._rule, young, self._now, newest_stays=False)
        if choice.go:
            choice = choose(items, self._rule, {**young, **self._in_use(refs)}, self._now, newest_stays=False)
        freed = {
            BUCKET: sum(max(refs[name].size, 0) for name in choice.go if name in refs),
            LOCAL: sum(files[name].size for name in choice.go if name in files),
        }
        go = dict.fromkeys(choice.go, "made again when it is needed")
        plan = Plan(self.name, describe(self._rule), len(choice.stay), go, freed, choice.spared, self._note)
        return plan, refs, files


def embeddings(
    bucket: Client, target: str, rule: Rule, photos: Photos, checkpoints: Sequence[str], folder: Path, now: datetime
) -> OfPhotos:
    """Return the kind "embeddings"; `checkpoints` is what those in use are named after, empty when there is none."""

    def in_use(refs: Mapping[str, ObjectRef]) -> dict[str, str]:
        addresses = photos.addresses().items()
        return {embedding_name(checkpoint, key): reason for checkpoint in checkpoints for key, reason in addresses}

    note = _LIFECYCLE
    if not checkpoints:
        rule, note = "all", f"MASKLOOP_SAM_CHECKPOINT names none, so it is not known whose they are; {_LIFECYCLE}"
    return OfPhotos("embeddings", bucket, target, EMBEDDINGS, rule, in_use, now, folder=folder, note=note)


def copies(bucket: Client, target: str, rule: Rule, photos: Photos, var: Path, now: datetime) -> OfPhotos:
    """Return the kind "copies", which are named by the SHA-256 of their photos.

    Ingest, whose lock is in the folder `var`, uses a copy again before the task of its photo exists.
    """

    def in_use(refs: Mapping[str, ObjectRef]) -> dict[str, str]:
        reasons = {name: photos.hashes.get(name.partition(".")[0], "") for name in refs}
        shown = {task.image.shown.rpartition("/")[2]: f"task {task.id}" for task in photos.tasks if task.image.shown}
        return {name: reason for name, reason in reasons.items() if reason} | shown

    return OfPhotos("copies", bucket, target, COPIES, rule, in_use, now, lock=var / "ingest.lock")


def _keys(image: ImageRef) -> list[str]:
    """Return the keys under which a task's photo may have been encoded: by address and generation."""
    return [
        f"{uri}#{generation}" for uri in filter(None, (image.uri, image.shown)) for generation in (image.generation, 0)
    ]
