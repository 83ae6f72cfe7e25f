"""Model versions that go: never those that anything needs, and the gate still counts the looks of removed ones."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from pipelines.errors import ServiceError
from pipelines.models.registry import Registry
from pipelines.params import RetentionRule
from pipelines.records import ModelVersion
from pipelines.retention.models import Models
from tests.unit.retention.conftest import LATER

NEWEST = RetentionRule(keep_newest=1)
Add = Callable[..., ModelVersion]


@pytest.fixture
def add(registry: Registry, add_version: Add) -> Add:
    """Add a version that the gate judged, with the files that a training logs; keywords are tags."""

    def make(**tags: str) -> ModelVersion:
        version = add_version(**{"decision": "the gain may be chance", **tags})
        client = registry.client
        client.log_text(version.run_id, "w" * 1000, "network/weights.safetensors")
        client.log_text(version.run_id, "r" * 100, "report/worst/page.html")
        client.log_text(version.run_id, json.dumps({"compared": True, "test_families": ["a", "b"]}), "gate.json")
        experiment = client.get_run(version.run_id).info.experiment_id
        model = client.create_logged_model(experiment, name="model", source_run_id=version.run_id)
        client.log_outputs(version.run_id, [LoggedModelOutput(model.model_id, 0)])
        folder = Path(model.artifact_location)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "MLmodel").write_text("m" * 10, encoding="utf-8")
        return version

    return make


def kind(registry: Registry, rule: RetentionRule | str = NEWEST, shown: Mapping[str, str] | None = None) -> Models:
    return Models(registry, rule, lambda: shown or {}, LATER)


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".db")


def names(registry: Registry) -> list[str]:
    return [version.served_as for version in registry.versions()]


def test_files_and_entries_go_and_the_numbers_are_those_of_the_plan(
    registry: Registry, add: Add, tmp_path: Path
) -> None:
    removed = [add(dataset="dataset-0001"), add(dataset="dataset-0002")]
    add(dataset="dataset-0003")
    before, models = stored(tmp_path), kind(registry)
    plan = models.plan()
    assert (plan.stay, list(plan.go), plan.freed) == (1, ["clothing:v1", "clothing:v2"], {"MLflow": 2 * 1110})
    assert plan.go["clothing:v2"] == f"trained on dataset-0002; its metrics stay in run {removed[1].run_id}"
    assert models.planned_datasets() == {"dataset-0003": "clothing:v3 was trained on it"}
    assert set(models.datasets()) == {"dataset-0001", "dataset-0002", "dataset-0003"}
    assert names(registry) == ["clothing:v1", "clothing:v2", "clothing:v3"]
    assert kind(registry).remove(plan) == plan
    assert names(registry) == ["clothing:v3"]
    assert before - stored(tmp_path) == 2 * 1110
    run = registry.client.get_run(removed[0].run_id)
    assert (run.info.lifecycle_stage, run.data.metrics["test_miou"]) == ("deleted", 0.5)
    assert registry.download(registry.versions()[0], tmp_path / "network")
    again = kind(registry).plan()
    assert (dict(again.go), again.freed) == ({}, {"MLflow": 0})


def test_the_gate_counts_the_looks_of_removed_versions(registry: Registry, add: Add) -> None:
    for _ in range(3):
        newest = add()
    assert registry.looks_at(["a", "b"], before=newest) == 2
    models = kind(registry)
    models.remove(models.plan())
    assert registry.looks_at(["a", "b"], before=newest) == 2
    assert registry.looks_at(["a", "b"]) == 3
    assert registry.looks_at(["c"]) == 0


def test_what_anything_needs_stays_with_the_reason(registry: Registry, add: Add) -> None:
    add(detectable_gain="0.04")
    add(detectable_gain="0.03")
    add()
    served, champion = add(), add()
    registry.promote_by_hand(served)
    registry.promote_by_hand(champion)
    add(started_from="clothing:v3")
    registry.client.set_registered_model_alias("clothing", "challenger", "6")
    add(decision="")
    add()
    add()
    plan = kind(registry, shown={"clothing:v8": "3 tasks hold its predictions"}).plan()
    assert list(plan.go) == ["clothing:v1"]
    assert plan.spared == {
        "clothing:v2": "the gain that the gate can detect is noted with it",
        "clothing:v3": "clothing:v6 started from its weights",
        "clothing:v4": "a rollback makes it champion again",
        "clothing:v5": "it is champion",
        "clothing:v6": "it is challenger",
        "clothing:v7": "the gate has not judged it yet",
        "clothing:v8": "3 tasks hold its predictions",
    }


def test_what_came_into_use_after_it_was_shown_stays(registry: Registry, add: Add) -> None:
    first = add()
    add()
    add()
    plan = kind(registry).plan()
    registry.promote_by_hand(first)
    done = kind(registry).remove(plan)
    assert list(done.go) == ["clothing:v2"]
    assert names(registry) == ["clothing:v1", "clothing:v3"]


def test_all_stay_by_default_and_label_studio_is_not_asked(registry: Registry, add: Add) -> None:
    def down() -> Mapping[str, str]:
        raise ServiceError("Label Studio does not answer")

    add()
    add()
    assert Models(registry, "all", down, LATER).plan().stay == 2
    with pytest.raises(ServiceError, match="Label Studio"):
        Models(registry, NEWEST, down, LATER).plan()


def test_without_any_model_nothing_happens(registry: Registry) -> None:
    plan = kind(registry).plan()
    assert (plan.stay, dict(plan.go), kind(registry).datasets()) == (0, {}, {})
    assert kind(registry).remove(plan) == plan


def test_a_dataset_that_is_trained_on_now_is_in_use(registry: Registry, add: Add) -> None:
    run = registry.client.get_run(add().run_id)
    registry.client.create_run(run.info.experiment_id, tags={"maskloop.dataset": "dataset-0009"})
    assert kind(registry).datasets()["dataset-0009"] == "a training on it is at work"


class Killed(BaseException):
    """What a kill is to the code that it ends."""


@pytest.mark.parametrize("point", range(6))
def test_after_a_kill_at_any_point_the_next_run_completes_it(
    registry: Registry, add: Add, tmp_path: Path, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    first, newest = add(), add()
    before, steps = stored(tmp_path), iter(range(99))

    def dying(owner: type, name: str) -> None:
        function = getattr(owner, name)

        def call(*arguments: object, **options: object) -> object:
            if next(steps) == point:
                raise Killed
            return function(*arguments, **options)

        patched.setattr(owner, name, call)

    plan = kind(registry).plan()
    with monkeypatch.context() as patched:
        dying(LocalArtifactRepository, "delete_artifacts")
        for name in ("set_tag", "delete_model_version", "delete_logged_model", "delete_run"):
            dying(MlflowClient, name)
        with pytest.raises(Killed):
            kind(registry).remove(plan)
    again = kind(registry).plan()
    assert kind(registry).remove(again).freed == again.freed
    assert names(registry) == [newest.served_as]
    assert before - stored(tmp_path) == 1110
    assert registry.client.get_run(first.run_id).info.lifecycle_stage == "deleted"
    assert registry.looks_at(["a", "b"]) == 2
    assert kind(registry).plan().interrupted == ()


def test_a_version_whose_files_cannot_be_deleted_stops_no_other(
    registry: Registry, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    first = add()
    add()
    add()
    delete = LocalArtifactRepository.delete_artifacts

    def refuse(repository: LocalArtifactRepository, path: str | None = None) -> None:
        if first.run_id in repository.artifact_uri:
            raise OSError("read-only file system")
        delete(repository, path)

    plan = kind(registry).plan()
    with monkeypatch.context() as patched:
        patched.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
        done = kind(registry).remove(plan)
    assert "clothing:v1: read-only file system; run `maskloop gc` again" in done.problem
    assert list(done.go) == ["clothing:v2"]
    again = kind(registry).plan()
    assert again.interrupted == ("clothing:v1",)
    assert kind(registry).remove(again).problem == ""
