"""Versions that go: only their own objects are deleted, whatever else there is, and after a kill at any point."""

import subprocess
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipelines.dataset.published import Published
from pipelines.dataset.verify import verify
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError, ServiceError
from pipelines.gcs import client as gcs
from pipelines.params import RetentionRule
from pipelines.records import ObjectRef
from pipelines.retention import unneeded
from pipelines.retention import versions as module
from pipelines.retention.rule import Rule
from pipelines.retention.unneeded import OldGenerations, UnneededObjects
from pipelines.retention.use import interrupted
from pipelines.retention.versions import DatasetVersions
from tests.unit.dataset.versions import Versions, name_of
from tests.unit.retention.conftest import COAT, LATER, total

NEWEST = RetentionRule(keep_newest=1)


def kind(versions: Versions, rule: Rule = NEWEST, used: Mapping[str, str] | None = None) -> DatasetVersions:
    return DatasetVersions(
        versions.workspace, versions.objects, rule, lambda: used or {}, lambda: used or {}, LATER
    )  # fmt: skip


def on_remote(versions: Versions) -> dict[str, int]:
    listed = gcs.list_objects(versions.bucket, versions.workspace.settings.dvc_bucket, "dvc/files/md5/")
    return {ref.name[len("dvc/files/md5/") :].replace("/", ""): ref.size for ref in listed}


def is_whole(versions: Versions) -> bool:
    tags = versions.workspace.dataset_tags()
    return not verify(versions.workspace, versions.objects, tags, deep=True).damages


def needed_by_tags(versions: Versions) -> set[str]:
    published = Published(versions.workspace)
    return {md5 for tag in versions.workspace.dataset_tags() for md5 in published.files(tag).values()}


def test_all_stay_by_default(versions: Versions) -> None:
    before = on_remote(versions), versions.cached()
    plan = kind(versions, "all").plan()
    assert (plan.stay, dict(plan.go), plan.freed) == (3, {}, {"cache": 0, "remote": 0})
    kind(versions, "all").remove(plan)
    assert (on_remote(versions), versions.cached()) == before


def test_the_objects_of_removed_versions_go_and_the_numbers_are_those_of_the_plan(versions: Versions) -> None:
    before, cached = on_remote(versions), total(versions.cached())
    retention = kind(versions)
    plan = retention.plan()
    assert (plan.stay, list(plan.go)) == (1, ["dataset-0001", "dataset-0002"])
    assert "what dataset-0001 changed; its commit" in plan.go["dataset-0001"]
    assert plan.freed["remote"] > 0 < plan.freed["cache"]
    assert versions.workspace.dataset_tags() == ["dataset-0001", "dataset-0002", "dataset-0003"]
    done = retention.remove(plan)
    assert done == plan
    assert versions.workspace.dataset_tags() == ["dataset-0003"]
    after = on_remote(versions)
    assert set(after) == needed_by_tags(versions)
    assert sum(before.values()) - sum(after.values()) == plan.freed["remote"]
    assert cached - total(versions.cached()) == plan.freed["cache"]
    assert is_whole(versions)
    again = kind(versions).plan()
    assert (dict(again.go), again.freed) == ({}, {"cache": 0, "remote": 0})


def test_a_version_in_use_stays_with_the_reason(versions: Versions) -> None:
    plan = kind(versions, used={"dataset-0001": "clothing:v7 was trained on it"}).plan()
    assert list(plan.go) == ["dataset-0002"]
    assert plan.spared == {"dataset-0001": "clothing:v7 was trained on it"}


def test_a_model_that_was_trained_meanwhile_keeps_its_version(versions: Versions) -> None:
    uses: list[Mapping[str, str]] = [{}, {"dataset-0001": "clothing:v8 was trained on it"}]
    retention = DatasetVersions(
        versions.workspace, versions.objects, NEWEST, lambda: uses[0], lambda: uses[1], LATER
    )  # fmt: skip
    done = retention.remove(retention.plan())
    assert list(done.go) == ["dataset-0002"]
    assert versions.workspace.dataset_tags() == ["dataset-0001", "dataset-0003"]
    assert is_whole(versions)


