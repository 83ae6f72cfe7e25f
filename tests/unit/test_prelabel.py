"""The prelabel station between a scripted Label Studio and a scripted segmentation service."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from google.cloud.storage import Client

from pipelines.errors import ContractError, ServiceError
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params
from pipelines.prelabel import plan_batches, prelabel_batch
from pipelines.records import ImageRef
from pipelines.settings import Settings
from pipelines.storage import ensure_bucket

IMPORT = "POST /api/projects/7/import/predictions"
UPDATE = "PATCH /api/predictions/31/"
Serve = Callable[..., Settings]


@pytest.fixture
def serve(bucket_client: Client, bucket_server: str, tmp_path: Path) -> Iterator[Serve]:
    """Start a segmentation service that announces a version and labels and answers /predict as told."""
    servers, bucket = [], f"labels-{uuid4().hex[:12]}"
    ensure_bucket(bucket_client, bucket)

    def start(version: str, labels: tuple[str, ...] = ("coat", "dress"), predict: Any = None) -> Settings:
        answers = {"/setup": {"model_version": version, "labels": labels}, "/predict": predict}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps(answers[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}).start()
        return Settings(
            segmentation_url=f"http://127.0.0.1:{servers[-1].server_port}", var=tmp_path, target_bucket=bucket,
            storage_port=int(bucket_server.rpartition(":")[2]),
        )  # fmt: skip

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def task(task_id: int, versions: str = "", **fields: Any) -> dict[str, Any]:
    photo = ImageRef(f"gs://archive/{task_id}.jpg", 1, "ab" * 32, 4, 6)
    return {"id": task_id, "data": task_data(photo, {}), "predictions_model_versions": versions, **fields}


@pytest.fixture
def studio_with(label_studio, two_labels: Params):
    """Make a Label Studio whose project has the two labels and these tasks, some of them in people's hands.

    It is asked in turns which ones are, and for all of them.
    """

    def make(*tasks: dict[str, Any], created: int = 0, held: tuple[int, ...] = ()):
        project = {"id": 7, "title": two_labels.project.title, "model_version": "old"}
        offered = {"tag": {"labels": list(two_labels.label_ids)}}
        return label_studio(
            {
                "GET /api/projects/": [{"results": [project], "next": None}],
                "GET /api/projects/7/": [{**project, "parsed_label_config": offered}],
                "PATCH /api/projects/7/": [{}],
                "GET /api/tasks": [
                    {"total": len(held), "tasks": [task(number) for number in held]},
                    {"total": len(tasks), "tasks": list(tasks)},
                ]
                * 3,
                "GET /api/predictions/": [[{"id": 31}, {"id": 30}]],
                "DELETE /api/predictions/30/": [None],
                UPDATE: [{}],
                IMPORT: [{"created": created}],
            }
        )

    return make


def prediction(version: str = "clothing:v2") -> dict[str, Any]:
    return {"result": [], "score": 0.5, "model_version": version}


def test_without_a_champion_nothing_waits_and_label_studio_is_not_asked(
    serve: Serve, studio_with, two_labels: Params
) -> None:
    client, server = studio_with(task(1))

    assert plan_batches(client, serve("no-champion", ()), two_labels) == []
    assert server.asked == []


def test_unopened_tasks_without_this_models_prediction_wait(serve: Serve, studio_with, two_labels: Params) -> None:
    client, _ = studio_with(
        task(1),
        task(2, "clothing:v1"),
        task(3, "clothing:v2"),
        task(4, total_annotations=1),
        task(5, draft_exists=True),
    )

    assert plan_batches(client, serve("clothing:v2"), two_labels) == [[2, 1]], "what is outdated comes first"


def test_batches_have_the_size_of_the_parameters(serve: Serve, studio_with, two_labels: Params) -> None:
    two = two_labels.model_copy(update={"prelabel": two_labels.prelabel.model_copy(update={"batch_size": 2})})
    client, _ = studio_with(*(task(number) for number in range(1, 6)))

    assert plan_batches(client, serve("clothing:v2"), two) == [[1, 2], [3, 4], [5]]


def test_a_model_with_labels_that_are_no_more_would_lose_masks(serve: Serve, studio_with, two_labels: Params) -> None:
    client, _ = studio_with(task(1))

    with pytest.raises(ContractError, match=r"params.yaml does not have: cape\."):
        plan_batches(client, serve("clothing:v2", ("coat", "cape")), two_labels)


def test_a_label_that_the_model_does_not_know_yet_is_no_obstacle(serve: Serve, studio_with, two_labels: Params) -> None:
    client, _ = studio_with(task(1))

    assert plan_batches(client, serve("clothing:v2", ("coat",)), two_labels) == [[1]]


def test_a_kill_before_the_project_was_told_is_made_good(serve: Serve, studio_with, two_labels: Params) -> None:
    client, server = studio_with(task(1, "clothing:v2"))

    assert plan_batches(client, serve("clothing:v2"), two_labels) == []

    assert ("PATCH /api/projects/7/", {"model_version": "clothing:v2"}) in [(w, body) for w, _, body in server.asked]


def test_doubled_predictions_of_one_version_are_cleaned_up(serve: Serve, studio_with, two_labels: Params) -> None:
    client, _ = studio_with(task(1, "clothing:v2", total_predictions=2), task(2, "clothing:v2", total_predictions=1))

    assert plan_batches(client, serve("clothing:v2"), two_labels) == [[1]]


def test_a_photo_that_changed_while_it_was_predicted_gets_nothing(
    serve: Serve, studio_with, two_labels: Params
) -> None:
    client, server = studio_with(task(1))
    newer = ImageRef("gs://archive/1.jpg", 2, "cd" * 32, 4, 6)
    server.answers["GET /api/tasks"][3] = {"total": 1, "tasks": [{"id": 1, "data": task_data(newer, {})}]}
    settings = serve("clothing:v2", predict={"results": [prediction()], "model_version": "clothing:v2"})

    assert prelabel_batch(client, settings, two_labels, [1]).created == 0
    assert all(where.startswith("GET") for where, _, _ in server.asked)


def test_tasks_in_peoples_hands_keep_the_masks_they_started_from(serve: Serve, studio_with, two_labels: Params) -> None:
    client, server = studio_with(task(1), task(2, "clothing:v1"), task(3), held=(2, 3))

    assert plan_batches(client, serve("clothing:v2"), two_labels) == [[1]]

    client, server = studio_with(task(2, "clothing:v1"), held=(2,))
    prelabel_batch(client, serve("clothing:v2"), two_labels, [2])
    assert all(where.startswith("GET") for where, _, _ in server.asked)


def test_older_predictions_are_updated_in_their_place_and_problems_are_reported(
    serve: Serve, studio_with, two_labels: Params
) -> None:
    client, server = studio_with(task(1), task(2, "clothing:v1"), task(3, "clothing:v1"), created=1)
    answer = {
        "results": [prediction(), prediction(), {}],
        "model_version": "clothing:v2",
        "problems": {"2": "the photo is gone"},
    }

    report = prelabel_batch(client, serve("clothing:v2", predict=answer), two_labels, [1, 2, 3])

    assert (report.asked, report.created, report.problems) == (3, 2, {3: "the photo is gone"})
    changes = [(where, body) for where, _, body in server.asked if not where.startswith("GET")]
    assert [where for where, _ in changes] == [
        "DELETE /api/predictions/30/", UPDATE, IMPORT, "PATCH /api/projects/7/"
    ]  # fmt: skip
    assert changes[1][1] == prediction(), "of task 2, in the place of the newest; task 3 keeps what it has"
    assert [item["task"] for item in changes[2][1]] == [1]
    assert changes[3][1] == {"model_version": "clothing:v2"}


def test_tasks_that_were_opened_meanwhile_are_left_as_they_are(serve: Serve, studio_with, two_labels: Params) -> None:
    client, server = studio_with(task(1, total_annotations=1), task(2, "clothing:v2"))

    report = prelabel_batch(client, serve("clothing:v2"), two_labels, [1, 2])

    assert (report.asked, report.created) == (2, 0)
    assert all(where.startswith("GET") for where, _, _ in server.asked)


def test_an_answer_of_the_wrong_length_changes_nothing(serve: Serve, studio_with, two_labels: Params) -> None:
    client, server = studio_with(task(1, "clothing:v1"), task(2))
    settings = serve("clothing:v2", predict={"results": [prediction()], "model_version": "clothing:v2"})

    with pytest.raises(ServiceError, match="answered 1 results for 2 tasks"):
        prelabel_batch(client, settings, two_labels, [1, 2])
    assert all(where.startswith("GET") for where, _, _ in server.asked)


def test_a_service_that_is_down_is_named_with_the_remedy(free_port: int, studio_with, two_labels: Params) -> None:
    client, _ = studio_with(task(1))

    with pytest.raises(ServiceError, match="MASKLOOP_SEGMENTATION_URL"):
        plan_batches(client, Settings(segmentation_url=f"http://127.0.0.1:{free_port}"), two_labels)
