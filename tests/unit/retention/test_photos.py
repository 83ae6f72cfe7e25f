"""Embeddings and copies of photos that nothing needs, pages of the checks, and files of this machine."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
from google.cloud.storage import Client

from pipelines.dataset.published import Published
from pipelines.errors import ServiceError
from pipelines.gcs.client import list_objects, put
from pipelines.params import RetentionParams, RetentionRule
from pipelines.records import ImageRef, Task
from pipelines.retention import local
from pipelines.retention.photos import Photos, copies, embeddings
from pipelines.retention.rule import Rule
from pipelines.segmentation.embeddings import embedding_name
from pipelines.segmentation.sam_checkpoints import embeddings_names

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=400)
[SAM] = embeddings_names("vit_b")
DAYS = RetentionRule(keep_days=30)


def photo(name: str, *, shown: str = "") -> ImageRef:
    return ImageRef(f"gs://archive/{name}.tif", 7, name * 64, 4, 6, shown=shown)


class Versions:
    """Published versions with a manifest each."""

    def __init__(self, manifests: dict[str, pd.DataFrame]) -> None:
        self.manifests = manifests

    def tags(self) -> list[str]:
        return list(self.manifests)

    def manifest(self, tag: str) -> pd.DataFrame:
        return self.manifests[tag]


def photos_of(tasks: Sequence[Task], *, removed: Sequence[str] = ()) -> Photos:
    """Photo b is in the first version, c in the second."""
    rows = {
        f"dataset-000{n}": pd.DataFrame([{
            "sha256": name * 64, "uri": f"gs://archive/{name}.tif", "generation": 7,
            "prediction_version": f"clothing:v{n}",
        }]) for n, name in enumerate("bc", start=1)
    }  # fmt: skip
    published = Versions(rows)
    return Photos(lambda: tasks, cast(Published, published), lambda: [tag for tag in rows if tag not in removed])


TASK_A = Task(1, photo("a", shown="gs://labels/copies/shown.jpg"), prediction_versions=("clothing:v3",))


def left(bucket: Client, name: str) -> set[str]:
    return {ref.name.rpartition("/")[2] for ref in list_objects(bucket, name)}


def test_embeddings_of_photos_with_a_task_or_in_a_version_stay(
    bucket_client: Client, empty_bucket: str, tmp_path: Path
) -> None:
    names = {name: embedding_name(SAM, f"gs://archive/{name}.tif#7") for name in "abcd"}
    for name in names.values():
        put(bucket_client, empty_bucket, f"embeddings/{name}", b"12345", "application/octet-stream")
        (tmp_path / name).write_bytes(b"1234567")
    kind = embeddings(bucket_client, empty_bucket, DAYS, photos_of([TASK_A]), [SAM], tmp_path, LATER)
    plan = kind.plan()
    assert (list(plan.go), plan.freed) == ([names["d"]], {"bucket": 5, "local": 7})
    assert plan.spared == {names["a"]: "task 1", names["b"]: "dataset-0001", names["c"]: "dataset-0002"}
    assert "lifecycle rule" in plan.note
    assert kind.remove(plan) == plan
    assert left(bucket_client, empty_bucket) == {path.name for path in tmp_path.iterdir()} == set(names.values()) - {
        names["d"]
    }  # fmt: skip
    gone = photos_of([TASK_A], removed=["dataset-0001"])
    assert list(embeddings(bucket_client, empty_bucket, DAYS, gone, [SAM], tmp_path, LATER).plan().go) == [names["b"]]


def test_without_a_checkpoint_no_embedding_goes(bucket_client: Client, empty_bucket: str, tmp_path: Path) -> None:
    put(bucket_client, empty_bucket, "embeddings/x.npz", b"12345", "application/octet-stream")
    plan = embeddings(bucket_client, empty_bucket, DAYS, photos_of([TASK_A]), [], tmp_path, LATER).plan()
    assert dict(plan.go) == {}
    assert plan.note.startswith("MASKLOOP_SAM_CHECKPOINT names none")


def test_copies_of_photos_with_a_task_or_in_a_version_stay(
    bucket_client: Client, empty_bucket: str, tmp_path: Path
) -> None:
    for name in (*(name * 64 for name in "abcd"), "shown", f"{'a' * 64}.1000x1500"):
        put(bucket_client, empty_bucket, f"copies/{name}.jpg", b"12345", "image/jpeg")
    kind = copies(bucket_client, empty_bucket, DAYS, photos_of([TASK_A]), tmp_path, LATER)
    plan = kind.plan()
    assert (list(plan.go), plan.stay, plan.freed["bucket"]) == (["d" * 64 + ".jpg"], 5, 5)
    assert plan.spared["shown.jpg"] == "task 1"
    assert kind.remove(plan) == plan
    assert left(bucket_client, empty_bucket) == {
        "shown.jpg",
        f"{'a' * 64}.1000x1500.jpg",
        *(f"{name * 64}.jpg" for name in "abc"),
    }


@pytest.mark.parametrize("rule", [RetentionRule(keep_days=0), RetentionRule(keep_newest=1)])
def test_what_is_younger_than_a_day_stays_whatever_the_rule(
    bucket_client: Client, empty_bucket: str, tmp_path: Path, rule: Rule
) -> None:
    for name in "xyz":
        put(bucket_client, empty_bucket, f"copies/{name * 64}.jpg", b"12345", "image/jpeg")
    kind = copies(bucket_client, empty_bucket, rule, photos_of([TASK_A]), tmp_path, datetime.now(UTC))
    assert dict(kind.plan().go) == {}


def test_a_label_studio_without_tasks_lets_nothing_go(bucket_client: Client, empty_bucket: str, tmp_path: Path) -> None:
    put(bucket_client, empty_bucket, f"copies/{'x' * 64}.jpg", b"12345", "image/jpeg")
    kind = copies(bucket_client, empty_bucket, DAYS, photos_of([]), tmp_path, LATER)
    with pytest.raises(ServiceError, match="lost database"):
        kind.plan()


def test_predictions_in_tasks_and_in_the_report_are_in_use() -> None:
    reasons = photos_of([TASK_A, Task(2, photo("d"), prediction_versions=("clothing:v3",))]).shown_predictions()
    assert reasons == {
        "clothing:v2": "`maskloop report` compares its masks in dataset-0002",
        "clothing:v3": "2 tasks hold its predictions",
    }  # fmt: skip


def test_pages_of_the_checks_go_by_age_but_the_newest_stays(bucket_client: Client, empty_bucket: str) -> None:
    for day in range(3):
        put(bucket_client, empty_bucket, f"checks/2026-01-0{day}/x.html", b"page", "text/html")
    put(bucket_client, empty_bucket, "reports/ingest.csv", b"rows", "text/csv")
    kind = local.CheckPages(bucket_client, empty_bucket, RetentionParams().checks, LATER)
    plan = kind.plan()
    assert (plan.stay, len(plan.go), plan.freed) == (1, 2, {"bucket": 8})
    assert kind.remove(plan) == plan
    assert len(left(bucket_client, empty_bucket)) == 2
    assert dict(local.CheckPages(bucket_client, empty_bucket, RetentionParams().checks, NOW).plan().go) == {}


def write(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("12345678", encoding="utf-8")
    os.utime(path, 2 * ((NOW - timedelta(days=days)).timestamp(),))
    return path


def test_local_files_go_by_age(tmp_path: Path) -> None:
    old, young = write(tmp_path / "logs" / "mlflow.log.2", 200), write(tmp_path / "logs" / "mlflow.log.1", 3)
    current = write(tmp_path / "logs" / "mlflow.log", 300)
    run = write(tmp_path / "airflow" / "logs" / "dag_id=x" / "attempt=1.log", 200)
    kind = local.logs(tmp_path, RetentionParams().logs, NOW)
    plan = kind.plan()
    assert (set(plan.go), plan.stay, plan.freed) == ({str(old), str(run)}, 1, {"local": 16})
    assert kind.remove(plan) == plan
    assert (old.exists(), run.exists(), young.exists(), current.exists()) == (False, False, True, True)


def test_folders_go_when_their_newest_file_is_old(tmp_path: Path) -> None:
    for name, days in (("old", 40), ("busy", 1)):
        write(tmp_path / "training" / "training" / name / "first.ckpt", 40)
        write(tmp_path / "training" / "training" / name / "last.ckpt", days)
        folder = tmp_path / "training" / "training" / name
        os.utime(folder, 2 * ((NOW - timedelta(days=40)).timestamp(),))
    kind = local.checkpoints(tmp_path, RetentionParams().checkpoints, NOW)
    plan = kind.plan()
    assert [Path(name).name for name in plan.go] == ["old"]
    assert kind.remove(plan).freed == plan.freed == {"local": 16}
    assert [path.name for path in (tmp_path / "training" / "training").iterdir()] == ["busy"]


def test_a_file_that_cannot_be_deleted_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.log.1", "b.log.1"):
        write(tmp_path / "logs" / name, 400)
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "a.log.1":
            raise PermissionError("not permitted")
        unlink(path, missing_ok)

    kind = local.logs(tmp_path, RetentionParams().logs, NOW)
    plan = kind.plan()
    monkeypatch.setattr(Path, "unlink", refuse)
    done = kind.remove(plan)
    assert (done.freed, [Path(name).name for name in done.go]) == ({"local": 8}, ["b.log.1"])
    assert "not permitted; run `maskloop gc` again" in done.problem
