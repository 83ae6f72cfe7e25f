"""An archive with masters and photos that move, in a real Label Studio and through real syncs."""

import base64
import io
import random

import httpx
import numpy as np
import pytest
from PIL import Image

from pipelines.dataset.files import MANIFEST
from pipelines.dataset.pipeline import sync
from pipelines.dataset.published import Published
from pipelines.exchange.importer import regions_of
from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import REPORT, ingest
from pipelines.labelstudio.tasks import list_task_json, list_tasks
from pipelines.params import load_params
from pipelines.photos.decode import decode_image

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def saved(seed: int, kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 4, (15, 10, 3), np.uint8).repeat(4, 0).repeat(4, 1) * 60
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def test_masters_are_shown_and_photos_that_move_keep_their_work(make_archive, tmp_path) -> None:
    archive = make_archive("archive")
    params = load_params(archive.settings.params_path)
    master = saved(1, "TIFF")
    for name, data in (("master.tif", master), ("inbox/a.png", saved(2, "PNG")), ("inbox/b.png", saved(3, "PNG"))):
        archive.upload(name, data)
    report = ingest(archive.bucket, archive.labels, archive.settings, params)
    assert (report.created, report.problems) == (3, ())
    tasks = {task.image.uri.rpartition("/")[2]: task for task in list_tasks(archive.labels, archive.project)}

    of_master = tasks["master.tif"]
    [raw] = list_task_json(
        archive.labels,
        archive.project,
        page_size=1,
        query={"selectedItems": {"all": False, "included": [of_master.id]}},
    )
    copy = resolved(archive, of_master.id, raw["data"]["image"])
    assert (copy.status_code, copy.headers["content-type"]) == (200, "image/jpeg")
    assert np.abs(decode_image(copy.content).astype(int) - decode_image(master)).mean() < 4
    secret = resolved(archive, of_master.id, f"gs://{archive.settings.target_bucket}/{REPORT}")
    assert secret.status_code >= 400, "only copies are shown of the bucket with people's work"

    mask = np.zeros((60, 40), np.uint8)
    mask[10:40, 5:30] = 3
    for name in ("master.tif", "inbox/a.png"):
        task = tasks[name.rpartition("/")[2]]
        body = {"result": regions_of(mask, params), "was_cancelled": False, "lead_time": 9}
        archive.labels.post(f"/api/tasks/{task.id}/annotations/", body)
    assert sync(archive.bucket, archive.labels, archive.settings).photos == 2

    rename(archive, "inbox/a.png", "ss99/a.png")
    rename(archive, "inbox/b.png", "ss99/b.png")
    report = ingest(archive.bucket, archive.labels, archive.settings, params)
    assert (report.moved, report.created, report.problems) == (2, 0, ())
    body = {"result": regions_of(mask, params), "was_cancelled": False, "lead_time": 9}
    archive.labels.post(f"/api/tasks/{tasks['b.png'].id}/annotations/", body)
    version = sync(archive.bucket, archive.labels, archive.settings)

    assert (version.photos, version.annotations) == (3, 3)
    with Published.of(archive.settings).checked_out(version.tag) as dataset:
        manifest = dataset.manifest().set_index("uri")
        names = sorted(uri.partition("/photos/")[2] for uri in manifest.index)
        assert names == ["master.tif", "ss99/a.png", "ss99/b.png"]
        sha256 = next(row["sha256"] for uri, row in manifest.iterrows() if uri.endswith(".tif"))
        assert dataset.image_path(sha256).read_bytes() == master, "the dataset holds the original"
        assert dataset.path(MANIFEST).exists()


def test_a_hundred_moves_at_random_times_lose_and_double_nothing(make_archive) -> None:
    """Photos move before and after they are labelled, before and after ingest and sync have seen them."""
    archive, chance = make_archive("moves"), random.Random(5)
    params = load_params(archive.settings.params_path)
    names = {number: f"in/{number}.png" for number in range(40)}
    for number, name in names.items():
        archive.upload(name, saved(100 + number, "PNG"))
    ingest(archive.bucket, archive.labels, archive.settings, params)
    tasks = {task.image.sha256: task.id for task in list_tasks(archive.labels, archive.project)}
    mask = np.zeros((60, 40), np.uint8)
    mask[10:40, 5:30] = 3
    body = {"result": regions_of(mask, params), "was_cancelled": False, "lead_time": 9}
    labelled: set[str] = set()
    for step in range(4):
        for number in chance.sample(sorted(names), 25):
            new = f"{chance.choice('xyz')}/{step}-{number}.png"
            rename(archive, names[number], new)
            names[number] = new
            open_tasks = sorted(set(tasks) - labelled)
            if open_tasks and chance.random() < 0.35:
                sha256 = chance.choice(open_tasks)
                archive.labels.post(f"/api/tasks/{tasks[sha256]}/annotations/", body)
                labelled.add(sha256)
        if step % 2:
            sync(archive.bucket, archive.labels, archive.settings)
        report = ingest(archive.bucket, archive.labels, archive.settings, params)
        assert (report.created, report.problems) == (0, ())

    sync(archive.bucket, archive.labels, archive.settings)

    assert {task.image.sha256: task.id for task in list_tasks(archive.labels, archive.project)} == tasks
    published = Published.of(archive.settings)
    manifest = published.manifest(published.newest())
    assert set(manifest["sha256"]) == labelled
    assert sum(len(annotations) for annotations in manifest["annotations"]) == len(labelled)
    uris = {f"gs://{archive.settings.source_bucket}/photos/{name}" for name in names.values()}
    assert set(manifest["uri"]) <= uris


def resolved(archive, task_id: int, uri: str) -> httpx.Response:
    """Ask Label Studio for an object as its page does."""
    token = archive.settings.label_studio_token.get_secret_value()
    return httpx.get(
        f"{archive.labels.url}/tasks/{task_id}/resolve/",
        params={"fileuri": base64.urlsafe_b64encode(uri.encode()).decode()},
        headers={"Authorization": f"Token {token}"},
        timeout=30,
    )


def rename(archive, old: str, new: str) -> None:
    ref = gcs.stat(archive.bucket, archive.settings.source_bucket, f"photos/{old}")
    data = gcs.read(archive.bucket, ref)
    gcs.delete(archive.bucket, ref)
    archive.upload(new, data)
