"""Embedding ahead, between a scripted Label Studio and a scripted Segment Anything service."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from pipelines.errors import ServiceError
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params
from pipelines.prelabel.embed import count_ready, embed_ahead
from pipelines.records import ImageRef
from pipelines.settings import Settings

Asked = list[dict[str, Any]]


class Encoder(BaseHTTPRequestHandler):
    """Encodes every photo but those whose name says that they are broken."""

    asked: Asked
    encoded: set[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        photos = [task["data"]["image"] for task in body["tasks"]]
        if body["compute"]:
            self.encoded.update(photo for photo in photos if "broken" not in photo)
        problems = {n: "the file ends early" for n, photo in enumerate(photos) if body["compute"] and "broken" in photo}
        answer = json.dumps({"ready": [photo in self.encoded for photo in photos], "problems": problems}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def encoder() -> Iterator[tuple[Settings, Asked]]:
    asked: Asked = []
    handler = type("Handler", (Encoder,), {"asked": asked, "encoded": set()})
    server = HTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield Settings(segment_anything_url=f"http://127.0.0.1:{server.server_port}"), asked
    server.shutdown()
    server.server_close()


def task(task_id: int, name: str = "", **fields: Any) -> dict[str, Any]:
    photo = ImageRef(f"gs://archive/{name or task_id}.jpg", 1, "ab" * 32, 4, 6)
    return {"id": task_id, "data": task_data(photo, {}), **fields}


@pytest.fixture
def studio_with(label_studio: Callable[..., Any], two_labels: Params) -> Callable[..., Any]:
    """Make a Label Studio whose project has these tasks."""

    def make(*tasks: dict[str, Any]) -> Any:
        project = {"id": 7, "title": two_labels.project.title}
        listing = {"total": len(tasks), "tasks": list(tasks)}
        client, _ = label_studio(
            {"GET /api/projects/": [{"results": [project], "next": None}] * 2, "GET /api/tasks": [listing] * 2}
        )
        return client

    return make


def test_the_next_photos_of_the_queue_are_encoded_one_by_one(encoder, studio_with, two_labels: Params) -> None:
    settings, asked = encoder
    few = two_labels.model_copy(update={"embed": two_labels.embed.model_copy(update={"ahead": 2})})
    client = studio_with(task(1, total_annotations=1), task(2), task(3, drafts=[{}]), task(4), task(5))

    report = embed_ahead(client, settings, few)

    assert (report.queued, report.ready, report.problems) == (2, 2, {})
    assert [[task["id"] for task in body["tasks"]] for body in asked] == [[2], [4]]


def test_a_broken_photo_is_reported_and_stops_no_other(encoder, studio_with, two_labels: Params) -> None:
    report = embed_ahead(studio_with(task(1, "broken"), task(2)), encoder[0], two_labels)

    assert (report.queued, report.ready) == (2, 1)
    assert report.problems == {1: "the file ends early"}


def test_counting_encodes_nothing(encoder, studio_with, two_labels: Params) -> None:
    settings, asked = encoder
    client = studio_with(task(1), task(2))

    assert count_ready(client, settings, two_labels).ready == 0
    assert [body["compute"] for body in asked] == [False]
    embed_ahead(client, settings, two_labels)
    assert count_ready(studio_with(task(1), task(2)), settings, two_labels).ready == 2


def test_an_empty_queue_asks_nobody(encoder, studio_with, two_labels: Params) -> None:
    settings, asked = encoder

    assert count_ready(studio_with(), settings, two_labels).queued == 0
    assert asked == []


def test_a_service_out_of_reach_is_named_with_the_remedy(studio_with, two_labels: Params, free_port: int) -> None:
    settings = Settings(segment_anything_url=f"http://127.0.0.1:{free_port}")

    with pytest.raises(ServiceError, match=r"segment-anything service .* MASKLOOP_SEGMENT_ANYTHING_URL"):
        embed_ahead(studio_with(task(1)), settings, two_labels)
