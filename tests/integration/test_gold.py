"""Photos that several people draw, in a real Label Studio: gold photos, with and without a wrong region on purpose, and
the share that is drawn twice.
"""

import numpy as np
import pytest

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.pipeline import sync
from pipelines.dataset.published import Published
from pipelines.demo.labelers import Labeler
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.annotations import export_tasks
from pipelines.labelstudio.planted import is_planted
from pipelines.labelstudio.project import overlap_fields, show_predictions_of
from pipelines.labelstudio.render import region_json
from pipelines.models.registry import Registry
from pipelines.params import load_params
from pipelines.quality.metrics import as_tables
from pipelines.quality.planted import MissRate
from pipelines.quality.review import review
from pipelines.records import ModelVersion, RegionMask
from tests.integration.test_loop import png


def coat(rows: int) -> list[dict]:
    """A coat over the first rows of a 60×40 photo."""
    mask = np.zeros((60, 40), bool)
    mask[:rows] = True
    return [{**region_json(RegionMask("coat", mask, 1.0), f"coat-{rows}"), "origin": "manual"}]


@pytest.fixture(scope="module")
def gold(make_archive):
    """An archive of two photos: an expert drew both and marked one as the truth, and somebody else took what came."""
    archive = make_archive("gold")
    for number, blue in enumerate((40, 200)):
        archive.upload(f"gold-{number}.png", png(60, 40, (200, 30, blue)))
    params = load_params(archive.settings.params_path)
    assert ingest(archive.bucket, archive.labels, archive.settings, params).created == 2
    password = archive.settings.label_studio_password.get_secret_value()
    url = archive.settings.url("label_studio")
    expert, other = (Labeler(url, f"{name}@maskloop.local", password) for name in ("expert", "novice"))
    drawn = []
    while task := expert.next_task(archive.project):
        expert.submit(task, coat(30), 5.0)
        drawn.append(task["id"])
    [exported] = export_tasks(archive.labels, archive.project, drawn[:1])
    archive.labels.patch(f"/api/annotations/{exported['annotations'][0]['id']}/", {"ground_truth": True})
    assert sync(archive.bucket, archive.labels, archive.settings)
    _review(archive)
    handed = []
    while (task := other.next_task(archive.project)) and len(handed) < 5:
        other.submit(task, coat(20), 5.0)
        handed.append(task["id"])
    sync(archive.bucket, archive.labels, archive.settings)
    return archive, drawn, handed, exported["data"]["sha256"]


def _review(archive, registry=None):
    published = Published.of(archive.settings)
    params = load_params(archive.settings.params_path)
    return review(archive.settings, published, registry or Registry(archive.settings), archive.labels, params)


def test_the_gold_photo_is_assigned_once_more_and_no_other(gold) -> None:
    _, drawn, handed, _ = gold
    assert handed == drawn[:1]


def test_the_truth_alone_makes_the_mask(gold) -> None:
    archive, _, _, photo = gold
    mask = Dataset(archive.settings.workspace_path).read_mask(photo)
    assert (mask > 0).any(axis=1).sum() == 30


def test_people_are_scored_against_the_truth(gold) -> None:
    archive, _, _, _ = gold

    found = _review(archive)

    assert found.agreement.gold_of_person == {"novice@maskloop.local": (1, pytest.approx(20 / 30))}
    assert len(as_tables(found)) == 2


class WithChampion:
    """A registry whose champion serves; of how it was trained nothing is known."""

    def champion(self) -> ModelVersion:
        return ModelVersion("clothing", 1, "run", "", 0.5, promoted=True)


