"""Twenty changed annotations in a project of two thousand: to masks, and to a published version.

Against the usual way: a snapshot export of the project, and the SDK converter's BRUSH_TO_PNG on it. Label Studio, the
bucket server, git and DVC are real; photos have 550×830 pixels and 60 KB, and share fifty drawn label maps. "masks"
ends when the masks are compiled, as the stage does it, and before DVC adds them; "version" ends with the tag.
MASKLOOP_BENCH_TASKS names another number of tasks. Memory is that of a sync's process and of all that it starts.
"""

import json
import os
import tempfile
import time
from pathlib import Path

from google.cloud.storage import Client
from label_studio_sdk.converter import Converter

from benchmarks._apart import measure_apart
from benchmarks._archive import age, annotate_new, change, regions_of_drawings, upload
from benchmarks._stack import local_stack
from benchmarks.harness import Row, seconds
from pipelines.dataset.compile import compile_dataset
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.pipeline import read_annotations, sync
from pipelines.dataset.workspace import Workspace
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.interface import labeling_interface
from pipelines.labelstudio.project import find_project
from pipelines.params import Params, load_params
from pipelines.settings import PROJECT_ROOT, Settings

_TASKS, _CHANGED = int(os.environ.get("MASKLOOP_BENCH_TASKS", "2000")), 20


def run() -> list[Row]:
    """Fill a project, publish it, change some annotations twice, and do the same the usual way."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    with local_stack() as stack:
        stack.up_without_clock()
        settings = stack.settings()
        bucket, labels = gcs.connect(settings), connect(settings)
        project = find_project(labels, params)
        results = regions_of_drawings(params)
        annotate_new(bucket, labels, project, upload(bucket, settings, range(_TASKS)), results)
        age(settings)
        first = measure_apart(_sync, settings)
        change(labels, project, results, 0, _CHANGED)
        masks = seconds(lambda: _to_masks(bucket, labels, settings))
        sync(bucket, labels, settings)
        change(labels, project, results, _CHANGED, _CHANGED)
        version = measure_apart(_sync, settings)
        nothing = measure_apart(_sync, settings)
        peer = seconds(lambda: _usual_way(labels, project, params))
    return [
        Row(f"masks of {_CHANGED} changed of {_TASKS}", masks, peer, peer / masks, "s", 1),
        Row(f"version of {_CHANGED} changed of {_TASKS}", version.seconds, peer, peer / version.seconds, "s", 1),
        Row(f"version, nothing changed of {_TASKS}", nothing.seconds, None, None, "s", 1),
        Row(f"version, the first of {_TASKS}", first.seconds, peer, peer / first.seconds, "s", 1),
        Row(f"peak memory, version of {_CHANGED} changed of {_TASKS}", version.peak_mb, None, None, "MB", 1),
        Row(f"peak memory, version, the first of {_TASKS}", first.peak_mb, None, None, "MB", 1),
    ]


def _to_masks(bucket: Client, labels: LabelStudioClient, settings: Settings) -> None:
    assert read_annotations(bucket, labels, settings)
    workspace = Workspace(settings.workspace_path, settings)
    with workspace.locked():
        compile_dataset(Dataset(workspace.path), load_params(workspace.path / "params.yaml"))


def _sync(settings: Settings) -> None:
    sync(gcs.connect(settings), connect(settings), settings)


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
