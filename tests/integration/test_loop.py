"""The whole loop on real servers: what two rounds leave behind, and what happens when its pipelines run again."""

import io
import json
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.airflow_api import Airflow
from pipelines.contract import SEGMENT_ANYTHING, SYNC_DAG
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST
from pipelines.dataset.pipeline import sync
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.cursor import read_changes
from pipelines.labelstudio.project import ensure_project, find_project, list_backends
from pipelines.labelstudio.tasks import list_tasks
from pipelines.local_stack.services import get_health
from pipelines.models.registry import Registry
from pipelines.params import load_params
from pipelines.photos.decode import sha256_hex
from pipelines.prelabel.pipeline import plan_batches, prelabel_batch, serving_model
from pipelines.quality.review import BLIND_REASON
from pipelines.training.clicks_pipeline import click_settings, why_not_yet
from pipelines.training.pipeline import dataset_to_train

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@pytest.fixture
def loop(stack_after_two_rounds):
    return stack_after_two_rounds


@pytest.fixture
def settings(loop):
    return loop.settings


@pytest.fixture
def workspace_params(settings):
    return load_params(settings.params_path)


@pytest.fixture
def labels(settings):
    return connect(settings)


@pytest.fixture
def bucket(settings):
    return gcs.connect(settings)


@pytest.fixture
def project(labels, workspace_params):
    return find_project(labels, workspace_params)


def test_enough_annotations_start_a_sync_without_anybody_asking(settings):
    airflow = Airflow(settings)
    until = time.monotonic() + 120  # the triggerer looks every 20 seconds
    while not (own := [run for run in airflow.runs(SYNC_DAG) if run["run_type"] == "asset_triggered"]):
        assert time.monotonic() < until, "no sync began by itself though two rounds were labelled"
        time.sleep(2)
    assert own[0]["dag_id"] == SYNC_DAG


def test_two_rounds_give_two_datasets_and_two_models(settings):
    summary = json.loads((settings.var / "demo" / "summary.json").read_text())
    first, second = summary["rounds"]
    assert (first["tasks"], second["tasks"]) == (20, 20)
    assert (first["annotations"], second["annotations"]) == (20, 20)
    assert (first["dataset"], second["dataset"]) == ("dataset-0001", "dataset-0002")
    assert (first["model"], second["model"]) == ("clothing:v1", "clothing:v2")
    assert first["prelabel_miou"] is None
    assert second["prelabel_miou"] > 0.1
    assert Workspace(settings.workspace_path, settings).dataset_tags() == ["dataset-0001", "dataset-0002"]


def test_every_dag_ran_and_none_failed(settings):
    airflow = Airflow(settings)
    for dag, at_least in {"ingest_images": 3, "prelabel_images": 3, "sync_annotations": 2, "retrain_model": 2}.items():
        states = [run["state"] for run in airflow.runs(dag)]
        assert len(states) >= at_least, dag
        assert "failed" not in states, dag


def test_space_is_freed_every_night(settings):
    airflow = Airflow(settings)
    run = airflow.wait_for("free_space", 300, run_id=airflow.trigger("free_space"))
    assert run["state"] == "success", "in the hours after its time of day the nightly run is made up for as well"
    assert (settings.var / "disk.json").exists()


def test_a_click_model_was_trained_judged_and_answers_only_if_it_is_better(settings):
    registry = Registry(click_settings(settings))
    version, champion = registry.version_trained_on("dataset-0002"), registry.champion()
    metrics = registry.client.get_run(version.run_id).data.metrics
    health = get_health(settings.url(SEGMENT_ANYTHING))

    assert 0 <= metrics["iou_after_1"] <= 1
    assert 1 <= metrics["noc80"] <= metrics["noc85"] <= 20
    assert 1 <= metrics["grabcut/noc85"] <= 20
    assert "clicks per garment than grabcut" in registry.client.get_run(version.run_id).data.tags["maskloop.gate"]
    assert set(health["answers"]) == {"point", "box", "edit"}
    assert set(health["answers"].values()) <= {"grabcut", champion.served_as if champion else "grabcut"}


def test_the_next_click_model_waits_until_there_is_more_to_learn_from(settings, workspace_params):
    assert Registry(click_settings(settings)).newest().dataset == "dataset-0002"
    assert why_not_yet(settings, "dataset-0002", workspace_params) is None, "killed and run again it goes on"
    assert "(clicks.min_growth)" in why_not_yet(settings, "dataset-0001", workspace_params)


