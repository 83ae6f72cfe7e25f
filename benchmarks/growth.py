"""How cost grows with the archive: 500, 2,000 and 8,000 photos, each fully labelled and published.

MASKLOOP_BENCH_SIZES names other sizes, such as 500,2000,8000,30000; MASKLOOP_BENCH_PULLS=0 leaves the pulls out, which
take most of the time. Each value is printed as soon as there is one. Rows are seconds at each size, and the peak memory
of a sync's processes; "times better" is the value at the size before by it, so 0.25 is linear and 1 is flat. Syncs of
changes are the median of three. Ingest of nothing new is the second one after all new photos were labelled; the first
reads their tasks again. `dvc pull` of a version is compared with the same version in a layout with a file per
annotation and mask: into empty caches, taking turns, the median of three. Photos have 550×830 pixels, everything is
real, and projects are a day old.
"""

import os
import shutil
import statistics
from dataclasses import dataclass

from google.cloud.storage import Client

from benchmarks._apart import measure_apart
from benchmarks._archive import age, annotate_new, change, regions_of_drawings, upload, write_catalog
from benchmarks._layouts import FILES, SHARDS, seconds_of_pulls
from benchmarks._stack import local_stack
from benchmarks.harness import Row, seconds
from pipelines.dataset.compile import CACHE, compile_dataset
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES
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
_PULLS = os.environ.get("MASKLOOP_BENCH_PULLS", "1") != "0"


@dataclass(frozen=True)
class _Value:
    """A measured value; `peer` is what it is compared with, or None for the value at the size before."""

    value: float
    unit: str = "s"
    rounds: int = 1
    peer: float | None = None


def run() -> list[Row]:
    """Grow one archive step by step, and measure each pipeline at each size."""
    params = load_params(PROJECT_ROOT / "params.yaml")
    results = regions_of_drawings(params)
    measured: dict[str, list[_Value]] = {}
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
            for name, value in _measured(bucket, labels, settings, project, results).items():
                measured.setdefault(name, []).append(value)
                print(f"{size} photos, {name}: {value.value:.1f} {value.unit}", flush=True)
    return [row for name, values in measured.items() for row in _rows(name, values)]


def _rows(name: str, values: list[_Value]) -> list[Row]:
    """Return a row per size."""
    rows = []
    for size, value, before in zip(_SIZES, values, [None, *values], strict=False):
        peer = before.value if value.peer is None and before else value.peer
        ratio = peer / value.value if peer else None
        rows.append(Row(f"{name}, {size} photos", value.value, peer, ratio, value.unit, value.rounds))
    return rows


def _measured(
    bucket: Client, labels: LabelStudioClient, settings: Settings, project: int, results: list[list[RegionJson]]
) -> dict[str, _Value]:
    params = load_params(settings.params_path)
    _nothing_to_ingest(bucket, labels, settings, params)
    measured = {"ingest, nothing new": _Value(seconds(lambda: _nothing_to_ingest(bucket, labels, settings, params)))}
    everything = measure_apart(_sync, settings)
    measured["sync of all that is new"] = _Value(everything.seconds)
    measured["peak memory, sync of all that is new"] = _Value(everything.peak_mb, "MB")
    changes = []
    for number in range(_ROUNDS):
        change(labels, project, results, number * _CHANGED, _CHANGED)
        changes.append(measure_apart(_sync, settings))
    name = f"sync of {_CHANGED} changes"
    measured[name] = _Value(statistics.median(sync.seconds for sync in changes), rounds=_ROUNDS)
    measured[f"peak memory, {name}"] = _Value(statistics.median(sync.peak_mb for sync in changes), "MB", _ROUNDS)
    measured["sync of nothing"] = _Value(measure_apart(_sync, settings).seconds)
    workspace = Workspace(settings.workspace_path, settings)
    dataset, project_params = Dataset(workspace.path), load_params(workspace.path / "params.yaml")
    shutil.rmtree(dataset.path(CACHE))
    measured["full compile"] = _Value(seconds(lambda: compile_dataset(dataset, project_params)))
    targets = [str(path) for path in (ANNOTATIONS, IMAGES, BEFORE)]
    measured["dvc add, nothing new"] = _Value(seconds(lambda: workspace.dvc("add", *targets)))
    measured["dvc push, nothing new"] = _Value(seconds(lambda: workspace.dvc("push")))
    if not _PULLS:
        return measured
    pulls = seconds_of_pulls(bucket, settings, dataset, _ROUNDS)
    name = "dvc pull of a version, against a file per annotation and mask"
    measured[name] = _Value(pulls[SHARDS], rounds=_ROUNDS, peer=pulls[FILES])
    return measured


def _sync(settings: Settings) -> None:
    sync(gcs.connect(settings), connect(settings), settings)


def _nothing_to_ingest(bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params) -> None:
    report = ingest(bucket, labels, settings, params)
    assert report.unchanged == report.listed - sum(report.ignored.values()), report.total
    assert not report.described, report.total
