"""Photos with more megapixels than the editor is fast with: their tasks show smaller copies."""

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from google.cloud.storage import Client
from PIL import Image

from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.ingest.report import IngestReport
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import parse_image, parse_metadata
from pipelines.params import Params
from pipelines.photos.decode import decode_image
from pipelines.records import RegionMask
from pipelines.settings import Settings
from tests.unit.ingest.conftest import LabelStudio, counts, put
from tests.unit.ingest.test_moves import move

LIMIT = 0.0015  # megapixels: of the photos in the archive, that of 50×40 pixels has more, that of 30×20 fewer
Ingest = Callable[..., IngestReport]


class Studio(LabelStudio):
    """A Label Studio that keeps predictions by task as well, and tells which tasks somebody was served."""

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.predictions: dict[int, list[dict[str, Any]]] = {}
        self.locked: set[int] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params.get("query") or ""
        if request.url.path == "/api/predictions/":
            return httpx.Response(200, json=self.predictions.get(int(request.url.params["task"]), []))
        if request.url.path.startswith("/api/predictions/"):
            stored = [prediction for of_task in self.predictions.values() for prediction in of_task]
            [prediction] = [one for one in stored if f"/{one['id']}/" in request.url.path]
            prediction |= json.loads(request.content)
            return httpx.Response(200, json=prediction)
        if "locks__expire_at" in query:
            tasks = [task for task in self.tasks if task["id"] in self.locked]
            return httpx.Response(200, json={"tasks": tasks, "total": len(tasks)})
        return super().__call__(request)


@pytest.fixture
def label_studio(params: Params) -> Studio:
    return Studio(params.project.title)


@pytest.fixture
def studio(label_studio: Studio) -> Studio:
    return label_studio


@pytest.fixture
def run(bucket_client: Client, labels: LabelStudioClient, archive_of_two: Settings, params: Params) -> Ingest:
    """Ingest the archive with a limit of megapixels."""

    def ingest_with(megapixels: float = LIMIT, **more: Any) -> IngestReport:
        section = params.ingest.model_copy(update={"editor_megapixels": megapixels})
        return ingest(bucket_client, labels, archive_of_two, params.model_copy(update={"ingest": section}), **more)

    return ingest_with


