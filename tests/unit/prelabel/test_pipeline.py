"""The prelabel pipeline between a small Label Studio, a scripted segmentation service and an MLflow."""

import hashlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
import yaml
from google.cloud.storage import Client

from pipelines.dataset.split import split_of_group, split_photos
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ContractError, ServiceError
from pipelines.fs import write_atomically
from pipelines.gcs.client import ensure_bucket
from pipelines.labelstudio.predictions import with_reason
from pipelines.labelstudio.schema import PredictionJson
from pipelines.labelstudio.tasks import task_data
from pipelines.params import Params
from pipelines.prelabel.pipeline import Batch, PrelabelReport, plan_batches, prelabel_batch
from pipelines.prelabel.strategies import chance, reason_of
from pipelines.records import ImageRef, Task
from pipelines.settings import Settings
from tests.unit.labeling import Studio, photo_in, prediction

Serve = Callable[..., Settings]


@pytest.fixture
def serve(bucket_client: Client, bucket_server: str, empty_mlflow: str, tmp_path: Path) -> Iterator[Serve]:
    """Start a segmentation service that announces a version and labels and predicts one region, or what it is told."""
    servers, bucket = [], f"labels-{uuid4().hex[:12]}"
    ensure_bucket(bucket_client, bucket)

    def start(version: str, labels: tuple[str, ...] = ("coat", "dress"), predict: Any = None) -> Settings:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                results = [prediction(version, 0.5 + 0.1 * place) for place, _ in enumerate(asked.get("tasks", ()))]
                answers = {
                    "/setup": {"model_version": version, "labels": labels},
                    "/predict": predict or {"results": results, "model_version": version},
                    "/score": {"scores": [0.5] * len(results)},
                }
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
            storage_port=int(bucket_server.rpartition(":")[2]), mlflow_url=empty_mlflow,
        )  # fmt: skip

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def studio(two_labels: Params) -> Studio:
    """A project with the two labels and a photo of each blind split that is in work, so that none is empty."""
    studio = Studio(two_labels)
    for number, split in ((98, "test"), (99, "val")):
        studio.add(number, split=split, draft_exists=True)
    return studio


def masks_of(*ids: int, version: str = "clothing:v2") -> Batch:
    return Batch(masks=list(ids), blind=[], version=version)


def run(studio: Studio, settings: Settings, params: Params) -> PrelabelReport:
    """Plan and do all batches; gives what they did together."""
    reports = [
        prelabel_batch(studio.client, settings, params, b) for b in plan_batches(studio.client, settings, params)
    ]
    return PrelabelReport(*(sum(getattr(r, name) for r in reports) for name in ("asked", "masks", "blind")), {})


def publish(settings: Settings, manifest: pd.DataFrame) -> None:
    """Make this the newest dataset of the workspace: its manifest lies in DVC's cache, and a tag names it."""
    workspace, data = Workspace(settings.workspace_path, settings), manifest.to_parquet()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    output = {"md5": md5, "size": len(data), "hash": "md5", "path": "manifest.parquet"}
    cache = settings.var / "dvc-cache"
    write_atomically(cache / "files" / "md5" / md5[:2] / md5[2:], data)
    for name, text in (
        (".dvc/config", ""),
        (".dvc/config.local", f"[cache]\n    dir = {cache}\n"),
        (".gitignore", "/.dvc/config.local\n/.dvc/tmp\n"),
        ("data/manifest.parquet.dvc", yaml.safe_dump({"outs": [output]})),
    ):
        write_atomically(workspace.path / name, text.encode())
    for command in ("init --quiet", "add --all", "commit --quiet -m 1", "tag dataset-0001"):
        workspace.git(*command.split())


