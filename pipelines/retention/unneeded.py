"""Objects that no version needs or ever needed, and old generations of the dataset bucket."""

from dataclasses import replace
from datetime import datetime, timedelta

from pipelines.dataset.history import fetch_git_remote
from pipelines.dataset.object_names import PREFIX, listed_md5
from pipelines.gcs.generations import delete_generation, list_old_generations
from pipelines.records import ObjectRef
from pipelines.retention.objects import (
    CachedFile,
    clear_records_of_remote,
    delete_cached,
    delete_objects,
    leftovers_of_cache,
    sizes,
)
from pipelines.retention.plan import CACHE, REMOTE, Plan, first_of
from pipelines.retention.rule import Item, Rule, choose, describe
from pipelines.retention.use import ObjectUse
from pipelines.retention.versions import DatasetVersions

_ACTIVE_DAYS = 1  # what is younger may be of a process that is still at work


class UnneededObjects:
    """The kinds "cache" and "remote": objects that nothing needs and that are of no removed version."""

    def __init__(self, place: str, versions: DatasetVersions, rule: Rule, now: datetime) -> None:
        self.name, self._versions, self._rule, self._now = place, versions, rule, now

    def plan(self) -> Plan:
        """Return which objects go; those that are younger than a day may be of a process that is at work."""
        if not self._versions.workspace.path.exists():
            return Plan(self.name, describe(self._rule))
        if self.name == REMOTE and describe(self._rule) != "all":
            fetch_git_remote(self._versions.workspace)
        return self._planned(self._versions.use())[0]

    def remove(self, shown: Plan) -> Plan:
        """Delete the objects that were shown, unless something needs them by now."""
        if not shown.go:
            return shown
        versions = self._versions
        with versions.workspace.locked():
            plan, files, refs = self._planned(ObjectUse(versions.workspace, versions.objects, versions.going()))
            go = plan.go.keys() & shown.go.keys()
            on_remote, problems = delete_objects(
                versions.objects.client, {name: refs[name] for name in go if name in refs}
            )
            in_cache, more = delete_cached({name: files[name] for name in go if name in files})
            clear_records_of_remote(versions.workspace)
        freed, problems = on_remote + in_cache, {**problems, **more}
        left = dict.fromkeys(sorted(go), "")
        return replace(plan, go=left, freed={self.name: freed}, problem=first_of(problems, "objects"))

    def _planned(self, use: ObjectUse) -> tuple[Plan, dict[str, CachedFile], dict[str, ObjectRef]]:
        files: dict[str, CachedFile] = {}
        refs: dict[str, ObjectRef] = {}
        dates: dict[str, datetime] = {}
        if self.name == CACHE:
            files = {**use.cached, **leftovers_of_cache(self._versions.objects)}
            dates = {name: file.at for name, file in files.items()}
        else:
            refs = use.remote
            dates = {name: ref.stored_at or self._now for name, ref in refs.items()}
        loose = sorted((dates[name], name) for name in dates.keys() - use.needed - use.unneeded)
        active = self._now - timedelta(days=_ACTIVE_DAYS)
        in_use = {name: "it may be of a process that is at work" for at, name in loose if at > active}
        items = [Item(name, at) for at, name in loose]
        choice = choose(items, self._rule, in_use, self._now, newest_stays=False)
        freed = sum(sizes(files, refs, choice.go))
        note = f"{len(choice.stay)} that nothing needs stay" if choice.stay else ""
        stay = len(dates) - len(choice.go) - len(dates.keys() & use.unneeded)
        return (
            Plan(self.name, describe(self._rule), stay, dict.fromkeys(choice.go, ""), {self.name: freed}, note=note),
            files,
            refs,
        )


class OldGenerations:
    """The kind "generations": deleted and overwritten objects that the dataset bucket still keeps."""

    name = "generations"

    def __init__(self, versions: DatasetVersions, rule: Rule, now: datetime) -> None:
        self._versions, self._rule, self._now = versions, rule, now

    def plan(self) -> Plan:
        """Return which generations go; those of a needed object that has no live generation stay."""
        return self._planned()[0]

    def remove(self, shown: Plan) -> Plan:
        """Delete the generations that were shown, for good."""
        if not shown.go:
            return shown
        with self._versions.workspace.locked():
            plan, refs = self._planned()
            go = {name: refs[name] for name in plan.go if name in shown.go}
            freed, problems = delete_objects(self._versions.objects.client, go, delete_generation)
        return replace(plan, go=dict.fromkeys(go, ""), freed={REMOTE: freed}, problem=first_of(problems, "generations"))

    def _planned(self) -> tuple[Plan, dict[str, ObjectRef]]:
        versions = self._versions
        if not versions.workspace.path.exists():
            return Plan(self.name, describe(self._rule)), {}
        bucket = versions.workspace.settings.dvc_bucket
        refs = {
            f"{ref.name}#{ref.generation}": ref for ref in list_old_generations(versions.objects.client, bucket, PREFIX)
        }
        if not refs:
            return Plan(self.name, describe(self._rule)), {}
        use = ObjectUse(versions.workspace, versions.objects)
        whole = {md5 for md5, ref in use.remote.items() if not ref.md5 or ref.md5 == listed_md5(md5)}
        lost = {f"{PREFIX}{md5[:2]}/{md5[2:]}" for md5 in use.needed - whole}
        in_use = {
            name: "its object is needed and has no good generation" for name, ref in refs.items() if ref.name in lost
        }
        items = [Item(name, ref.stored_at or self._now) for name, ref in refs.items()]
        choice = choose(sorted(items, key=lambda item: item.at), self._rule, in_use, self._now, newest_stays=False)
        freed = sum(max(refs[name].size, 0) for name in choice.go)
        lost_items = dict.fromkeys(choice.go, "")
        return Plan(self.name, describe(self._rule), len(choice.stay), lost_items, {REMOTE: freed}, choice.spared), refs
