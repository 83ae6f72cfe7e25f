"""Photos and people leave a real Label Studio, its database and its exports, and do not come back."""

import io
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from pipelines.dataset.pipeline import sync
from pipelines.dataset.published import Published
from pipelines.exchange.importer import regions_of
from pipelines.forget.find import find_people, find_photos
from pipelines.forget.forget import Stores, acquainted, forget
from pipelines.forget.subjects import Subjects
from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.people import list_accounts
from pipelines.labelstudio.tasks import list_tasks
from pipelines.models.registry import Registry
from pipelines.params import load_params

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 40, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def labelled(make_archive) -> Any:
    """An archive of three photos, with a dataset version; one photo is drawn by a person of its own."""
    archive = make_archive(f"forget-{uuid4().hex[:6]}")
    params = load_params(archive.settings.params_path)
    for number in range(3):
        archive.upload(f"{number}.png", png(number))
    assert ingest(archive.bucket, archive.labels, archive.settings, params).created == 3
    fields = {"email": "ada@example.org", "username": "ada", "first_name": "Ada", "last_name": "Lovelace"}
    accounts = {account.email: account.id for account in list_accounts(archive.labels)}
    person = accounts.get("ada@example.org") or archive.labels.post("/api/users/", fields)["id"]
    mask = np.zeros((60, 40), np.uint8)
    mask[10:40, 5:30] = 3
    for task in list_tasks(archive.labels, archive.project):
        body = {"result": regions_of(mask, params), "was_cancelled": False, "lead_time": 9}
        if task.image.uri.endswith("1.png"):
            body["completed_by"] = person
        archive.labels.post(f"/api/tasks/{task.id}/annotations/", body)
    archive.labels.post(f"/api/projects/{archive.project}/exports/", {"title": "by hand"})
    assert sync(archive.bucket, archive.labels, archive.settings).photos == 3
    return archive


def stores_of(archive: Any, settings: Any) -> Stores:
    params = load_params(settings.params_path)
    return Stores(archive.bucket, archive.labels, settings, params, lambda: Registry(settings))


def test_a_photo_leaves_everything_and_does_not_come_back(labelled) -> None:
    settings, params = labelled.settings, load_params(labelled.settings.params_path)
    stores = stores_of(labelled, settings)
    photos = find_photos(labelled.bucket, labelled.labels, settings, ["0.png"], Subjects())
    result = forget(stores, acquainted(stores, Subjects(photos, published=True)))

    assert result.problems == ()
    assert [(trace.store, trace.place) for trace in result.left if trace.what != "row of the catalogue"] == []
    assert len(list(list_tasks(labelled.labels, labelled.project))) == 2
    assert labelled.labels.get(f"/api/projects/{labelled.project}/exports/") in ([], {"results": []})
    assert len(Published.of(settings).manifest("dataset-0001")) == 2

    labelled.upload("renamed.png", png(0))
    report = ingest(labelled.bucket, labelled.labels, settings, params)
    assert [problem.reason for problem in report.problems] == ["forgotten"]
    version = sync(labelled.bucket, labelled.labels, settings)
    assert version is None or version.photos == 2


def test_a_person_leaves_the_database_and_annotations_stay(labelled, stack) -> None:
    """Label Studio's database is in the folder for state of the stack, not in the archive's."""
    update = {"var": stack.settings.var, "workspace": labelled.settings.workspace_path}
    settings = labelled.settings.model_copy(update=update)
    stores = stores_of(labelled, settings)
    people = find_people(labelled.labels, settings, ["Ada@Example.org"], Subjects())
    subjects = Subjects((), people, published=True)
    result = forget(stores, acquainted(stores, subjects))

    assert result.problems == ()
    database = stack.settings.var / "label-studio" / "label_studio.sqlite3"
    assert not subjects.pattern.search(database.read_bytes())
    pseudonym = people[0].pseudonym
    annotators = Published.of(settings).manifest("dataset-0001")["annotators"]
    assert sum(pseudonym in list(names) for names in annotators) == 1
    gcs.require_bucket(labelled.bucket, settings.target_bucket)
    sync(labelled.bucket, labelled.labels, settings)
    newest = Published.of(settings)
    assert "ada@example.org" not in str(newest.manifest(newest.newest()).to_dict())