def test_what_judges_models_was_drawn_without_them(settings):
    manifest = pd.read_parquet(settings.workspace_path / MANIFEST)
    judging = manifest["split"].isin(["test", "val"])
    assert set(manifest["split"]) == {"train", "val", "test"}
    assert manifest.loc[judging, "blind"].all()
    assert not manifest.loc[~judging, "blind"].all(), "the second round was pre-labelled"


def test_open_tasks_have_exactly_the_champions_prediction(settings, labels, project):
    champion = Registry(settings).champion()
    waiting = [task for task in list_tasks(labels, project) if not task.opened]
    assert len(waiting) == 12
    assert {task.prediction_versions for task in waiting} == {(champion.served_as,)}
    assert serving_model(settings)[0] == champion.served_as


def test_a_model_can_be_judged_from_its_run(settings, tmp_path):
    registry = Registry(settings)
    version = registry.version_trained_on("dataset-0002")
    metrics = registry.client.get_run(version.run_id).data.metrics
    assert metrics["gain_low"] <= metrics["gain"] <= metrics["gain_high"]
    assert metrics["test_miou_low"] <= metrics["test_miou"] <= metrics["test_miou_high"]
    page = Path(registry.client.download_artifacts(version.run_id, "report.html", str(tmp_path))).read_text()
    for text in ("At the gate", "clothing:v1", "By catalogue data", "data:image/jpeg", version.reason[:30]):
        assert text in page
    said = registry.client.get_model_version(version.name, str(version.version)).description
    assert said.splitlines()[0].partition(": ")[0] in ("Promoted", "Not promoted", "Cut short")
    assert f"/runs/{version.run_id}/artifacts/report.html" in said


def test_a_run_holds_the_machine_and_what_people_did_with_its_masks(settings, tmp_path):
    registry = Registry(settings)
    first = registry.version_trained_on("dataset-0001")
    metrics = registry.client.get_run(first.run_id).data.metrics
    started_from = pd.read_parquet(settings.workspace_path / MANIFEST)["prediction_version"]
    assert 0 < metrics["labelers/photos"] == (started_from == first.served_as).sum() < 20, "others were drawn without"
    assert 0 < metrics["labelers/prelabel_miou"] < 1
    assert metrics["labelers/untouched_share"] + metrics["labelers/corrected_share"] + metrics[
        "labelers/drawn_share"
    ] + metrics["labelers/deleted_share"] == pytest.approx(1)
    # Five families in the second round are too few on one side or the other to tell what masks save.
    assert metrics["labelers/seconds_per_photo"] > 0
    assert metrics["labelers/photos_without_masks"] >= 0
    found = json.loads(
        Path(registry.client.download_artifacts(first.run_id, "environment.json", str(tmp_path))).read_text()
    )
    assert found["packages"]["torch"]


