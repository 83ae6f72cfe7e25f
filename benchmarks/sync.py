"""Twenty changed annotations in a project of two thousand: to masks, and to a published version.

Against the usual way: a snapshot export of the project, and the SDK converter's BRUSH_TO_PNG on it. Label Studio, the
bucket server, git and DVC are real; photos have 550×830 pixels and 60 KB, and share fifty drawn label maps.
"""

import io
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, closing
from pathlib import Path
from typing import Any

import numpy as np
from google.cloud.storage import Client
from label_studio_sdk.converter import Converter
from PIL import Image
from rich.progress import track

from benchmarks._stack import local_stack
from benchmarks.harness import Row
from pipelines import storage
from pipelines.dataset.compile import compile_dataset
from pipelines.dataset.workspace import Workspace
from pipelines.demo.photos import draw_photo
from pipelines.images import sha256_hex
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.interface import labeling_interface
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.render import prediction_json
from pipelines.labelstudio.tasks import list_tasks, task_data
from pipelines.params import Params, load_params
from pipelines.records import ImageRef, Prediction, RegionScore
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.sync import look_and_copy, sync

_TASKS, _CHANGED, _DRAWN = 2000, 20, 50
_IMPORTED_AT_ONCE = 100


def run() -> list[Row]:
    """Fill a project, publish it, change some annotations twice, and do the same the usual way."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    with local_stack() as stack:
        stack.command("up")
        settings = stack.settings()
        bucket, labels = storage.connect(settings), connect(settings)
        project = find_project(labels, params)
        results = list(_results(params))
        _fill(bucket, labels, settings, project, results)
        _age(settings)
        first = _seconds(lambda: sync(bucket, labels, settings))
        _change(labels, project, results, 0)
        masks = _seconds(lambda: _to_masks(bucket, labels, settings))
        sync(bucket, labels, settings)
        _change(labels, project, results, _CHANGED)
        version = _seconds(lambda: sync(bucket, labels, settings))
        nothing = _seconds(lambda: sync(bucket, labels, settings))
        peer = _seconds(lambda: _usual_way(labels, project, params))
    return [
        Row(f"masks of {_CHANGED} changed of {_TASKS}", masks, peer, peer / masks, "s", 1),
        Row(f"version of {_CHANGED} changed of {_TASKS}", version, peer, peer / version, "s", 1),
        Row(f"version, nothing changed of {_TASKS}", nothing, None, None, "s", 1),
        Row(f"version, the first of {_TASKS}", first, peer, peer / first, "s", 1),
    ]


def _results(params: Params) -> Iterator[list[dict[str, Any]]]:
    for seed in track(range(_DRAWN), "label maps"):
        mask = draw_photo(seed, params.label_ids, (830, 550)).mask
        regions = tuple(RegionScore(params.label_names[int(i)], int(i), 1.0) for i in np.unique(mask) if i)
        yield prediction_json(Prediction(mask, regions, 1.0, ""))["result"]


def _fill(
    bucket: Client, labels: LabelStudioClient, settings: Settings, project: int, results: list[list[dict[str, Any]]]
) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(7).integers(0, 255, (83, 55, 3), np.uint8)
    Image.fromarray(noise).resize((550, 830)).save(file, "JPEG", quality=88)
    tasks = []
    for number in track(range(_TASKS), "photos"):
        data = file.getvalue() + f"{number}".encode()  # other bytes, the same picture
        ref = storage.put(bucket, settings.source_bucket, f"photos/{number}.jpg", data, "image/jpeg")
        image = ImageRef(ref.uri, ref.generation, sha256_hex(data), 830, 550)
        tasks.append({"data": task_data(image, {}), "annotations": [{"result": results[number % _DRAWN]}]})
    for start in track(range(0, _TASKS, _IMPORTED_AT_ONCE), "tasks"):
        labels.post(f"/api/projects/{project}/import", tasks[start : start + _IMPORTED_AT_ONCE])


def _age(settings: Settings) -> None:
    """Date the tasks back by a day: a project whose tasks were all made within this minute is no usual one."""
    [database] = (settings.var / "label-studio").glob("*.sqlite3")
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute("UPDATE task SET updated_at = strftime('%Y-%m-%d %H:%M:%f', updated_at, '-1 day')")


def _change(labels: LabelStudioClient, project: int, results: list[list[dict[str, Any]]], first: int) -> None:
    for number, task in enumerate(list(list_tasks(labels, project))[first : first + _CHANGED]):
        [annotation] = labels.get(f"/api/tasks/{task.id}/annotations/")
        other = results[(task.id + number + 7) % _DRAWN]
        labels.patch(f"/api/annotations/{annotation['id']}/", {"result": other})


def _to_masks(bucket: Client, labels: LabelStudioClient, settings: Settings) -> None:
    workspace = Workspace(settings.workspace_path, settings)
    with workspace.locked():
        assert look_and_copy(bucket, labels, workspace) is not None
        with chdir(workspace.path):
            compile_dataset(load_params(Path("params.yaml")))


def _usual_way(labels: LabelStudioClient, project: int, params: Params) -> None:
    snapshot = labels.post(f"/api/projects/{project}/exports/", {"title": "all"})["id"]
    while (state := labels.get(f"/api/projects/{project}/exports/{snapshot}")["status"]) != "completed":
        assert state in ("created", "in_progress"), state
        time.sleep(0.5)
    tasks = labels.get(f"/api/projects/{project}/exports/{snapshot}/download", exportType="JSON")
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as folder:
        export = Path(folder) / "export.json"
        export.write_text(json.dumps(tasks), encoding="utf-8")
        converter = Converter(config=labeling_interface(params), project_dir=folder, download_resources=False)
        Path(folder, "png").mkdir()  # the converter leaves that to its caller
        converter.convert(str(export), f"{folder}/png", "BRUSH_TO_PNG", is_dir=False)


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin
