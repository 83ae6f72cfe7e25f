"""The service that pre-labels, over HTTP as Label Studio and the prelabel pipeline speak it."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from starlette.testclient import TestClient

from bentos.segment_anything.service import SegmentAnything
from bentos.segmentation.service import Segmentation
from pipelines.labelstudio.brush_rle import rle_to_mask
from pipelines.local_stack.services import read_procfile
from pipelines.records import NO_MODEL
from pipelines.services import unpack_probabilities

Tasks = dict[str, dict[str, Any]]


@pytest.fixture
def service_without_champion(start: Callable[[Any], TestClient]) -> TestClient:
    return start(Segmentation)


@pytest.fixture
def service(
    start: Callable[[Any], TestClient], empty_mlflow: str, model_that_sees_coats: Path, tmp_path: Path
) -> TestClient:
    """The service with a champion that sees coats everywhere, and which it has just loaded."""
    client = MlflowClient(empty_mlflow)
    run = client.create_run(client.create_experiment("clothing", str(tmp_path / "artifacts"))).info.run_id
    client.log_artifacts(run, str(model_that_sees_coats), "network")
    client.create_registered_model("clothing")
    client.create_model_version("clothing", f"runs:/{run}/network", run)
    client.set_registered_model_alias("clothing", "champion", "1")
    running = start(Segmentation)
    assert running.post("/reload").json()["model_version"] == "clothing:v1"
    return running


def test_without_a_champion_it_is_up_and_says_so(service_without_champion: TestClient) -> None:
    service = service_without_champion

    assert service.get("/health").json() == {"status": "UP", "model_version": NO_MODEL, "problem": ""}
    assert service.post("/setup", json={}).json() == {"model_version": NO_MODEL, "labels": []}
    assert service.get("/versions").json() == {"versions": [NO_MODEL]}
    assert service.post("/reload").json()["changed"] is False


def test_without_a_champion_tasks_get_items_without_result(service_without_champion: TestClient, tasks: Tasks) -> None:
    answer = service_without_champion.post("/predict", json={"tasks": [tasks["upright"], tasks["turned"]]}).json()

    assert answer == {"results": [{}, {}], "model_version": NO_MODEL}


def test_the_champion_is_announced_with_its_labels(service: TestClient) -> None:
    assert service.get("/health").json() == {"status": "UP", "model_version": "clothing:v1", "problem": ""}
    assert service.post("/setup", json={}).json() == {"model_version": "clothing:v1", "labels": ["coat", "dress"]}
    assert service.get("/versions").json() == {"versions": ["clothing:v1"]}
    assert service.post("/webhook", json={"action": "START_TRAINING"}).json() == {"status": "ok"}
    assert service.post("/reload").json()["changed"] is False


def test_predictions_carry_the_version_that_setup_announced(service: TestClient, tasks: Tasks) -> None:
    answer = service.post("/predict", json={"tasks": [tasks["upright"]]}).json()

    (item,) = answer["results"]
    assert item["model_version"] == answer["model_version"] == service.post("/setup", json={}).json()["model_version"]


@pytest.mark.parametrize("photo", ["upright", "turned"])
def test_masks_have_the_size_of_the_upright_photo(service: TestClient, tasks: Tasks, photo: str) -> None:
    (item,) = service.post("/predict", json={"tasks": [tasks[photo]]}).json()["results"]

    (region,) = item["result"]
    assert (region["original_height"], region["original_width"]) == (360, 240)
    assert region["value"]["brushlabels"] == ["coat"]
    assert rle_to_mask(region["value"]["rle"], 360, 240).all()


def test_photos_that_cannot_be_read_are_listed_and_stop_nothing(service: TestClient, tasks: Tasks) -> None:
    order = ["missing", "upright", "no photo", "elsewhere", "turned", "empty", "without photo"]

    answer = service.post("/predict", json={"tasks": [tasks[what] for what in order]}).json()

    assert ["result" in item for item in answer["results"]] == [what in ("upright", "turned") for what in order]
    assert {order[int(position)] for position in answer["problems"]} == set(order) - {"upright", "turned"}
    assert "is gone" in answer["problems"]["0"]
    assert "JPEG, PNG, WebP" in answer["problems"]["2"]


def test_label_studio_itself_gets_no_masks_for_a_photo_that_somebody_opens(service: TestClient, tasks: Tasks) -> None:
    asked = {"tasks": [tasks["upright"]], "project": "2.1795376311", "label_config": "<View/>"}

    assert service.post("/predict", json=asked).json() == {"results": [{}], "model_version": "clothing:v1"}


def test_no_tasks_still_give_no_empty_list(service: TestClient) -> None:
    assert service.post("/predict", json={"tasks": []}).json()["results"] == [{}]


def test_a_body_that_is_no_request_is_refused(service: TestClient) -> None:
    answer = service.post("/predict", json={"task": 1})

    assert answer.status_code == 400
    assert "`tasks`" in answer.json()["detail"]


def test_a_body_that_is_too_large_or_no_json_is_not_even_read(service_without_champion: TestClient) -> None:
    pickle = {"Content-Type": "application/vnd.bentoml+pickle"}
    assert service_without_champion.post("/predict", content=b"\x80\x04.", headers=pickle).status_code == 415
    answer = service_without_champion.post("/predict", content=b" " * (65 << 20))
    assert (answer.status_code, answer.json()["detail"]) == (413, "more than 64 MB: send fewer tasks at a time")
    assert service_without_champion.post("/predict", content=iter([b"{", b"}"])).status_code == 411


def test_the_log_says_on_whose_behalf_somebody_asked(
    service_without_champion: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    run = "prelabel_images/manual__2026-01-01T00:00:00+00:00/predict"
    with caplog.at_level("INFO", "bentos.requests"):
        service_without_champion.get("/versions", headers={"X-Request-Id": run})
        service_without_champion.get("/health")
    [line] = [json.loads(record.message) for record in caplog.records if record.name == "bentos.requests"]
    assert (line["path"], line["status"], line["asked_by"]) == ("/versions", 200, run)


def test_scores_are_those_of_the_predictions(service: TestClient, tasks: Tasks) -> None:
    asked = {"tasks": [tasks["upright"], tasks["missing"]]}

    scores = service.post("/score", json=asked).json()["scores"]

    [item, _] = service.post("/predict", json=asked).json()["results"]
    assert scores == [pytest.approx(item["score"], abs=1e-3), None]


def test_what_the_champion_thinks_is_told_label_by_label(service: TestClient, tasks: Tasks) -> None:
    planes = unpack_probabilities(service.post("/probabilities", json={"tasks": [tasks["upright"]]}).json())

    assert list(planes) == ["coat"]
    assert (planes["coat"] > 250).all()


def test_more_than_can_wait_is_refused_at_once_and_says_when_to_ask_again(service: TestClient, tasks: Tasks) -> None:
    answer = service.post("/predict", json={"tasks": [tasks["upright"]] * 257})

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "limit of 256" in answer.json()["detail"]
    assert service.post("/predict", json={"tasks": [tasks["upright"]]}).status_code == 200


def test_labels_that_differ_from_the_projects_are_named(service: TestClient) -> None:
    answer = service.post("/setup", json={"schema": "<View><BrushLabels name='tag' toName='image'/></View>"})

    assert answer.status_code == 409
    assert "only in params.yaml" in answer.json()["detail"]


@pytest.mark.parametrize("bento", [Segmentation, SegmentAnything])
def test_with_a_password_everything_but_health_asks_for_it(
    start: Callable[[Any], TestClient], monkeypatch: pytest.MonkeyPatch, bento: Any
) -> None:
    monkeypatch.setenv("MASKLOOP_SERVICE_PASSWORD", "a secret")
    service = start(bento)

    for path in ("/", "/health", "/livez", "/healthz", "/readyz"):
        assert service.get(path).status_code == 200
    pages = ("/metrics", "/metrics/", "/docs.json", "/schema.json", "/static_content/index.css", "/docs")
    for path in (*pages, "/openapi.json", "/nowhere", "/health/../metrics", "/versions"):
        assert service.get(path).status_code == 401
        assert service.get(path, headers={"Host": "x/health?"}).status_code == 401, "a header that looks like a path"
        if "metrics" not in path:  # what these need is there when `bentoml serve` starts a service
            assert service.get(path, auth=("maskloop", "a secret")).status_code != 401
    for auth in (None, ("maskloop", "another"), ("somebody", "a secret")):
        refused = service.post("/predict", json={"tasks": []}, auth=auth)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="maskloop"')
        assert service.post("/webhook", json={}, auth=auth).status_code == 401
    assert service.post("/webhook", json={}, auth=("maskloop", "a secret")).status_code == 200


def test_there_is_no_page_with_scripts_from_elsewhere(service_without_champion: TestClient) -> None:
    start_page = service_without_champion.get("/")

    assert start_page.json() == service_without_champion.get("/health").json()
    for path in ("/docs", "/redoc", "/docs.json", "/schema.json", "/static_content/index.css", "/static_content/"):
        assert service_without_champion.get(path).status_code == 404


def test_each_service_counts_its_own_requests(tmp_path: Path) -> None:
    """BentoML writes what is counted below BENTOML_HOME, and removes what it finds there when it starts."""
    (tmp_path / "bentoml").write_text('#!/bin/sh\necho "$BENTOML_HOME"\n')
    (tmp_path / "bentoml").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BENTOML_HOME": "/var/a folder/bentoml"}
    commands = [command for command in read_procfile().values() if "bentoml serve" in command]
    homes = [subprocess.check_output(["sh", "-c", command], env=environment, text=True) for command in commands]
    assert homes == ["/var/a folder/bentoml/segmentation\n", "/var/a folder/bentoml/segment-anything\n"]


def test_masks_have_the_size_of_the_copy_that_the_task_shows(service: TestClient, tasks: Tasks) -> None:
    data = tasks["turned"]["data"]
    shown = [{"shown_height": 180, "shown_width": 120}, {"shown_height": 120, "shown_width": 180}, {}]
    asked = [{"id": 1, "data": {**data, "original": data["image"], **sizes}} for sizes in shown]

    answer = service.post("/predict", json={"tasks": asked}).json()

    regions = [region for item in answer["results"] for region in item["result"]]
    sizes = [(region["original_height"], region["original_width"]) for region in regions]
    assert sizes == [(180, 120), (360, 240), (360, 240)], "another shape is no copy of this photo"
    assert rle_to_mask(regions[0]["value"]["rle"], 180, 120).all()
