"""The queue of nine people in a real Label Studio: one task each, and a promotion that breaks no open page."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from pipelines.dataset.split import split_of_group
from pipelines.demo.labelers import Labeler
from pipelines.gcs import client as gcs
from pipelines.labelstudio.annotations import export_tasks, prediction_version_of, started_from_its_prediction
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import QUEUE_TITLE, find_project
from pipelines.labelstudio.render import region_id
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, tasks_with_masks
from pipelines.params import load_params
from pipelines.photos.decode import sha256_hex
from pipelines.prelabel.blind import read_blindness

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


def test_people_who_ask_at_the_same_moment_get_different_tasks_with_masks_or_on_purpose_without(
    people, settings, labels, project
):
    blindness = read_blindness(settings, load_params(settings.params_path), list(list_tasks(labels, project)))
    with ThreadPoolExecutor(PEOPLE) as pool:
        tasks = list(pool.map(lambda person: person.next_task(project), people))

    assert len({task["id"] for task in tasks}) == PEOPLE
    assert all(len(task["predictions"]) == 1 for task in tasks)
    for task in list_tasks(labels, project, only=[task["id"] for task in tasks]):
        [shown] = [handed["predictions"][0]["result"] for handed in tasks if handed["id"] == task.id]
        assert not (shown and blindness.is_blind(task))


def test_a_photo_that_judges_models_waits_without_masks(stack_after_two_rounds, settings, labels, project):
    params = load_params(settings.params_path)
    files = (squares(number) for number in range(100))  # a photo that no catalogue knows is its own group
    data = next(file for file in files if split_of_group(sha256_hex(file), params.split) == "test")
    name = f"{settings.source_prefix}judge.png"
    photo = gcs.put(gcs.connect(settings), settings.source_bucket, name, data, "image/png")
    stack_after_two_rounds.run("ingest")
    said = stack_after_two_rounds.run("prelabel")

    tasks = list(list_tasks(labels, project))
    [task] = [task for task in tasks if task.image.uri == photo.uri]
    assert read_blindness(settings, params, tasks).judges(task)
    [shown] = labels.get(f"/api/tasks/{task.id}/")["predictions"]
    assert (shown["result"], 0 < shown["score"] < 1) == ([], True)
    assert "to be drawn blind" in said


def squares(number: int) -> bytes:
    """A picture of coloured squares that looks like no other."""
    file, random = io.BytesIO(), np.random.default_rng(number)
    Image.fromarray(random.integers(0, 256, (12, 8, 3)).astype(np.uint8)).resize((80, 120), 0).save(file, "PNG")
    return file.getvalue()


def test_the_queue_tab_hands_out_the_lowest_scores_first(settings, labels, project):
    """Three people, who hold nothing yet, ask as the tab does when somebody labels «as displayed»."""
    password = settings.label_studio_password.get_secret_value()
    people = [Labeler(settings.url("label_studio"), f"tab-{n}@maskloop.local", password) for n in range(3)]
    [view] = [v for v in labels.get("/api/dm/views", project=project) if v["data"]["title"] == QUEUE_TITLE]
    body = {"ordering": view["data"]["ordering"], "filters": view["data"]["filters"]}
    free = [
        t.id
        for t in list_tasks(labels, project)
        if t.prediction_versions and not t.opened and t.id not in locked_tasks(labels, project)
    ]
    scores = {id: labels.get("/api/predictions/", task=id)[0]["score"] for id in free}

    handed = [person.next_task(project, body) for person in people]

    assert [task["id"] for task in handed] == sorted(scores, key=lambda id: scores[id])[:3]


@contextmanager
def as_if_of_the_other_model(labels, prediction):
    """Let a task's prediction be of the other of the two models, and put it back at the end.

    Which of them serves is the gate's decision.
    """
    version = "clothing:v2" if prediction["model_version"] == "clothing:v1" else "clothing:v1"
    result = [{**region, "id": region_id(version, str(n))} for n, region in enumerate(prediction["result"])]
    older = {"result": result, "model_version": version}
    labels.patch(f"/api/predictions/{prediction['id']}/", older)
    yield {**prediction, **older}
    now = {name: prediction[name] for name in older}
    labels.patch(f"/api/predictions/{prediction['id']}/", now)


def test_a_task_in_somebodys_hands_keeps_its_masks_after_a_promotion(
    stack_after_two_rounds, settings, people, labels, project
):
    task = people[0].next_task(project)
    assert task["id"] in locked_tasks(labels, project)
    with as_if_of_the_other_model(labels, task["predictions"][0]) as shown:
        stack_after_two_rounds.run("prelabel")

        [kept] = labels.get("/api/predictions/", task=task["id"])
        assert (kept["id"], kept["model_version"], kept["result"]) == (
            shown["id"],
            shown["model_version"],
            shown["result"],
        )
        again = people[0].next_task(project)
        assert (again["id"], [p["id"] for p in again["predictions"]]) == (task["id"], [shown["id"]]), "nothing vanishes"


def test_work_on_a_photo_that_nobody_was_handed_survives_a_promotion(stack_after_two_rounds, people, labels, project):
    """Masks are brought up to date while somebody looks at the photo; who submits from the older ones can."""
    held = locked_tasks(labels, project)
    free = [t for t in list_tasks(labels, project) if t.prediction_versions and not t.opened and t.id not in held]
    masks = tasks_with_masks(labels, project, [t.id for t in free])
    looked_at = next(t for t in free if t.id in masks)
    [shown] = labels.get("/api/predictions/", task=looked_at.id)
    with as_if_of_the_other_model(labels, shown) as older:
        stack_after_two_rounds.run("prelabel")

        [updated] = labels.get("/api/predictions/", task=looked_at.id)
        assert (updated["id"], updated["model_version"]) == (shown["id"], shown["model_version"])
    people[0].submit({"id": looked_at.id, "project": project, "predictions": [older]}, older["result"], 5.0)
    [annotated] = export_tasks(labels, project, [looked_at.id])
    [raw] = annotated["annotations"]
    assert prediction_version_of(raw) == older["model_version"]
    assert not started_from_its_prediction(raw)


def test_events_of_label_studio_reach_the_services_with_their_login(settings, labels, project):
    hooks = [hook for hook in labels.get("/api/webhooks/", project=project) if hook["url"].endswith("/webhook")]

    assert {hook["url"] for hook in hooks} == {
        f"{settings.url(service)}/webhook" for service in ("segmentation", "segment_anything")
    }
    assert all(hook["headers"]["Authorization"].startswith("Basic ") for hook in hooks)