def test_nothing_goes_while_the_models_are_not_known(versions: Versions) -> None:
    def down() -> Mapping[str, str]:
        raise ServiceError("MLflow does not answer")

    retention = DatasetVersions(versions.workspace, versions.objects, NEWEST, down, down, LATER)
    with pytest.raises(ServiceError):
        retention.plan()
    assert len(versions.workspace.dataset_tags()) == 3


def test_what_a_branch_a_stash_a_foreign_tag_or_a_clone_needs_stays(versions: Versions) -> None:
    workspace = versions.workspace
    workspace.git("branch", "mine", "dataset-0001")
    workspace.git("tag", "paper", "dataset-0002")
    needed = needed_by_tags(versions)
    retention = kind(versions)
    retention.remove(retention.plan())
    assert workspace.dataset_tags() == ["dataset-0003"]
    assert needed <= set(on_remote(versions))
    workspace.git("branch", "-D", "mine")
    again = kind(versions).plan()
    assert again.freed == {"cache": 0, "remote": 0}  # nothing of it belongs to a version that is being removed


def test_what_a_training_has_checked_out_stays(versions: Versions) -> None:
    clone = Workspace(versions.workspace.settings.var / "training", versions.workspace.settings)
    clone.ensure(versions.workspace.path)
    clone.check_out("dataset-0001", versions.workspace.path)
    plan = kind(versions).plan()
    assert list(plan.go) == ["dataset-0002"]
    assert "training has it checked out" in plan.spared["dataset-0001"]


def test_an_unpublished_state_stays(versions: Versions) -> None:
    versions.write(dict.fromkeys([0, 1, 8], COAT))  # photos of dataset-0001 come back
    versions.add()
    needed = versions.needed()
    retention = kind(versions)
    retention.remove(retention.plan())
    assert needed <= {name_of(path) for path in versions.cached()}
    versions.publish()
    assert is_whole(versions)


def test_objects_that_are_needed_again_are_pushed_again(versions: Versions) -> None:
    retention = kind(versions)
    retention.remove(retention.plan())
    versions.write(dict.fromkeys(range(4), COAT))  # as dataset-0001 was
    versions.publish()
    assert is_whole(versions)


def test_objects_that_no_version_names_stay_on_the_remote(versions: Versions) -> None:
    foreign = "0123456789abcdef0123456789abcdef"
    versions.put_remote(foreign, b"of another workspace")
    retention = kind(versions)
    retention.remove(retention.plan())
    assert foreign in on_remote(versions)
    rest = UnneededObjects("remote", kind(versions, "all"), "all", LATER).plan()
    assert (dict(rest.go), rest.note) == ({}, "1 that nothing needs stay")
    by_age = UnneededObjects("remote", kind(versions, "all"), RetentionRule(keep_days=90), LATER)
    plan = by_age.plan()
    assert (list(plan.go), plan.freed) == ([foreign], {"remote": 20})
    assert by_age.remove(plan) == plan
    assert foreign not in on_remote(versions)
    assert is_whole(versions)


def test_a_list_without_a_good_copy_stops_everything(versions: Versions) -> None:
    [folder] = [
        md5 for path, md5 in Published(versions.workspace).files("dataset-0003").items() if path == "data/images"
    ]
    versions.objects.path(folder).unlink()
    versions.delete_remote(folder)
    before = on_remote(versions)
    with pytest.raises(DatasetError, match="maskloop verify --all"):
        kind(versions).plan()
    assert on_remote(versions) == before
    assert len(versions.workspace.dataset_tags()) == 3


def test_a_lost_cache_changes_nothing_on_the_remote_that_stays(versions: Versions) -> None:
    for path in versions.cached():
        path.unlink()
    retention = kind(versions)
    retention.remove(retention.plan())
    assert is_whole(versions)


def test_while_somebody_holds_the_workspace_nothing_is_removed(versions: Versions) -> None:
    retention = kind(versions)
    plan = retention.plan()
    thread = threading.Thread(target=retention.remove, args=(plan,))
    with Workspace(versions.workspace.path, versions.workspace.settings).locked():  # as a sync does
        thread.start()
        thread.join(1.5)
        assert thread.is_alive()
        assert len(versions.workspace.dataset_tags()) == 3
        versions.write(dict.fromkeys(range(4), COAT))  # photos of dataset-0001 come back meanwhile
        versions.publish()
    thread.join()
    assert versions.workspace.dataset_tags() == ["dataset-0003", "dataset-0004"]
    assert is_whole(versions)


