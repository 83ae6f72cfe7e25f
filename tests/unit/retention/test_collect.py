"""All kinds together: models and then the versions they were trained on; a problem of one kind stops no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.dataset.verify import verify
from pipelines.errors import ServiceError
from pipelines.gcs.client import ensure_bucket, put
from pipelines.models.registry import Registry
from pipelines.params import RetentionParams, RetentionRule
from pipelines.records import ImageRef, Task
from pipelines.retention.collect import Sources, as_tables, is_empty, plan, remove
from pipelines.retention.plan import Plan
from tests.unit.dataset.versions import Versions
from tests.unit.retention.conftest import LATER
from tests.unit.retention.test_models import Add, add  # noqa: F401  a fixture

NEWEST = RetentionRule(keep_newest=1)


def tasks() -> list[Task]:
    return [Task(1, ImageRef("gs://archive/a.png", 1, "a" * 64, 4, 6), prediction_versions=("clothing:v2",))]


def sources(
    versions: Versions, registry: Registry, rules: RetentionParams, read: Callable[[], list[Task]] = tasks
) -> Sources:
    changes = {"target_bucket": f"{versions.archive}-labels", "sam_checkpoint": "none"}
    settings = versions.workspace.settings.model_copy(update=changes)
    ensure_bucket(versions.bucket, settings.target_bucket)
    return Sources(settings, rules, versions.bucket, registry, read)


def shown(plans: list[Plan], *, done: bool = False) -> str:
    console = Console(width=160, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115  for the test's time
    for table in as_tables(plans, done=done):
        console.print(table)
    return " ".join(word for word in console.export_text().split() if word != "│")


def test_by_default_nothing_goes(versions: Versions, registry: Registry, add: Add) -> None:  # noqa: F811  the fixture
    add()
    plans = plan(sources(versions, registry, RetentionParams()).kinds())
    assert is_empty(plans)
    assert [kind.problem for kind in plans if kind.problem] == []
    assert {kind.kind: kind.stay for kind in plans if kind.kind in ("models", "versions")} == {
        "models": 1,
        "versions": 3,
    }


def test_models_and_the_versions_they_were_trained_on_go_together(
    versions: Versions,
    registry: Registry,
    add: Add,  # noqa: F811  the fixture
) -> None:
    for number in (1, 2, 3):
        add(dataset=f"dataset-000{number}")
    put(versions.bucket, f"{versions.archive}", "other", b"x", "text/plain")
    rules = RetentionParams(models=NEWEST, versions=NEWEST)
    of = sources(versions, registry, rules)
    plans = plan(of.kinds(LATER))
    text = shown(plans)
    assert "models the newest 1 2 1" in text
    assert "clothing:v2 1 tasks hold its predictions" in text
    assert "dataset-0002 clothing:v2 was trained on it" in text
    assert "versions dataset-0001 what dataset-0001 changed; its commit" in text
    assert "not known whose they are" in text
    done = remove(of.kinds(LATER), plans)
    assert [kind.freed for kind in done] == [kind.freed for kind in plans]
    assert "Removed" in shown(done, done=True)
    assert versions.workspace.dataset_tags() == ["dataset-0002", "dataset-0003"]
    assert [version.served_as for version in registry.versions()] == ["clothing:v2", "clothing:v3"]
    assert not verify(versions.workspace, versions.objects, versions.workspace.dataset_tags(), deep=True).damages
    assert is_empty(plan(of.kinds(LATER)))


def test_a_kind_with_a_problem_stops_no_other_and_versions_wait_for_it(
    versions: Versions,
    registry: Registry,
    add: Add,  # noqa: F811  the fixture
) -> None:
    def down() -> list[Task]:
        raise ServiceError("Label Studio does not answer; start it with `maskloop up`")

    add(dataset="dataset-0001")
    add(dataset="dataset-0002")
    of = sources(versions, registry, RetentionParams(models=NEWEST, versions=NEWEST), down)
    (of.settings.var / "checkouts" / "left").mkdir(parents=True)
    plans = plan(of.kinds(LATER))
    problems = {kind.kind: kind.problem for kind in plans if kind.problem}
    assert set(problems) == {"models", "versions"}
    assert problems["models"].startswith("nothing is removed: Label Studio does not answer")
    done = remove(of.kinds(LATER), plans)
    assert not (of.settings.var / "checkouts" / "left").exists()
    assert len(versions.workspace.dataset_tags()) == 3
    assert {kind.kind for kind in done if kind.problem} == {"models", "versions"}


def test_before_there_is_a_workspace_nothing_fails(
    versions: Versions, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = sources(versions, registry, RetentionParams(models=NEWEST, versions=NEWEST, remote=NEWEST))
    empty = Sources(of.settings.model_copy(update={"var": tmp_path / "empty"}), of.rules, of.bucket, registry, tasks)
    plans = plan(empty.kinds())
    assert is_empty(plans)
    assert [kind.problem for kind in plans if kind.problem] == []