def test_the_report_shows_what_each_model_saved(loop, settings):
    said = loop.run("report")
    assert all(word in said for word in ("by hand", "clothing:v1", "report.html"))
    page = (settings.var / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 5
    assert "dataset-0002" in page


def test_masks_that_look_wrong_are_shown_with_the_reason(loop, settings, labels, project):
    said = loop.run("quality")
    tasks = labels.get("/api/tasks", project=project, page_size=200, fields="task_only")["tasks"]
    reviews = {task["data"]["sha256"]: task["data"]["review"] for task in tasks if task["data"].get("review")}
    manifest = pd.read_parquet(settings.workspace_path / MANIFEST)
    blind = set(manifest.loc[manifest["split"].isin(["test", "val"]), "sha256"])
    assert f"{len(reviews)} photos of dataset-0002 look wrong" in " ".join(said.split())
    for photo, review in reviews.items():
        assert review.endswith(BLIND_REASON) if photo in blind else "the model sees" in review
    [tab] = [view for view in labels.get("/api/dm/views", project=project) if view["data"]["title"] == "Review"]
    shown = labels.get("/api/tasks", view=tab["id"], page_size=200)["tasks"]
    assert (
        sorted(task["data"]["review"] for task in shown)
        == [task["data"]["review"] for task in shown]
        == sorted(reviews.values())
    )


def test_a_training_waits_for_enough_that_is_new(loop, settings, bucket):
    assert dataset_to_train(settings) is None
    assert dataset_to_train(settings, again=True) == "dataset-0002"


def test_a_model_names_its_dataset_and_loads_in_a_clean_process(settings, tmp_path):
    version = Registry(settings).version_trained_on("dataset-0002")
    assert version.dataset == "dataset-0002"
    run = Registry(settings).client.get_run(version.run_id)
    assert run.data.tags["maskloop.dataset_revision"] == Workspace(settings.workspace_path, settings).git(
        "rev-parse", "dataset-0002^{commit}"
    )
    photos = [png(96, 64, (200, 40, 40)), png(60, 90, (9, 9, 200))]
    program = (
        "import io, mlflow, pandas as pd; from PIL import Image;"
        f"model = mlflow.pyfunc.load_model('models:/{version.name}/{version.version}');"
        f"masks = model.predict(pd.DataFrame({{'image': {photos!r}}}))['mask'];"
        "print([Image.open(io.BytesIO(mask)).size for mask in masks])"
    )
    done = subprocess.run(
        [Path(subprocess.sys.executable), "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={
            "MLFLOW_TRACKING_URI": settings.url("mlflow"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        },
    )  # fmt: skip
    assert "[(64, 96), (90, 60)]" in done.stdout, done.stderr[-2000:]


def test_a_fresh_clone_pulls_the_dataset_byte_for_byte(settings, tmp_path):
    source = Workspace(settings.workspace_path, settings)
    elsewhere = settings.model_copy(update={"var": tmp_path / "var"})
    clone = Workspace(tmp_path / "clone", elsewhere)
    clone.ensure(source.path)
    clone.git("checkout", "--quiet", "--detach", "dataset-0001")
    clone.dvc("pull", "data/annotations", "data/images", "data/before.parquet", "compile", "split")
    manifest = pd.read_parquet(clone.path / MANIFEST)
    assert len(manifest) == 20
    dataset = Dataset(clone.path)
    for row in manifest.itertuples():
        assert sha256_hex(dataset.image_path(row.sha256).read_bytes()) == row.sha256
        assert sha256_hex(dataset.mask_png(row.sha256)) == row.mask_sha256
    before = {path: path.read_bytes() for path in sorted((clone.path / "data").rglob("*.p*")) if path.is_file()}
    clone.dvc("repro", "--force", "split")
    assert {path: path.read_bytes() for path in before} == before


def test_an_experiment_with_other_parameters_is_compared_label_by_label(settings, tmp_path):
    clone = Workspace(tmp_path / "clone", settings)
    clone.ensure(settings.workspace_path)
    clone.git("checkout", "--quiet", "--detach", "dataset-0002")
    for tree in ("compile", "split", "data/images.dvc", "data/annotations.dvc", "data/before.parquet.dvc"):
        clone.dvc("checkout", tree)
    shorter = [f"--set-param=train.{name}" for name in ("epochs=1", "min_steps=0", "image_height=64", "image_width=64")]
    clone.dvc("repro", "evaluate")
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "-m", "the model of these parameters")
    clone.dvc("exp", "run", *shorter, "-S", "train.lr=0.001", "evaluate")
    difference = json.loads(clone.dvc("metrics", "diff", "--json"))["metrics.json"]
    assert {"old", "new", "diff"} <= set(difference["miou"])
    assert "per_class.coat.iou" in difference
    plots = json.loads(clone.dvc("plots", "diff", "HEAD", "--json"))
    assert "IoU by label" in plots["data"]


def test_a_champion_chosen_by_hand_serves_at_once_and_wakes_pre_labelling(loop, settings):
    registry, airflow = Registry(settings), Airflow(settings)
    champion = registry.champion()
    [other] = [version for version in registry.versions() if version.version != champion.version]
    for command, expected in ((("promote", str(other.version)), other), (("rollback",), champion)):
        before = frozenset(run["dag_run_id"] for run in airflow.runs("prelabel_images"))
        loop.run(*command)
        assert registry.champion().served_as == expected.served_as
        assert serving_model(settings)[0] == expected.served_as
        woken = airflow.wait_for("prelabel_images", 180, ignore=before)
        assert woken["state"] == "success"


def test_photos_keep_their_split_from_version_to_version(settings):
    workspace = Workspace(settings.workspace_path, settings)
    newer = pd.read_parquet(workspace.path / MANIFEST).set_index("sha256")["split"]
    assert set(newer) <= {"train", "val", "test"}
    assert len(newer) == 40


def test_each_annotation_lies_in_the_target_bucket(settings, bucket, labels, project):
    there = {ref.name for ref in gcs.list_objects(bucket, settings.target_bucket, "annotations/")}
    annotations = read_changes(labels, project, None, "unclear").annotations
    assert there == {f"annotations/{annotation.uuid}.json" for annotation in annotations}
    assert len(there) == 40


def test_setting_up_again_changes_nothing(settings, labels, workspace_params):
    assert ensure_project(labels, workspace_params, settings) == []


def test_the_segmentation_service_is_the_first_backend(settings, labels, project):
    backends = list_backends(labels, project)
    assert [backend["url"] for backend in backends] == [settings.url("segmentation"), settings.url("segment_anything")]
    assert [backend["is_interactive"] for backend in backends] == [False, True]
    assert {backend["state"] for backend in backends} == {"CO"}


def test_ingest_again_creates_and_changes_nothing(settings, bucket, labels, workspace_params):
    report = ingest(bucket, labels, settings, workspace_params)
    assert (report.created, report.updated, report.problems) == (0, 0, ())
    assert report.unchanged == report.listed == 52


def test_prelabel_again_has_nothing_to_do(settings, labels, workspace_params):
    assert plan_batches(labels, settings, workspace_params) == []


def test_sync_again_makes_no_version(settings, bucket, labels):
    assert sync(bucket, labels, settings) is None


def test_a_second_machine_without_the_history_publishes_nothing(settings, bucket, labels, tmp_path):
    elsewhere = settings.model_copy(update={"var": tmp_path / "var"})
    with pytest.raises(DatasetError, match=r"dataset-\d+ \(commit \w+\) was published by another machine"):
        sync(bucket, labels, elsewhere)
    assert Workspace(elsewhere.workspace_path, elsewhere).dataset_tags() == []


def test_reading_everything_leaves_no_export_in_label_studio(settings):
    assert not [path for path in (settings.var / "label-studio" / "export").iterdir() if path.is_file()]


def test_a_bad_photo_is_reported_and_the_rest_goes_on(settings, bucket, labels, workspace_params, project):
    prefix = settings.source_prefix
    gcs.put(bucket, settings.source_bucket, prefix + "page.jpg", b"<html>not a photo</html>", "image/jpeg")
    gcs.put(bucket, settings.source_bucket, prefix + "empty.jpg", b"", "image/jpeg")
    gcs.put(bucket, settings.source_bucket, prefix + "notes.txt", b"hello", "text/plain")
    gcs.put(bucket, settings.source_bucket, prefix + "good.png", png(90, 60, (200, 40, 40)), "image/png")
    try:
        report = ingest(bucket, labels, settings, workspace_params)
        assert {problem.reason for problem in report.problems} == {"not-an-image", "empty"}
        assert (report.created, dict(report.ignored)) == (1, {".txt": 1})
        assert report.listed == report.created + report.unchanged + sum(report.ignored.values()) + len(report.problems)
        assert any(task.image.uri.endswith("good.png") for task in list_tasks(labels, project))
    finally:
        for name in ("page.jpg", "empty.jpg", "notes.txt"):
            gcs.delete(bucket, gcs.stat(bucket, settings.source_bucket, prefix + name))


def test_an_overwritten_photo_takes_over_its_unopened_task(settings, bucket, labels, workspace_params, project):
    uri = f"gs://{settings.source_bucket}/{settings.source_prefix}good.png"
    [before] = [task for task in list_tasks(labels, project) if task.image.uri == uri]
    gcs.put(bucket, settings.source_bucket, settings.source_prefix + "good.png", png(80, 50, (9, 9, 200)), "image/png")
    report = ingest(bucket, labels, settings, workspace_params)
    [after] = [task for task in list_tasks(labels, project) if task.image.uri == uri]
    assert (report.created, report.updated) == (0, 1)
    assert after.id == before.id
    assert after.image.generation > before.image.generation
    assert (after.image.height, after.image.width) == (80, 50)
    assert after.prediction_versions == ()
    for batch in plan_batches(labels, settings, workspace_params):
        assert prelabel_batch(labels, settings, workspace_params, batch).problems == {}


def test_the_same_bytes_uploaded_again_only_move_the_generation(settings, bucket, labels, workspace_params, project):
    before = read_changes(labels, project, None, "unclear").annotations[0]
    ref = gcs.stat(bucket, *gcs.split_uri(before.image.uri))
    data = gcs.read(bucket, ref)
    gcs.write(bucket, ref.bucket, ref.name, data, "image/jpeg", replaces=ref.generation)
    report = ingest(bucket, labels, settings, workspace_params)
    assert (report.created, report.updated) == (0, 1)
    [after] = [task for task in list_tasks(labels, project) if task.image.uri == before.image.uri]
    assert (after.id, after.annotation_count) == (before.task_id, 1)
    assert after.image.generation > before.image.generation


def test_a_click_in_label_studio_gives_the_garment(labels, project, workspace_params):
    task = next(task for task in list_tasks(labels, project) if not task.opened and task.image.width == 400)
    backend = next(backend for backend in list_backends(labels, project) if backend["is_interactive"])
    point = {
        "type": "keypointlabels", "from_name": "point", "to_name": "image", "original_width": task.image.width,
        "original_height": task.image.height, "image_rotation": 0, "is_positive": True,
        "value": {"x": 50, "y": 45, "width": 0.4, "keypointlabels": ["coat"]},
    }  # fmt: skip
    answer = labels.post(
        f"/api/ml/{backend['id']}/interactive-annotating", {"task": task.id, "context": {"result": [point]}}
    )
    [region] = answer["data"]["result"]
    from pipelines.labelstudio.brush_rle import rle_to_mask

    mask = rle_to_mask(region["value"]["rle"], task.image.height, task.image.width)
    assert region["value"]["brushlabels"] == ["coat"]
    assert mask[int(task.image.height * 0.45), task.image.width // 2]
    assert 0.001 < mask.mean() < 0.6


def test_a_deleted_annotation_leaves_the_next_version_and_the_bucket(settings, bucket, labels, project):
    gone = read_changes(labels, project, None, "unclear").annotations[0]
    labels.delete(f"/api/annotations/{gone.raw['id']}/")
    version = sync(bucket, labels, settings)
    assert version.tag == "dataset-0003"
    assert "1 removed" in version.summary
    manifest = pd.read_parquet(settings.workspace_path / MANIFEST)
    assert gone.uuid not in set(manifest["annotations"].explode())
    assert gcs.stat(bucket, settings.target_bucket, f"annotations/{gone.uuid}.json") is None


def test_lineage_leads_from_the_champion_to_a_photo_and_back(loop, settings):
    manifest = pd.read_parquet(settings.workspace_path / MANIFEST)
    backwards = json.loads(loop.run("lineage", "models:/clothing@champion", "--json"))
    forwards = json.loads(loop.run("lineage", manifest["uri"][0], "--json"))
    assert backwards["links"][0]["name"].startswith("dataset-")
    assert forwards["links"][-1]["annotations"] in set(manifest["annotations"].explode())


def test_runs_in_airflow_say_what_they_did(settings):
    airflow = Airflow(settings)
    assert any("listed = " in str(run["note"]) for run in airflow.runs("ingest_images"))
    assert any("dataset-0001: +20 photos" in str(run["note"]) for run in airflow.runs("sync_annotations"))


def test_checks_and_the_ingest_report_lie_in_the_target_bucket(settings, bucket):
    pages = list(gcs.list_objects(bucket, settings.target_bucket, "checks/"))
    assert len(pages) >= 2
    page = gcs.read(bucket, pages[0]).decode()
    assert "a photo stands in the table twice" in page
    answer = httpx.get(gcs.browser_address(settings, settings.target_bucket, pages[0].name))
    assert answer.headers["content-type"].startswith("text/html")
    report = gcs.stat(bucket, settings.target_bucket, "reports/ingest.csv")
    assert gcs.read(bucket, report).decode("utf-8-sig").startswith("uri,generation,reason,set aside,message")


@pytest.mark.parametrize("form", ["coco", "png", "yolo", "huggingface"])
def test_a_dataset_is_exported_by_a_command(loop, form, tmp_path):
    said = loop.run("export", "dataset-0001", form, str(tmp_path / form))
    assert f"20 photos of dataset-0001 as {form}" in said
    assert any(path.is_file() for path in (tmp_path / form).rglob("*"))


def test_the_buckets_differences_are_shown_and_nothing_is_changed(loop, settings, bucket):
    said = loop.run("buckets", "setup", "--dry-run")
    assert "versioning" in said
    assert f"gs://{settings.source_bucket}" in said
    assert not bucket.get_bucket(settings.source_bucket).versioning_enabled


def test_doctor_finds_nothing_wrong(loop):
    loop.run("doctor")
    assert "champion" in loop.run("status") or "clothing:v" in loop.run("status")


def png(height: int, width: int, color: tuple[int, int, int]) -> bytes:
    """Make a plain picture."""
    data = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), color, np.uint8)).save(data, "PNG")
    return data.getvalue()