def test_a_versioned_bucket_is_said_to_keep_what_is_deleted(versions: Versions) -> None:
    bucket = versions.bucket.get_bucket(versions.workspace.settings.dvc_bucket)
    bucket.versioning_enabled = True
    bucket.patch()
    assert "older generations" in kind(versions).plan().note


def test_old_generations_go_by_age_but_never_the_last_copy_of_a_needed_object(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local bucket server keeps no older generations, so that their listing and deletion are scripted."""
    needed = sorted(versions.needed())
    versions.delete_remote(needed[0])
    old = [
        ObjectRef("datasets", f"dvc/files/md5/{md5[:2]}/{md5[2:]}", 5, 10, stored_at=LATER - timedelta(days=days))
        for md5, days in ((needed[0], 400), (needed[1], 400), ("a" * 32, 400), ("b" * 32, 3))
    ]
    deleted: list[ObjectRef] = []
    monkeypatch.setattr(unneeded, "list_old_generations", lambda client, bucket, prefix: iter(old))
    monkeypatch.setattr(unneeded, "delete_generation", lambda client, ref: deleted.append(ref))
    retention = OldGenerations(kind(versions, "all"), RetentionRule(keep_days=90), LATER)
    plan = retention.plan()
    assert (plan.stay, set(plan.go), plan.freed) == (2, {f"{ref.name}#5" for ref in old[1:3]}, {"remote": 20})
    assert plan.spared == {f"{old[0].name}#5": "its object is needed and has no good generation"}
    assert retention.remove(plan) == plan
    assert {ref.name for ref in deleted} == {ref.name for ref in old[1:3]}


class Killed(BaseException):
    """What a kill is to the code that it ends."""


@pytest.mark.parametrize("point", range(9))
def test_after_a_kill_at_any_point_the_next_run_completes_it(
    versions: Versions, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(99))

    def dying(function):  # type: ignore[no-untyped-def]  # wraps any function
        def call(*arguments, **options):  # type: ignore[no-untyped-def]  # wraps any function
            if next(steps) == point:
                raise Killed
            return function(*arguments, **options)

        return call

    expected = kind(versions).plan()
    with monkeypatch.context() as patched:
        git = Workspace.git
        writes = dying(git)
        patched.setattr(
            Workspace, "git",
            lambda self, *words: (writes if words[0] == "update-ref" else git)(self, *words),
        )  # fmt: skip
        for name in ("delete_objects", "delete_cached", "clear_records_of_remote"):
            patched.setattr(module, name, dying(getattr(module, name)))
        try:
            kind(versions).remove(expected)
        except Killed:
            pass
    retention = kind(versions)
    plan = retention.plan()
    done = retention.remove(plan)
    assert done.freed == plan.freed
    assert versions.workspace.dataset_tags() == ["dataset-0003"]
    assert interrupted(versions.workspace) == []
    assert set(on_remote(versions)) == needed_by_tags(versions)
    assert is_whole(versions)


def test_the_git_remote_loses_the_tag_as_well_and_its_own_versions_stay(versions: Versions, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    settings = versions.workspace.settings.model_copy(update={"git_remote": SecretStr(str(remote))})
    workspace = Workspace(versions.workspace.path, settings)
    workspace.git("push", "--quiet", str(remote), "HEAD:main", "dataset-0001", "dataset-0003")
    workspace.git("push", "--quiet", str(remote), "dataset-0002:refs/tags/dataset-0009")  # of another workspace
    needed = set(Published(workspace).files("dataset-0002").values())
    versions.workspace = workspace
    retention = kind(versions)
    retention.remove(retention.plan())
    tags = subprocess.run(["git", "tag"], cwd=remote, check=True, capture_output=True, text=True).stdout.split()
    assert tags == ["dataset-0003", "dataset-0009"]
    assert needed <= set(on_remote(versions))
    assert is_whole(versions)
