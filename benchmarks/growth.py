"""How cost grows with the archive: 500, 2,000 and 8,000 photos, each fully labelled and published.

MASKLOOP_BENCH_SIZES names other sizes. Rows are seconds at each size; «times better» is the time at the size before by
it, so 0.25 is linear and 1 is flat. Syncs of changes are the median of three. Ingest of nothing new is the second one
after all new photos were labelled; the first reads their tasks again. Photos have 550×830 pixels, everything is real,
and projects are a day old.
"""

import os
import statistics
from contextlib import chdir
from pathlib import Path

from google.cloud.storage import Client

from benchmarks._archive import age, annotate_new, change, regions_of_drawings, upload, write_catalog
from benchmarks._stack import local_stack
from benchmarks.harness import Row, seconds
from pipelines.dataset.compile import compile_dataset
from pipelines.dataset.memory import PLACE
from pipelines.dataset.pipeline import sync
from pipelines.dataset.workspace import Workspace
from pipelines.gcs import client as gcs
from pipelines.ingest.pipeline import ingest
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.schema import RegionJson
from pipelines.params import Params, load_params
from pipelines.settings import PROJECT_ROOT, Settings

_SIZES = tuple(int(size) for size in os.environ.get("MASKLOOP_BENCH_SIZES", "500,2000,8000").split(","))
_CHANGED, _ROUNDS = 20, 3
_CHANGES = f"sync of {_CHANGED} changes"


def run() -> list[Row]:
    """Grow one archive step by step, and measure each station at each size."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    results = regions_of_drawings(params)
    figures: dict[str, list[float]] = {}
    with local_stack() as stack:
        stack.up_without_clock()
        settings = stack.settings()
        bucket, labels = gcs.connect(settings), connect(settings)
        project = find_project(labels, params)
        write_catalog(bucket, settings, _SIZES[-1])
        before = 0
        for size in _SIZES:
            photos = upload(bucket, settings, range(before, size))
            annotate_new(bucket, labels, project, photos, results)
            age(settings)
            before = size
            for name, took in _measured(bucket, labels, settings, project, results).items():
                figures.setdefault(name, []).append(took)
    return [
        Row(
            f"{name}, {size} photos",
            took,
            earlier,
            earlier / took if earlier else None,
            "s",
            _ROUNDS if name == _CHANGES else 1,
        )
        for name, values in figures.items()
        for size, took, earlier in zip(_SIZES, values, [None, *values], strict=False)
    ]


def _measured(
    bucket: Client, labels: LabelStudioClient, settings: Settings, project: int, results: list[list[RegionJson]]
) -> dict[str, float]:
    params = load_params(settings.params_path)
    _nothing_to_ingest(bucket, labels, settings, params)
    found = {"ingest, nothing new": seconds(lambda: _nothing_to_ingest(bucket, labels, settings, params))}
    found["sync of all that is new"] = seconds(lambda: sync(bucket, labels, settings))
    taken = []
    for number in range(_ROUNDS):
        change(labels, project, results, number * _CHANGED, _CHANGED)
        taken.append(seconds(lambda: sync(bucket, labels, settings)))
    found[_CHANGES] = statistics.median(taken)
    found["sync of nothing"] = seconds(lambda: sync(bucket, labels, settings))
    workspace = Workspace(settings.workspace_path, settings)
    with chdir(workspace.path):
        PLACE.unlink()
        found["full compile"] = seconds(lambda: compile_dataset(load_params(Path("params.yaml"))))
    targets = ("data/annotations", "data/images", "data/before.parquet")
    found["dvc add, nothing new"] = seconds(lambda: workspace.dvc("add", *targets))
    found["dvc push, nothing new"] = seconds(lambda: workspace.dvc("push"))
    return found


def _nothing_to_ingest(bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params) -> None:
    report = ingest(bucket, labels, settings, params)
    assert report.unchanged == report.listed - report.ignored, report.total
    assert not report.described, report.total
