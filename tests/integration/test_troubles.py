"""What people meet when something is wrong: a message that names the thing and the remedy, wherever they look."""

import pytest

from pipelines.airflow_api import Airflow
from pipelines.errors import ServiceError
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_a_taken_port_is_named_before_anything_starts(stack, tmp_path):
    said = stack.run("up", ok=False, MASKLOOP_VAR=str(tmp_path))
    assert f"{stack.settings.mlflow_port} (mlflow" in said
    assert "Nothing was started" in said


def test_a_wrong_token_is_explained(stack):
    said = stack.run("ingest", ok=False, MASKLOOP_LABEL_STUDIO_TOKEN="0" * 40)
    assert "CredentialsError" in said
    assert "MASKLOOP_LABEL_STUDIO_TOKEN" in said


def test_a_missing_bucket_is_named(stack):
    said = stack.run("ingest", ok=False, MASKLOOP_SOURCE_BUCKET="nowhere")
    assert "gs://nowhere does not exist" in said


def test_label_studio_out_of_reach_is_explained(stack):
    said = stack.run("ingest", ok=False, MASKLOOP_LABEL_STUDIO_URL="http://127.0.0.1:9")
    assert "cannot reach Label Studio" in said
    assert "maskloop up" in said


def test_a_catalogue_without_a_column_stops_before_any_task(stack_after_two_rounds):
    stack = stack_after_two_rounds
    client, settings = gcs.connect(stack.settings), stack.settings
    ref = gcs.stat(client, settings.source_bucket, settings.catalog)
    good = gcs.read(client, ref)
    gcs.put(client, settings.source_bucket, settings.catalog, good.replace(b"season", b"saison", 1), "text/csv")
    try:
        assert "lacks the column season" in stack.run("ingest", ok=False)
        airflow = Airflow(settings)
        with pytest.raises(ServiceError, match="lacks the column season"):
            airflow.wait_for("ingest_images", 120, run_id=airflow.trigger("ingest_images"))
    finally:
        gcs.put(client, settings.source_bucket, settings.catalog, good, "text/csv")


def test_labels_that_differ_are_named(stack_after_two_rounds):
    stack = stack_after_two_rounds
    labels, params = connect(stack.settings), load_params(stack.settings.params_path)
    project = find_project(labels, params)
    config = labels.get(f"/api/projects/{project}/")["label_config"]
    labels.patch(f"/api/projects/{project}/", {"label_config": config.replace('value="swimwear"', 'value="bikini"')})
    try:
        said = stack.run("prelabel", ok=False)
        assert "ContractError" in said
        assert "bikini" in said
        assert "swimwear" in said
        assert "maskloop setup" in stack.run("doctor", ok=False)
    finally:
        assert "label_config" in stack.run("setup")


def test_everything_survives_a_restart(stack_after_two_rounds):
    stack = stack_after_two_rounds
    labels, params = connect(stack.settings), load_params(stack.settings.params_path)
    before = {task.id: task for task in list_tasks(labels, find_project(labels, params))}
    stack.run("down")
    assert "Nothing was running" in stack.run("down")
    stack.run("up")
    assert {task.id: task for task in list_tasks(labels, find_project(labels, params))} == before
    stack.run("doctor")
