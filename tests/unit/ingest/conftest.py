"""An archive of two photos, and a Label Studio that answers from a list of tasks."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from google.cloud.storage import Client
from PIL import Image

from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.ingest.report import IngestReport
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.params import Params
from pipelines.records import CATALOG_COLUMNS
from pipelines.settings import Settings

Run = Callable[[], IngestReport]


class LabelStudio:
    """Keeps tasks the way Label Studio's API shows them; counts deleted predictions."""

    def __init__(self, title: str) -> None:
        self.title, self.tasks, self.predictions_deleted = title, [], []
        self.clock = "2026-01-01T00:00:00Z"
        self.copies_connected = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        match request.method, request.url.path:
            case "GET", "/api/projects/":
                answer = {"results": [{"id": 1, "title": self.title}], "next": None}
            case "GET", "/api/tasks":
                query = json.loads(request.url.params.get("query") or "{}")
                wanted = query.get("selectedItems", {}).get("included")
                shown = [task for task in self.tasks if wanted is None or task["id"] in wanted]
                answer = {"tasks": [{"updated_at": self.clock, **task} for task in shown], "total": len(shown)}
            case "POST", "/api/projects/1/import":
                first = len(self.tasks) + 1
                self.tasks += [{"id": first + place, "data": one["data"]} for place, one in enumerate(body)]
                answer = {"task_count": len(body)}
            case "PATCH", path if path.startswith("/api/tasks/"):
                [task] = [task for task in self.tasks if str(task["id"]) == path.split("/")[3]]
                task["data"] = body["data"]
                answer = task
            case "DELETE", path if path.startswith("/api/tasks/"):
                self.tasks = [task for task in self.tasks if str(task["id"]) != path.split("/")[3]]
                return httpx.Response(204)
            case "POST", "/api/dm/actions":
                self.predictions_deleted += body["selectedItems"]["included"]
                answer = {"processed_items": 1}
            case _:
                return httpx.Response(404)
        return httpx.Response(200, json=answer)


def png(shade: int, height: int = 30, width: int = 20) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), shade, np.uint8)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    name = uuid4().hex[:12]
    return Settings(
        _env_file=None, var=tmp_path, source_bucket=f"archive-{name}", source_prefix="photos/",
        target_bucket=f"labels-{name}",
    )  # fmt: skip


@pytest.fixture
def archive_of_two(bucket_client: Client, settings: Settings) -> Settings:
    """A bucket with a catalogue, two photos, a text among them, and a photo elsewhere; gives its settings."""
    for bucket in (settings.source_bucket, settings.target_bucket):
        gcs.ensure_bucket(bucket_client, bucket)
    rows = [",".join(CATALOG_COLUMNS), "a,1999,Autumn,,,,Look 1,,,", "a,,,,,,,,,coat"]
    put(bucket_client, settings, settings.catalog, "\n".join(rows).encode())
    put(bucket_client, settings, "photos/a.png", png(10))
    put(bucket_client, settings, "photos/b.PNG", png(20, 50, 40))
    put(bucket_client, settings, "photos/notes.txt", b"hello")
    put(bucket_client, settings, "elsewhere/c.png", png(30))
    return settings


@pytest.fixture
def label_studio(params: Params) -> LabelStudio:
    return LabelStudio(params.project.title)


@pytest.fixture
def labels(label_studio: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> LabelStudioClient:
    """A client of the scripted Label Studio; tests/integration connects the copies' bucket to a real one."""
    monkeypatch.setattr(
        "pipelines.ingest.pipeline.connect_copies",
        lambda client, project, settings: label_studio.copies_connected.append(settings.target_bucket),
    )
    return LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(label_studio))


@pytest.fixture
def run(bucket_client: Client, labels: LabelStudioClient, archive_of_two: Settings, params: Params) -> Run:
    """Ingest the archive of two."""
    return lambda: ingest(bucket_client, labels, archive_of_two, params)


def put(client: Client, settings: Settings, name: str, data: bytes) -> None:
    gcs.put(client, settings.source_bucket, name, data, "application/octet-stream")


def counts(report: IngestReport) -> tuple[int, int, int, int, int]:
    """Return new, changed, unchanged, set aside and ignored, and check that they add up to what was listed."""
    ignored = sum(report.ignored.values())
    outcome = (report.created, report.updated, report.unchanged, len(report.problems), ignored)
    assert report.listed == sum(outcome) + report.moved + report.unread
    return outcome
