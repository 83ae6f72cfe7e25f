"""The queue of nine people in a real Label Studio: one task each, and a promotion that breaks no open page."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.demo.labelers import Labeler
from pipelines.labelstudio.annotations import annotated_tasks, parse_annotation, started_from_its_prediction
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.predictions import region_id
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
PEOPLE = 6


@pytest.fixture
def settings(stack_after_two_rounds):
    return stack_after_two_rounds.settings


@pytest.fixture
def labels(settings):
    return connect(settings)


@pytest.fixture
def project(settings, labels):
    return find_project(labels, load_params(settings.params_path))


@pytest.fixture
def people(settings):
    password = settings.label_studio_password.get_secret_value()
    return [Labeler(settings.url("label_studio"), f"queue-{n}@maskloop.local", password) for n in range(PEOPLE)]


def test_people_who_ask_at_the_same_moment_get_different_tasks_with_masks(people, project):
    with ThreadPoolExecutor(PEOPLE) as pool:
        tasks = list(pool.map(lambda person: person.next_task(project), people))

    assert len({task["id"] for task in tasks}) == PEOPLE
    assert all(len(task["predictions"]) == 1 for task in tasks)


def test_work_under_way_survives_a_promotion(stack_after_two_rounds, people, labels, project):
    """Masks are brought up to date while a photo is open; who has it open submits all the same."""
    task = people[0].next_task(project)
    [shown] = task["predictions"]
    older = [{**region, "id": region_id("clothing:v1", str(n))} for n, region in enumerate(shown["result"])]
    labels.patch(f"/api/predictions/{shown['id']}/", {"result": older, "model_version": "clothing:v1"})
    [open_task] = list_tasks(labels, project, only=[task["id"]])
    assert open_task.prediction_versions == ("clothing:v1",)

    stack_after_two_rounds.run("prelabel")

    [updated] = labels.get("/api/predictions/", task=task["id"])
    assert (updated["id"], updated["model_version"]) == (shown["id"], shown["model_version"])
    people[0].submit({**task, "predictions": [shown]}, older, 5.0)
    [annotated] = annotated_tasks(labels, project, only=[task["id"]])
    [raw] = annotated["annotations"]
    assert parse_annotation(raw, annotated, {}).prediction_version == "clothing:v1"
    assert not started_from_its_prediction(raw)


def test_events_of_label_studio_reach_the_services_with_their_login(settings, labels, project):
    hooks = [hook for hook in labels.get("/api/webhooks/", project=project) if hook["url"].endswith("/webhook")]

    assert {hook["url"] for hook in hooks} == {
        f"{settings.url(service)}/webhook" for service in ("segmentation", "segment_anything")
    }
    assert all(hook["headers"]["Authorization"].startswith("Basic ") for hook in hooks)