def jpeg(height: int, width: int, orientation: int = 1) -> bytes:
    """A photo that is red above and blue below when it stands as its file stores it."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0], pixels[height // 2 :, :, 2] = 200, 200
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def task_of(studio: Studio, name: str) -> dict[str, Any]:
    [task] = [task for task in studio.tasks if parse_image(task["data"]).uri.endswith(name)]
    return task


def copies(client: Client, settings: Settings) -> dict[str, np.ndarray]:
    return {
        ref.name.removeprefix("copies/"): decode_image(gcs.read(client, ref))
        for ref in gcs.list_objects(client, settings.target_bucket, "copies/")
    }


def test_the_task_of_a_large_photo_shows_a_copy_of_its_shape(
    bucket_client: Client, run: Ingest, studio: Studio, archive_of_two: Settings
) -> None:
    report = run()

    assert counts(report) == (2, 0, 0, 0, 1)
    image = parse_image(task_of(studio, "b.PNG")["data"])
    assert (image.height, image.width, image.shown_size) == (50, 40, (43, 34))
    name = f"{image.sha256}.34x43.jpg"
    assert image.shown == f"gs://{archive_of_two.target_bucket}/copies/{name}"
    assert {name: picture.shape for name, picture in copies(bucket_client, archive_of_two).items()} == {
        name: (43, 34, 3)
    }
    assert studio.copies_connected == [archive_of_two.target_bucket]
    assert not {"shown_height", "shown_width"} & parse_metadata(task_of(studio, "b.PNG")["data"]).keys()


def test_photos_within_the_limit_are_shown_themselves(run: Ingest, studio: Studio) -> None:
    run()

    data = task_of(studio, "a.png")["data"]
    assert data["image"].endswith("photos/a.png")
    assert not {"original", "shown_height", "shown_width"} & data.keys()


def test_the_copy_stands_upright(bucket_client: Client, run: Ingest, studio: Studio, archive_of_two: Settings) -> None:
    put(bucket_client, archive_of_two, "photos/turned.jpg", jpeg(40, 60, orientation=6))

    run()

    image = parse_image(task_of(studio, "turned.jpg")["data"])
    picture = copies(bucket_client, archive_of_two)[image.shown.rpartition("/")[2]]
    assert (image.height, image.width) == (60, 40)
    assert picture.shape[:2] == image.shown_size == (47, 31)
    assert picture[:, -5, 0].min() > 150, "what the file has above is on the right"
    assert picture[:, 5, 2].min() > 150


def test_a_second_run_reads_nothing_again(run: Ingest) -> None:
    run()

    assert (counts(run()), run().copied) == ((0, 0, 2, 0, 1), 0)


class TestTasksFromBefore:
    """Tasks that show a large photo at its own size."""

    @pytest.fixture(autouse=True)
    def tasks(self, run: Ingest, studio: Studio) -> None:
        assert run(0).created == 2
        assert "original" not in task_of(studio, "b.PNG")["data"]

    def test_one_that_nobody_opened_moves_to_a_copy_with_its_masks(self, run: Ingest, studio: Studio) -> None:
        mask = np.zeros((50, 40), bool)
        mask[10:30, 5:25] = True
        task = task_of(studio, "b.PNG")
        region = region_json(RegionMask("coat", mask, 0.8), "clothing_3av1--coat")
        studio.predictions[task["id"]] = [{"id": 4, "model_version": "clothing:v1", "result": [region]}]

        report = run()

        assert (report.copied, report.unchanged, report.created) == (1, 2, 0)
        assert "1 shown smaller now" in report.total
        assert parse_image(task["data"]).shown_size == (43, 34)
        assert task["data"]["name"] == "–", "the catalogue's part stays"
        [resized] = studio.predictions[task["id"]][0]["result"]
        assert (resized["original_height"], resized["original_width"]) == (43, 34)
        assert rle_to_mask(resized["value"]["rle"], 43, 34).mean() == pytest.approx(mask.mean(), abs=0.02)
        assert resized["id"] == region["id"]
        assert run().copied == 0

    @pytest.mark.parametrize("work", [{"drafts": [{"id": 1}]}, {"total_annotations": 1}, {"cancelled_annotations": 1}])
    def test_one_on_which_somebody_worked_keeps_the_photo(
        self, run: Ingest, studio: Studio, work: dict[str, Any]
    ) -> None:
        task = task_of(studio, "b.PNG")
        task |= work
        before = dict(task["data"])

        assert run().copied == 0
        assert task["data"] == before

    def test_one_that_was_served_to_somebody_waits(self, run: Ingest, studio: Studio) -> None:
        task = task_of(studio, "b.PNG")
        studio.locked = {task["id"]}
        assert run().copied == 0

        studio.locked = set()
        assert run().copied == 1

    def test_a_photo_that_moves_keeps_the_size_on_which_people_drew(
        self, bucket_client: Client, run: Ingest, studio: Studio, archive_of_two: Settings
    ) -> None:
        task = task_of(studio, "b.PNG")
        task["total_annotations"] = 1
        move(bucket_client, archive_of_two, "photos/b.PNG", "photos/x/b.png")

        assert run().moved == 1
        image = parse_image(task["data"])
        assert (image.uri.rpartition("photos/")[2], image.shown, image.shown_size) == ("x/b.png", "", (50, 40))

    def test_a_photo_that_moves_before_anybody_opened_it_gets_its_copy(
        self, bucket_client: Client, run: Ingest, studio: Studio, archive_of_two: Settings
    ) -> None:
        move(bucket_client, archive_of_two, "photos/b.PNG", "photos/x/b.png")

        assert run().moved == 1
        assert parse_image(task_of(studio, "x/b.png")["data"]).shown_size == (43, 34)

    def test_without_a_limit_nothing_moves(self, run: Ingest) -> None:
        assert run(0).copied == 0

    def test_photos_with_masks_from_elsewhere_keep_their_size(self, run: Ingest, studio: Studio) -> None:
        sha256 = parse_image(task_of(studio, "b.PNG")["data"]).sha256

        assert run(full_size=[sha256]).copied == 0
        assert "original" not in task_of(studio, "b.PNG")["data"]


def test_another_limit_makes_another_copy_for_whom_nobody_worked(
    bucket_client: Client, run: Ingest, studio: Studio, archive_of_two: Settings
) -> None:
    run()

    assert run(LIMIT / 2).copied == 1
    image = parse_image(task_of(studio, "b.PNG")["data"])
    assert image.shown_size == (30, 24)
    assert len(copies(bucket_client, archive_of_two)) == 2, "whoever has the other one open goes on seeing it"
