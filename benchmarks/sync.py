"""Twenty changed annotations in a project of two thousand: to masks, and to a published version.

Against the usual way: a snapshot export of the project, and the SDK converter's BRUSH_TO_PNG on it. Label Studio, the
bucket server, git and DVC are real; photos have 550×830 pixels and 60 KB, and share fifty drawn label maps. «masks»
ends when the masks are compiled, as the stage does it, and before DVC takes them over; «version» ends with the tag.
"""

import json
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from google.cloud.storage import Client
from label_studio_sdk.converter import Converter

from benchmarks._archive import age, annotate_new, change, regions_of_drawings, upload
from benchmarks._stack import local_stack
from benchmarks.harness import Row, seconds
from pipelines.dataset.compile import compile_dataset
from pipelines.dataset.pipeline import look_and_copy, sync
from pipelines.dataset.workspace import Workspace
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.interface import labeling_interface
from pipelines.labelstudio.project import find_project
from pipelines.params import Params, load_params
from pipelines.settings import PROJECT_ROOT, Settings

_TASKS, _CHANGED = 2000, 20


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
        first = seconds(lambda: sync(bucket, labels, settings))
        change(labels, project, results, 0, _CHANGED)
        masks = seconds(lambda: _to_masks(bucket, labels, settings))
        sync(bucket, labels, settings)
        change(labels, project, results, _CHANGED, _CHANGED)
        version = seconds(lambda: sync(bucket, labels, settings))
        nothing = seconds(lambda: sync(bucket, labels, settings))
        peer = seconds(lambda: _usual_way(labels, project, params))
    return [
        Row(f"masks of {_CHANGED} changed of {_TASKS}", masks, peer, peer / masks, "s", 1),
        Row(f"version of {_CHANGED} changed of {_TASKS}", version, peer, peer / version, "s", 1),
        Row(f"version, nothing changed of {_TASKS}", nothing, None, None, "s", 1),
        Row(f"version, the first of {_TASKS}", first, peer, peer / first, "s", 1),
    ]


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
