"""Import externally labelled photos: through the bucket, ingest's checks and Label Studio, like all other photos.

Their masks become annotations, which people can correct and the next sync brings into a dataset, with the dataset's own
checks. After a kill, running the import again does what is missing.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from google.cloud.storage import Client
from rich.progress import track

from pipelines.errors import ConfigurationError
from pipelines.exchange.masked_photos import MaskedPhotos
from pipelines.gcs.client import put, set_pool_size, stat
from pipelines.ingest.pipeline import IngestReport, ingest
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.regions import IMPORTED
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.schema import RegionJson
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import IGNORE, Params
from pipelines.records import RegionMask, Task
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_UPLOADS = 16


@dataclass(frozen=True)
class ImportReport:
    """What became of the photos; `problems` names those without an annotation, `ingested` is the report of ingest.

    `without_mask` and `without_photo` are files of both folders that have no counterpart and were left out.
    """

    photos: int
    annotated: int
    before: int
    problems: tuple[str, ...]
    ingested: IngestReport
    without_mask: tuple[str, ...] = ()
    without_photo: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the total in one line, then a line per problem."""
        total = (
            f"{self.photos} photos = {self.annotated} annotated + {self.before} annotated before + "
            f"{len(self.problems)} without annotation"
        )
        unpaired = {"photos without a mask": self.without_mask, "masks without a photo": self.without_photo}
        left_out = [f"left out: {len(names)} {what}, such as {names[0]}" for what, names in unpaired.items() if names]
        return "\n".join(["; ".join([total, *left_out]), *(f"  {problem}" for problem in self.problems)])


def import_labelled(
    bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params, source: MaskedPhotos, name: str
) -> ImportReport:
    """Upload photos below `name` in the source bucket, ingest them, and annotate tasks that have no annotation yet.

    Without a catalogue in the bucket one with the photos' names is written. Raise what `ingest` raises, and
    ConfigurationError before anything is uploaded when masks hold values that the table of labels does not name.
    """
    source.require_lines()
    names = source.take(0, 1_000_000)
    folder = f"{settings.source_prefix}{name.strip('/')}/"
    _upload(bucket, settings, source, names, folder)
    report = ingest(bucket, labels, settings, params)
    project = find_project(labels, params)
    uris = {f"gs://{settings.source_bucket}/{folder}{photo}": photo for photo in names}
    tasks = {task.image.uri: task for task in list_tasks(labels, project) if task.image.uri in uris}
    aside = {problem.uri: f"{problem.reason}: {problem.message}" for problem in report.problems}
    problems, annotated, before = [], 0, 0
    for uri, photo in track(uris.items(), "annotating", total=len(uris), transient=True):
        task = tasks.get(uri)
        if task is None:
            problems.append(f"{photo}: {aside.get(uri, 'it has no task')}")
        elif task.annotation_count:
            before += 1
        elif problem := _annotate(labels, task, source, photo, params):
            problems.append(f"{photo}: {problem}")
        else:
            annotated += 1
    return ImportReport(
        len(names),
        annotated,
        before,
        tuple(problems),
        report,
        tuple(source.without_mask()),
        tuple(source.without_photo()),
    )


def _upload(bucket: Client, settings: Settings, source: MaskedPhotos, names: Sequence[str], folder: str) -> None:
    set_pool_size(bucket, _UPLOADS)
    if stat(bucket, settings.source_bucket, settings.catalog) is None:
        put(bucket, settings.source_bucket, settings.catalog, source.catalog(), "text/csv; charset=utf-8")

    def upload(name: str) -> None:
        kind = {"jpg": "jpeg"}.get(suffix := name.rpartition(".")[2].lower(), suffix)
        put(bucket, settings.source_bucket, folder + name, source.photo(name), f"image/{kind}")

    with ThreadPoolExecutor(_UPLOADS) as pool:
        for _ in track(pool.map(upload, names), "uploading", total=len(names), transient=True):
            pass


def _annotate(labels: LabelStudioClient, task: Task, source: MaskedPhotos, photo: str, params: Params) -> str:
    """Submit a photo's mask as an annotation; return what is wrong with it, empty when nothing is."""
    try:
        mask = source.truth(photo)
    except (OSError, ConfigurationError) as error:
        return f"its mask cannot be read: {error}"
    if mask.shape != (task.image.height, task.image.width):
        return f"its mask has {mask.shape[1]}×{mask.shape[0]} pixels, the photo {task.image.width}×{task.image.height}"
    result = regions_of(mask, params)
    labels.post(f"/api/tasks/{task.id}/annotations/", {"result": result, "was_cancelled": False, "lead_time": 0})
    return ""


def regions_of(mask: np.ndarray, params: Params) -> list[RegionJson]:
    """Return a (H, W) uint8 index mask as regions, one for each label and one for what is ignored."""
    names = {**params.label_names, IGNORE: params.ignore.name}
    return [
        {**region_json(RegionMask(names[value], mask == value, 1.0), f"{IMPORTED}{value}"), "origin": "manual"}
        for value in np.unique(mask[mask > 0]).tolist()
    ]
