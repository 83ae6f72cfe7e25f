"""Photos that judge models in a real Label Studio, from their split to the compiled mask: nobody sees any masks."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.pipeline import sync
from pipelines.dataset.split import BLIND_SPLITS, splits_of
from pipelines.demo.labelers import Labeler
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.annotations import export_tasks, prediction_version_of
from pipelines.labelstudio.predictions import empty_prediction, push_predictions
from pipelines.labelstudio.project import show_predictions_of
from pipelines.labelstudio.render import region_id, region_json
from pipelines.labelstudio.tasks import list_tasks, tasks_with_masks
from pipelines.params import load_params
from pipelines.prelabel.blind import Blindness, open_for_blind_work
from pipelines.records import RegionMask

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
VERSION = "clothing:v1"
FIRST, SECOND = 40, 20  # rows of the coats that a model, and a person without its help, draw on photos of 60×40


def coat(rows: int, name: str) -> dict:
    mask = np.zeros((60, 40), bool)
    mask[:rows] = True
    return region_json(RegionMask("coat", mask, 1.0), name)


def photo(number: int) -> bytes:
    """A picture of coloured squares that looks like no other."""
    squares = np.random.default_rng(number).integers(0, 256, (12, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.kron(squares, np.ones((5, 5, 1), np.uint8))).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def labelled(make_archive):
    """An archive of seven collections, all drawn by one person, and the splits that were known before.

    The coats that a model proposes on photos of the split train are left as they are.
    """
    archive = make_archive("blind")
    for number in range(7):
        archive.upload(f"blind-{number}.png", photo(number))
    params = load_params(archive.settings.params_path)
    assert ingest(archive.bucket, archive.labels, archive.settings, params).created == 7
    tasks = list(list_tasks(archive.labels, archive.project))
    splits = splits_of(tasks, None, params.split)
    masks = {"result": [coat(FIRST, region_id(VERSION, "coat"))], "score": 0.5, "model_version": VERSION}
    blind = {task.id for task in tasks if splits[task.image.sha256] in BLIND_SPLITS}
    predictions = {task.id: empty_prediction(VERSION, 0.5) if task.id in blind else masks for task in tasks}
    assert push_predictions(archive.labels, archive.project, predictions) == 7
    assert tasks_with_masks(archive.labels, archive.project, list(predictions)) == set(predictions) - blind
    show_predictions_of(archive.labels, archive.project, VERSION)
    ada = person(archive, "ada")
    while task := ada.next_task(archive.project):
        [shown] = task["predictions"]
        ada.submit(task, shown["result"] or [{**coat(SECOND, "hand"), "origin": "manual"}], 5.0)
    assert sync(archive.bucket, archive.labels, archive.settings)
    return archive, splits, ada


def person(archive, name: str) -> Labeler:
    password = archive.settings.label_studio_password.get_secret_value()
    return Labeler(archive.settings.url("label_studio"), f"blind-{name}@maskloop.local", password)


def manifest_of(archive) -> pd.DataFrame:
    return pd.read_parquet(archive.settings.workspace_path / MANIFEST).set_index("sha256")


def test_the_splits_are_those_that_were_known_before_and_judge_by_blind_masks(labelled):
    archive, splits, _ = labelled
    manifest = manifest_of(archive)

    assert dict(manifest["split"]) == splits
    assert set(splits.values()) >= {"train", "test"}
    assert (manifest["blind"] == manifest["split"].isin(BLIND_SPLITS)).all()
    assert set(manifest.loc[~manifest["blind"], "prediction_version"]) == {VERSION}


def test_a_photo_drawn_from_masks_is_drawn_again_by_somebody_who_is_shown_nothing(labelled):
    archive, splits, ada = labelled
    task = next(t for t in list_tasks(archive.labels, archive.project) if splits[t.image.sha256] == "train")
    photo = task.image.sha256
    as_in_older_versions = Blindness({photo: "test"}, {}, frozenset({photo}), False, 0.0)

    def open_again() -> int:
        [now] = list_tasks(archive.labels, archive.project, only=[task.id])
        return open_for_blind_work(archive.labels, archive.project, [now], as_in_older_versions, VERSION, set())

    assert (open_again(), open_again()) == (1, 1)
    assert ada.next_task(archive.project) is None, "who drew it first does not get it"
    bob = person(archive, "bob")
    handed = bob.next_task(archive.project)
    assert handed["id"] == task.id
    assert [shown["result"] for shown in handed["predictions"]] == [[]]
    assert (handed["annotations"], handed["drafts"]) == ([], [])
    bob.submit(handed, [{**coat(SECOND, "hand"), "origin": "manual"}], 5.0)
    [exported] = export_tasks(archive.labels, archive.project, [task.id])
    versions = {prediction_version_of(raw) for raw in exported["annotations"]}
    assert versions == {VERSION, ""}
    assert open_again() == 0, "it was drawn blind"

    assert sync(archive.bucket, archive.labels, archive.settings)
    row = manifest_of(archive).loc[photo]
    assert (row["blind"], row["split"], len(row["annotations"])) == (True, "train", 1)
    mask = Dataset(archive.settings.workspace_path).read_mask(photo)
    assert (mask > 0).any(axis=1).sum() == SECOND