def labelled(*tasks: Task, blind: bool, split: str, split_config: str, **columns: Any) -> pd.DataFrame:
    rows = [
        {"sha256": task.image.sha256, "phash": "", "class_ids": [1], "group": task.image.sha256, "split": split,
         "blind": blind, "division": split_config, **columns}
        for task in tasks
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_without_a_champion_nothing_waits_and_label_studio_is_not_asked(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1)
    studio.before_listing = pytest.fail

    assert plan_batches(studio.client, serve("no-champion", ()), two_labels) == []
    assert studio.written == []


def test_unopened_tasks_without_this_models_prediction_wait(serve: Serve, studio: Studio, two_labels: Params) -> None:
    studio.add(1)
    studio.add(2, "clothing:v1")
    studio.add(3, "clothing:v2")
    studio.add(4, total_annotations=1)
    studio.add(5, draft_exists=True)

    planned = plan_batches(studio.client, serve("clothing:v2"), two_labels)

    assert planned == [masks_of(2, 1)], "what is outdated comes first"


def test_batches_have_the_size_of_the_parameters(serve: Serve, studio: Studio, two_labels: Params) -> None:
    two = two_labels.model_copy(update={"prelabel": two_labels.prelabel.model_copy(update={"batch_size": 2})})
    for number in range(1, 6):
        studio.add(number)
    for number in (11, 12, 13):
        studio.add(number, split="test")

    planned = plan_batches(studio.client, serve("clothing:v2"), two)

    assert [len(batch["masks"]) for batch in planned] == [1, 1, 1, 2]
    assert [len(batch["blind"]) for batch in planned] == [0, 1, 1, 1], "spread over the batches"
    assert {number for batch in planned for number in batch["masks"]} == {1, 2, 3, 4, 5}


def test_a_model_with_labels_that_are_no_more_would_lose_masks(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1)

    with pytest.raises(ContractError, match=r"params.yaml does not have: cape\."):
        plan_batches(studio.client, serve("clothing:v2", ("coat", "cape")), two_labels)


def test_a_label_that_the_model_does_not_know_yet_is_no_obstacle(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1)

    assert plan_batches(studio.client, serve("clothing:v2", ("coat",)), two_labels) == [masks_of(1)]


def test_a_kill_before_the_project_was_told_is_made_good(serve: Serve, studio: Studio, two_labels: Params) -> None:
    studio.add(1, "clothing:v2")

    assert plan_batches(studio.client, serve("clothing:v2"), two_labels) == []

    assert studio.project["model_version"] == "clothing:v2"


def test_doubled_predictions_of_one_version_are_cleaned_up(serve: Serve, studio: Studio, two_labels: Params) -> None:
    studio.add(1, "clothing:v2", "clothing:v2")
    studio.add(2, "clothing:v2")

    assert plan_batches(studio.client, serve("clothing:v2"), two_labels) == [masks_of(1)]


def test_a_photo_that_changed_while_it_was_predicted_gets_nothing(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1)
    listings = []

    def upload_another() -> None:
        listings.append(1)
        if len(listings) == 3:  # after the batch looked at its tasks, and before it publishes
            newer = ImageRef("gs://archive/1.jpg", 2, "cd" * 32, 4, 6)
            studio.tasks[1]["data"] = task_data(newer, {})

    studio.before_listing = upload_another

    assert prelabel_batch(studio.client, serve("clothing:v2"), two_labels, masks_of(1)).masks == 0
    assert (studio.written, len(listings)) == ([], 4)


def test_tasks_in_peoples_hands_keep_the_masks_they_started_from(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1)
    studio.add(2, "clothing:v1")
    studio.add(3)
    studio.add(4, "clothing:v2", split="test")
    studio.held = {2, 3, 4}
    settings = serve("clothing:v2")

    assert plan_batches(studio.client, settings, two_labels) == [masks_of(1)]
    prelabel_batch(studio.client, settings, two_labels, Batch(masks=[2], blind=[4], version="clothing:v2"))
    assert studio.written == []


def test_older_predictions_are_updated_in_their_place_and_problems_are_reported(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1)
    studio.add(2, "clothing:v1", "clothing:v1")  # predictions 30 and 31
    studio.add(3, "clothing:v1")
    answer = {
        "results": [prediction(), prediction(), {}],
        "model_version": "clothing:v2",
        "problems": {"2": "the photo is gone"},
    }

    report = prelabel_batch(studio.client, serve("clothing:v2", predict=answer), two_labels, masks_of(1, 2, 3))

    def stated(task_id: int) -> PredictionJson:
        task = Task(task_id, photo_in("train", task_id, two_labels))
        return with_reason({**prediction(), "score": chance("score", task)}, reason_of(task, two_labels.prelabel))

    assert report == PrelabelReport(3, 2, 0, {3: "the photo is gone"})
    assert studio.written == [
        ("DELETE /api/predictions/30/", None),
        ("PATCH /api/predictions/31/", stated(2)),
        ("POST /api/projects/7/import/predictions", [{"task": 1, **stated(1)}]),
        ("PATCH /api/projects/7/", {"model_version": "clothing:v2"}),
    ], "of task 2, in the place of the newest; task 3 keeps what it has"


def test_the_order_by_uncertainty_is_that_of_the_models_scores(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    prelabel = two_labels.prelabel.model_copy(update={"strategy": "uncertainty"})
    by_uncertainty = two_labels.model_copy(update={"prelabel": prelabel})
    studio.add(1)

    prelabel_batch(studio.client, serve("clothing:v2"), by_uncertainty, masks_of(1))

    [stored] = studio.predictions.values()
    assert stored["score"] == 0.5


def test_tasks_that_were_opened_meanwhile_are_left_as_they_are(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1, total_annotations=1)
    studio.add(2, "clothing:v2")
    studio.add(3, total_annotations=1, split="test")
    settings = serve("clothing:v2")

    report = prelabel_batch(studio.client, settings, two_labels, masks_of(1, 2) | {"blind": [3]})

    assert report == PrelabelReport(3, 0, 0, {})
    assert studio.written == []


def test_an_answer_of_the_wrong_length_changes_nothing(serve: Serve, studio: Studio, two_labels: Params) -> None:
    studio.add(1, "clothing:v1")
    studio.add(2)
    settings = serve("clothing:v2", predict={"results": [prediction()], "model_version": "clothing:v2"})

    with pytest.raises(ServiceError, match="answered 1 results for 2 tasks"):
        prelabel_batch(studio.client, settings, two_labels, masks_of(1, 2))
    assert studio.written == []


def test_what_label_studio_drops_is_noticed(serve: Serve, studio: Studio, two_labels: Params) -> None:
    studio.add(1)
    studio.drops = 1

    with pytest.raises(ServiceError, match="created 0 of 1 predictions"):
        prelabel_batch(studio.client, serve("clothing:v2"), two_labels, masks_of(1))


def test_a_service_that_is_down_is_named_with_the_remedy(free_port: int, studio: Studio, two_labels: Params) -> None:
    with pytest.raises(ServiceError, match="MASKLOOP_SEGMENTATION_URL"):
        plan_batches(studio.client, Settings(segmentation_url=f"http://127.0.0.1:{free_port}"), two_labels)


@pytest.mark.parametrize("version", ["clothing:v2", "cold-start:segformer@abc"])
def test_photos_that_judge_models_get_a_place_in_the_queue_and_no_masks(
    serve: Serve, studio: Studio, two_labels: Params, version: str
) -> None:
    for number in range(1, 4):
        studio.add(number)
    blind = [studio.add(11, split="test"), studio.add(12, split="val"), studio.add(13, split="test")]
    settings = serve(version)

    assert run(studio, settings, two_labels) == PrelabelReport(6, 3, 3, {})

    assert [studio.of(number) for number in (1, 2, 3)] == [[(version, 1)]] * 3
    assert [studio.of(task.id) for task in blind] == [[(version, 0)]] * 3
    scores = {stored["task"]: stored["score"] for stored in studio.predictions.values()}
    of_others = sorted(scores[number] for number in (1, 2, 3))
    assert all(of_others[0] <= scores[task.id] <= of_others[-1] for task in blind), "neither sooner nor later"
    assert sorted(blind, key=lambda task: scores[task.id]) == sorted(blind, key=lambda task: chance("score", task))
    assert plan_batches(studio.client, settings, two_labels) == []


def test_masks_that_photos_of_a_blind_split_hold_already_are_taken_away(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1, "clothing:v2", split="test")
    studio.add(2, "clothing:v1", split="val")
    studio.add(3, "clothing:v2")
    studio.add(4, "clothing:v2", split="test", masks=False)
    settings = serve("clothing:v2")

    assert run(studio, settings, two_labels) == PrelabelReport(2, 0, 2, {})

    assert [studio.of(number) for number in (1, 2, 3, 4)] == [
        [("clothing:v2", 0)], [("clothing:v2", 0)], [("clothing:v2", 1)], [("clothing:v2", 0)],
    ]  # fmt: skip
    assert plan_batches(studio.client, settings, two_labels) == []


def test_a_model_that_sees_nothing_on_a_photo_is_not_asked_for_ever(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    studio.add(1, "clothing:v2", masks=False)

    assert plan_batches(studio.client, serve("clothing:v2"), two_labels) == []


def test_the_splits_of_the_newest_dataset_count(serve: Serve, studio: Studio, two_labels: Params) -> None:
    collection = {"collection": "Autumn"}
    first, second = studio.add(1, total_annotations=1), studio.add(2)
    for task in (first, second):
        studio.tasks[task.id]["data"] |= collection
    split = split_of_group("Autumn", two_labels.split)
    other = {"test": "train"}.get(split, "test")
    settings = serve("clothing:v2")
    split_config = _split_config(two_labels)
    manifest = labelled(first, blind=True, split=other, split_config=split_config, meta_collection="Autumn")
    publish(settings, manifest.assign(group="Autumn"))

    [batch] = plan_batches(studio.client, settings, two_labels)

    assert (batch["masks"], batch["blind"]) == (([], [2]) if other == "test" else ([2], []))


def _split_config(params: Params) -> str:
    """The hash of the present parameters of `split`."""
    manifest = labelled(Task(1, photo_in("train", 0, params)), blind=True, split="", split_config="")
    return str(split_photos(manifest, None, params.split)["division"][0])


def test_once_the_test_split_is_full_a_share_of_the_others_is_for_comparison(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    tasks = [studio.add(number, split=split) for number, split in enumerate(["train", "test"] * 15, start=20)]
    done = studio.add(1, total_annotations=1)
    settings, share = serve("clothing:v2"), two_labels.prelabel.control_share
    publish(settings, labelled(done, blind=True, split="train", split_config=_split_config(two_labels), test_full=True))

    run(studio, settings, two_labels)

    without = {task.id for task in tasks if studio.of(task.id) == [("clothing:v2", 0)]}
    assert without == {task.id for task in tasks if chance("control", task) < share}
    assert 0 < len(without) < 10


def test_a_paused_champion_draws_masks_for_nobody_until_it_goes_on(
    serve: Serve, studio: Studio, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    studio.add(1)
    studio.add(2, "clothing:v1")
    studio.add(3, split="test")
    settings = serve("clothing:v1")
    registry = champion_in(settings)
    registry.pause(registry.champion(), "its masks cost 20 s per photo")

    assert run(studio, settings, two_labels) == PrelabelReport(3, 0, 3, {})
    assert [studio.of(number) for number in (1, 2, 3)] == [[("clothing:v1 (paused)", 0)]] * 3
    assert studio.project["model_version"] == "clothing:v1 (paused)"
    assert "its masks cost 20 s per photo" in caplog.text
    assert plan_batches(studio.client, settings, two_labels) == []

    registry.promote_by_hand(registry.champion())
    assert run(studio, settings, two_labels) == PrelabelReport(3, 2, 1, {})
    assert [studio.of(number) for number in (1, 2, 3)] == [
        [("clothing:v1", 1)], [("clothing:v1", 1)], [("clothing:v1", 0)],
    ]  # fmt: skip


def champion_in(settings: Settings) -> Any:
    """Register version 1 and make it champion."""
    from pipelines.models.registry import Registry

    registry = Registry(settings)
    run = registry.client.create_run(registry.client.create_experiment("clothing"))
    registry.client.create_registered_model("clothing")
    registry.client.create_model_version("clothing", "file:///nowhere", run.info.run_id)
    registry.client.set_registered_model_alias("clothing", "champion", "1")
    return registry


def test_a_registry_out_of_reach_pauses_nothing(
    serve: Serve, studio: Studio, two_labels: Params, free_port: int, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    studio.add(1)
    settings = serve("clothing:v2").model_copy(update={"mlflow_url": f"http://127.0.0.1:{free_port}"})

    assert plan_batches(studio.client, settings, two_labels) == [masks_of(1)]
    assert "is not known, so it goes on" in caplog.text


def test_test_photos_that_were_drawn_from_masks_are_drawn_again_by_somebody_else(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    """Of each kind: drawn from masks, drawn blind since, drawn by three people, of the train split, blind all along."""
    done = {"total_annotations": 1, "is_labeled": True}
    dirty, without = studio.add(1, "clothing:v1", **done), studio.add(2, **done)
    given_up = studio.add(3, "clothing:v1", **done | {"total_annotations": 3})
    skipped = studio.add(4, "clothing:v1", **done, cancelled_annotations=1)
    train, clean = studio.add(5, "clothing:v1", **done), studio.add(6, "clothing:v2", **done, masks=False)
    settings, split_config = serve("clothing:v2"), _split_config(two_labels)
    tables = [
        labelled(dirty, without, given_up, skipped, blind=False, split="test", split_config=split_config),
        labelled(train, blind=False, split="train", split_config=split_config),
        labelled(clean, blind=True, split="test", split_config=split_config),
    ]
    publish(settings, pd.concat(tables, ignore_index=True))

    assert plan_batches(studio.client, settings, two_labels) == []

    again = {number for number, raw in studio.tasks.items() if raw.get("overlap")}
    assert again == {dirty.id, without.id, skipped.id}
    assert [studio.tasks[number]["overlap"] for number in sorted(again)] == [2, 2, 2]
    assert [studio.of(number) for number in sorted(again)] == [[("clothing:v2", 0)]] * 3
    assert studio.of(train.id) == [("clothing:v1", 1)]
    written = len(studio.written)
    plan_batches(studio.client, settings, two_labels)
    assert not [where for where, _ in studio.written[written:] if "/tasks/" in where or "predictions" in where]

    # Somebody drew one without masks, which no dataset knows yet; another one was drawn from masks once more.
    for task, id in ((dirty, "hand"), (skipped, "clothing-v1--coat")):
        drawn = [annotation("clothing-v1--coat"), annotation(id)]
        studio.tasks[task.id] |= {"is_labeled": True, "total_annotations": 2, "annotations": drawn}
    studio.held = {without.id}
    later = serve("clothing:v3")
    plan_batches(studio.client, later, two_labels)
    assert studio.of(without.id) == [("clothing:v2", 0)], "in somebody's hands"
    assert studio.tasks[dirty.id]["is_labeled"]
    assert (studio.tasks[skipped.id]["is_labeled"], studio.tasks[skipped.id]["overlap"]) == (False, 3)
    studio.held = set()
    plan_batches(studio.client, later, two_labels)
    assert studio.of(without.id) == [("clothing:v3", 0)], "it stays in the stream after a promotion"


def annotation(region_id: str) -> dict[str, Any]:
    return {
        "unique_id": str(uuid4()), "completed_by": 5, "updated_at": "2026-01-01T00:00:00Z", "lead_time": 1.0,
        "was_cancelled": False, "parent_prediction": None, "prediction": {}, "result": [{"id": region_id}],
    }  # fmt: skip


def test_gold_photos_that_measure_people_are_left_as_they_are(serve: Serve, studio: Studio, two_labels: Params) -> None:
    gold = studio.add(1, "clothing:v2", total_annotations=1, is_labeled=False, overlap=2)
    settings = serve("clothing:v2")
    publish(settings, labelled(gold, blind=False, split="test", split_config=_split_config(two_labels)))

    plan_batches(studio.client, settings, two_labels)

    assert studio.of(gold.id) == [("clothing:v2", 1)]


def test_only_so_many_photos_wait_for_a_second_drawing_at_a_time(
    serve: Serve, studio: Studio, two_labels: Params
) -> None:
    tasks = [studio.add(number, total_annotations=1, is_labeled=True) for number in range(50)]
    settings = serve("clothing:v2")
    publish(settings, labelled(*tasks, blind=False, split="test", split_config=_split_config(two_labels)))

    for _ in range(3):
        plan_batches(studio.client, settings, two_labels)
        assert sum(not raw["is_labeled"] for raw in studio.tasks.values() if "is_labeled" in raw) == 20
