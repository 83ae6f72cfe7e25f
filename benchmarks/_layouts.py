"""A dataset version in two layouts: shards as they are now, and a file per annotation and mask, as it once was.

Both are published from the same data to the same bucket server, and pulled into empty caches, taking turns.
"""

import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from google.cloud.storage import Client

from benchmarks.harness import seconds
from pipelines.dataset.commands import GIT_IDENTITY, run
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, IMAGES, MASKS
from pipelines.dataset.records import annotation_json
from pipelines.dataset.workspace import Workspace
from pipelines.gcs import client as gcs
from pipelines.settings import Settings

SHARDS, FILES = "shards", "files"
_TARGETS = (ANNOTATIONS, MASKS, IMAGES)


def seconds_of_pulls(bucket: Client, settings: Settings, dataset: Dataset, rounds: int) -> dict[str, float]:
    """Return the median seconds of `dvc pull` of a dataset by layout: `SHARDS` and `FILES`."""
    taken: dict[str, list[float]] = {SHARDS: [], FILES: []}
    with _published(bucket, settings, dataset) as versions:
        for number in range(rounds):
            for layout in list(taken) if number % 2 else list(taken)[::-1]:
                taken[layout].append(_pull(versions[layout]))
    return {layout: statistics.median(values) for layout, values in taken.items()}


@contextmanager
def _published(bucket: Client, settings: Settings, dataset: Dataset) -> Iterator[Mapping[str, Workspace]]:
    """Publish a dataset in both layouts, each from a git repository of its own to a bucket of its own."""
    with tempfile.TemporaryDirectory(prefix="layouts-", dir=settings.var) as name:
        versions = {}
        for layout in (SHARDS, FILES):
            folder, dvc_bucket = Path(name) / layout, f"{layout}-{uuid4().hex[:12]}"
            gcs.ensure_bucket(bucket, dvc_bucket)
            own = settings.model_copy(update={"var": folder / "var", "dvc_bucket": dvc_bucket})
            versions[layout] = Workspace(folder / "workspace", own)
            versions[layout].ensure(_empty_repository(folder / "source"))
            _copy(dataset, Dataset(versions[layout].path), layout)
            versions[layout].dvc("add", *map(str, _TARGETS))
            versions[layout].git("add", "data")
            versions[layout].git("commit", "--quiet", "--message", layout)
            versions[layout].dvc("push")
            shutil.rmtree(own.var)  # its cache: what is pulled comes from the bucket
        yield versions


def _empty_repository(folder: Path) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").touch()
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    for command in (("init", "--quiet"), ("add", "--all"), (*GIT_IDENTITY, "commit", "--quiet", "--message", "start")):
        run(["git", *command], folder)
    return folder


def _copy(dataset: Dataset, target: Dataset, layout: str) -> None:
    """Write a dataset's annotations, masks and photos in a layout."""
    shutil.copytree(dataset.path(IMAGES), target.path(IMAGES))
    if layout == SHARDS:
        for path in (ANNOTATIONS, MASKS):
            shutil.copytree(dataset.path(path), target.path(path))
        return
    for path in (ANNOTATIONS, MASKS):
        target.path(path).mkdir(parents=True)
    for annotation in dataset.annotations.read():
        (target.path(ANNOTATIONS) / f"{annotation.uuid}.json").write_bytes(annotation_json(annotation))
    for shard in dataset.annotations.shards():
        for sha256, png in dataset.masks.read_shard(shard).items():
            (target.path(MASKS) / f"{sha256}.png").write_bytes(png)


def _pull(version: Workspace) -> float:
    """Return the seconds of `dvc pull` in a new clone with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="pull-", dir=version.path.parent) as name:
        clone = Workspace(Path(name) / "clone", version.settings.model_copy(update={"var": Path(name) / "var"}))
        clone.ensure(version.path)
        taken = seconds(lambda: clone.dvc("pull"))
        for path in _TARGETS:
            assert len(list((clone.path / path).iterdir())) == len(list((version.path / path).iterdir())), path
    return taken
