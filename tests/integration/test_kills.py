"""Ingest and sync killed with SIGKILL at random moments and run again, or run twice at once: nothing lost or doubled.

On a project, buckets and a workspace of their own, in the Label Studio and the bucket server of the stack.
"""

import io
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.cloud.storage import Client
from PIL import Image

from pipelines.dataset.files import MANIFEST, VERSION
from pipelines.dataset.pipeline import sync
from pipelines.dataset.remote import missing_objects, needed_objects
from pipelines.dataset.workspace import Workspace
from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params
from pipelines.records import RegionMask
from pipelines.settings import Settings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
KILLS = 20
SIZE = (36, 24)
CHOICES = random.Random(20)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


# As texts, because a process of its own cannot import this module.
RUN_INGEST = """
from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.client import connect
from pipelines.params import load_params
ingest(gcs.connect(settings), connect(settings), settings, load_params(settings.params_path))
"""
RUN_SYNC = """
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.dataset.pipeline import sync
sync(gcs.connect(settings), connect(settings), settings)
"""


@pytest.fixture(scope="module")
def start() -> Callable[..., Any]:
    """Start a pipeline in a process of its own, in which what it imports is there at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["great_expectations.expectations", "pipelines.ingest.pipeline", "pipelines.dataset.pipeline"]
    )

    def begin(pipeline: str, settings: Settings) -> Any:
        process = context.Process(target=exec, args=(pipeline, {"settings": settings}))
        process.start()
        return process

    begin("", Settings(_env_file=None)).join()  # the server is up
    return begin


def seconds(start: Callable[..., Any], pipeline: str, settings: Settings) -> float:
    begin = time.monotonic()
    process = start(pipeline, settings)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begin


def kill_at_random(process: Any, most_s: float) -> None:
    process.join(CHOICES.uniform(0, most_s))
    process.kill()
    process.join()


def test_ingest_killed_anywhere_makes_each_task_once(make_archive, start) -> None:
    archive = make_archive("ingest")

    def more(number: int) -> None:
        for place in range(12):
            archive.upload(f"ingest-{number * 12 + place}.png", png(1000 + number * 12 + place))
        archive.upload(f"z-copy-{number}.png", png(1000 + number * 12))
        archive.upload(f"broken-{number}.png", png(1)[:50])

    more(0)
    most = seconds(start, RUN_INGEST, archive.settings)
    for number in range(1, KILLS + 1):
        more(number)
        kill_at_random(start(RUN_INGEST, archive.settings), most)
    params = load_params(archive.settings.params_path)

    report = ingest(archive.bucket, archive.labels, archive.settings, params)

    photos = 12 * (KILLS + 1)
    tasks = Counter(task.image.uri.rpartition("/")[2] for task in list_tasks(archive.labels, archive.project))
    assert tasks == {f"ingest-{n}.png": 1 for n in range(photos)}
    assert (report.listed, report.created + report.unchanged) == (14 * (KILLS + 1), photos)
    assert Counter(p.reason for p in report.problems) == {"duplicate": KILLS + 1, "truncated": KILLS + 1}


def test_two_ingests_at_once_make_each_task_once(make_archive, start) -> None:
    archive = make_archive("twice")
    for number in range(40):
        archive.upload(f"twice-{number}.png", png(number))
    both = [start(RUN_INGEST, archive.settings) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(list(list_tasks(archive.labels, archive.project))) == 40


class Labelers:
    """Annotate, change and delete; what was done can be done again elsewhere, in the same order."""

    def __init__(self, archive: Any) -> None:
        self.archive = archive
        self.tasks = {t.image.uri.rpartition("-")[2]: t.id for t in list_tasks(archive.labels, archive.project)}
        self.annotations: dict[str, int] = {}

    def round(self, number: int) -> None:
        for photo in (f"{2 * number}.png", f"{2 * number + 1}.png"):
            body = {"result": self._drawn(number), "lead_time": 2.0}
            made = self.archive.labels.post(f"/api/tasks/{self.tasks[photo]}/annotations/", body)
            self.annotations[photo] = made["id"]
        if number % 3 == 1:
            changed = self.annotations[f"{2 * number - 2}.png"]
            self.archive.labels.patch(f"/api/annotations/{changed}/", {"result": self._drawn(number + 5)})
        if number % 4 == 2:
            self.archive.labels.delete(f"/api/annotations/{self.annotations.pop(f'{2 * number - 1}.png')}/")
        if number % 7 == 4:
            self.archive.labels.delete(f"/api/tasks/{self.tasks[f'{2 * number + 1}.png']}/")

    def _drawn(self, number: int) -> list[dict[str, Any]]:
        mask = np.zeros(SIZE, bool)
        mask[number : number + 6, 4:20] = True
        return [region_json(RegionMask("coat", mask, 1.0), f"r{number}")]


@pytest.fixture(scope="module")
def labelled(make_archive, start):
    """Fifty tasks, four of them labelled and published."""
    archive = make_archive("sync")
    for number in range(50):
        archive.upload(f"sync-{number}.png", png(number))
    seconds(start, RUN_INGEST, archive.settings)
    return archive


def test_sync_killed_anywhere_publishes_what_an_undisturbed_run_does(labelled, start, make_workspace, tmp_path) -> None:
    labelers = Labelers(labelled)
    labelers.round(0)
    most = seconds(start, RUN_SYNC, labelled.settings)
    for number in range(1, KILLS + 1):
        labelers.round(number)
        kill_at_random(start(RUN_SYNC, labelled.settings), most)

    sync(labelled.bucket, labelled.labels, labelled.settings)

    workspace = Workspace(labelled.settings.workspace_path, labelled.settings)
    for tag in workspace.dataset_tags():
        assert published_whole(workspace, labelled.bucket, tag), tag
    manifest = pd.read_parquet(workspace.path / MANIFEST)
    there = {ref.name for ref in gcs.list_objects(labelled.bucket, labelled.settings.target_bucket, "annotations/")}
    assert there == {f"annotations/{uuid}.json" for uuid in manifest["annotations"].explode()}
    assert workspace.git("status", "--porcelain") == ""

    update = {"var": tmp_path / "var", "target_bucket": "sync2-labels", "dvc_bucket": "sync2-data"}
    undisturbed = labelled.settings.model_copy(update=update)
    for one in (undisturbed.target_bucket, undisturbed.dvc_bucket):
        gcs.ensure_bucket(labelled.bucket, one)
    other = make_workspace(undisturbed, "Archive sync")
    sync(labelled.bucket, labelled.labels, undisturbed)
    assert (other.path / VERSION).read_bytes() == (workspace.path / VERSION).read_bytes()


def published_whole(workspace: Workspace, bucket: Client, tag: str) -> bool:
    """Return whether the remote holds each object that a version consists of, with its content."""
    return not missing_objects(workspace, bucket, needed_objects(workspace, tag))


def test_two_syncs_at_once_publish_one_version(labelled, start) -> None:
    workspace = Workspace(labelled.settings.workspace_path, labelled.settings)
    before = workspace.dataset_tags()
    labelers = Labelers(labelled)
    body = {"result": labelers._drawn(3), "lead_time": 2.0}
    project = find_project(labelled.labels, load_params(labelled.settings.params_path))
    open_task = next(task.id for task in list_tasks(labelled.labels, project) if not task.opened)
    labelled.labels.post(f"/api/tasks/{open_task}/annotations/", body)
    both = [start(RUN_SYNC, labelled.settings) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(workspace.dataset_tags()) == len(before) + 1