@pytest.fixture(scope="module")
def planted(make_archive):
    """An archive of two gold photos, and a third that shows a skirt: two people were handed the gold photos again.

    One submitted what was there, the other threw the wrong region away.
    """
    archive = make_archive("planted")
    for number, blue in enumerate((40, 120, 200)):
        archive.upload(f"planted-{number}.png", png(60, 40, (30, 200, blue)))
    ingest(archive.bucket, archive.labels, archive.settings, load_params(archive.settings.params_path))
    password = archive.settings.label_studio_password.get_secret_value()
    url = archive.settings.url("label_studio")
    expert, careless, careful = (
        Labeler(url, f"{name}@maskloop.local", password) for name in ("expert", "careless", "careful")
    )
    drawn = []
    while task := expert.next_task(archive.project):
        expert.submit(task, coat(30) if len(drawn) < 2 else [*coat(10), skirt()], 5.0)
        drawn.append(task["id"])
    for exported in export_tasks(archive.labels, archive.project, drawn[:2]):
        archive.labels.patch(f"/api/annotations/{exported['annotations'][0]['id']}/", {"ground_truth": True})
    assert sync(archive.bucket, archive.labels, archive.settings)
    _review(archive, WithChampion())
    show_predictions_of(archive.labels, archive.project, "clothing:v1")
    shown = {}
    for person in (careless, careful):
        task = person.next_task(archive.project)
        [prediction] = task["predictions"]
        shown[task["id"]] = prediction["result"]
        kept = [one for one in prediction["result"] if person is careless or not one["id"].startswith("planted")]
        person.submit(task, [{**one, "origin": "prediction"} for one in kept], 5.0)
    assert careless.next_task(archive.project) is None, "each gold photo is assigned once more"
    sync(archive.bucket, archive.labels, archive.settings)
    return archive, drawn[:2], shown


def skirt() -> dict:
    """A skirt at the bottom of a 60×40 photo."""
    mask = np.zeros((60, 40), bool)
    mask[50:56, 5:30] = True
    return {**region_json(RegionMask("skirt", mask, 1.0), "skirt"), "origin": "manual"}


def test_gold_photos_show_the_truth_and_one_wrong_region(planted) -> None:
    _, gold, shown = planted
    assert sorted(shown) == sorted(gold)
    for result in shown.values():
        assert [(one["id"], one["value"]["brushlabels"]) for one in result] == [
            ("gold--coat", ["coat"]), ("planted--skirt", ["skirt"])
        ]  # fmt: skip


def test_who_left_the_wrong_region_is_told_and_neither_mask_enters_the_dataset(planted) -> None:
    archive, gold, _ = planted

    found = _review(archive, WithChampion())

    assert found.missed == {
        "careful@maskloop.local": MissRate(1, 0), "careless@maskloop.local": MissRate(1, 1)
    }  # fmt: skip
    assert found.agreement.photos == 0, "who starts from the truth agrees with it"
    assert "Planted errors" in str(as_tables(found)[-1].title)
    manifest = Published.of(archive.settings).manifest(found.dataset)
    assert set(manifest["annotators"].explode()) == {"expert@maskloop.local"}
    for task in gold:
        [prediction] = archive.labels.get("/api/predictions/", task=task)
        assert not is_planted(prediction["result"]), "nobody else shall begin with it"


def test_a_photo_that_is_gold_no_more_keeps_its_mask(planted) -> None:
    archive, gold, _ = planted
    for exported in export_tasks(archive.labels, archive.project, gold):
        for annotation in exported["annotations"]:
            archive.labels.patch(f"/api/annotations/{annotation['id']}/", {"ground_truth": False})

    sync(archive.bucket, archive.labels, archive.settings)

    for exported in export_tasks(archive.labels, archive.project, gold):
        mask = Dataset(archive.settings.workspace_path).read_mask(exported["data"]["sha256"])
        assert set(np.unique(mask)) == {0, load_params(archive.settings.params_path).label_ids["coat"]}
        assert (mask > 0).any(axis=1).sum() == 30
    manifest = Published.of(archive.settings)
    assert set(manifest.manifest(manifest.newest())["annotators"].explode()) == {"expert@maskloop.local"}


def test_a_share_of_the_photos_is_drawn_by_two_people(make_archive) -> None:
    archive = make_archive("overlap")
    for number in range(4):
        archive.upload(f"overlap-{number}.png", png(60, 40, (20 + 50 * number, 30, 200)))
    archive.labels.patch(f"/api/projects/{archive.project}/", overlap_fields(0.5))
    ingest(archive.bucket, archive.labels, archive.settings, load_params(archive.settings.params_path))
    password = archive.settings.label_studio_password.get_secret_value()
    drawn = {}
    for name in ("first", "second"):
        person = Labeler(archive.settings.url("label_studio"), f"{name}@maskloop.local", password)
        drawn[name] = []
        while (task := person.next_task(archive.project)) and len(drawn[name]) < 9:
            person.submit(task, coat(30), 5.0)
            drawn[name].append(task["id"])

    assert len(drawn["first"]) == 4
    assert len(drawn["second"]) == 2
    assert set(drawn["second"]) < set(drawn["first"])
