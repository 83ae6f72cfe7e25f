"""Import labelled photos of other tools: through the bucket, ingest's checks and Label Studio, like all other photos.

Their masks become annotations, which people can correct and the next sync brings into a dataset, with the dataset's own
checks. Photos and masks are checked first; what does not fit is named and not uploaded. After a kill, running the
import again does what is missing.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from google.cloud.storage import Client
from rich.progress import track

from pipelines.dataset.split import EXCLUDED, TEST, TRAIN, VAL
from pipelines.errors import ImageError
from pipelines.exchange.labelled_photos import PHOTO_ERRORS, LabelledPhotos, Origin
from pipelines.forget.ledger import load_forgotten
from pipelines.fs import held
from pipelines.gcs.client import put, set_pool_size, stat
from pipelines.ingest.intake import REMOVED_ON_REQUEST, WHY_NO_TASK
from pipelines.ingest.pipeline import ingest
from pipelines.ingest.report import IngestReport
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.regions import IMPORTED
from pipelines.labelstudio.render import region_id, region_json
from pipelines.labelstudio.schema import RegionJson
from pipelines.labelstudio.tasks import list_tasks, write_origin
from pipelines.params import IGNORE, Params
from pipelines.photos.copies import resample_mask
from pipelines.photos.decode import examine_image, image_kind, sha256_hex
from pipelines.records import IMPORTED_GROUP, IMPORTED_SPLIT, Metadata, RegionMask, Task
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_UPLOADS, _CHECKS = 16, 4  # threads; checks decode photos
_ALL = 1_000_000
_FROM_MODEL = f"{IMPORTED}model"  # the version of the unknown model that drew an imported mask
_PROTECTION = ("", TRAIN, EXCLUDED, VAL, TEST)  # of the splits of equal photos, the latter counts


@dataclass(frozen=True)
class CheckedPhoto:
    """A photo with its mask, and what is wrong with it; `problem` is empty when nothing is."""

    name: str
    sha256: str = ""
    problem: str = ""
    origin: Origin = field(default_factory=Origin)
    overlap_pixels: int = 0  # that several labels claim
    is_empty: bool = False  # all background


@dataclass(frozen=True)
class ImportReport:
    """What became of the photos; `problems` names those without an annotation, `ingested` is the report of ingest.

    `left_out` names what belongs to no photo with a mask, by what it is. A dry run ingests nothing, and `annotated`
    counts the photos that would be annotated unless they are already.
    """

    photos: int
    annotated: int
    before: int
    problems: tuple[str, ...]
    ingested: IngestReport | None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the totals in one line, then a line per problem."""
        if self.ingested is None:
            counted = f"dry run, nothing is uploaded: {self.photos} photos = {self.annotated} with an annotation"
        else:
            counted = f"{self.photos} photos = {self.annotated} annotated + {self.before} annotated before"
        total = f"{counted} + {len(self.problems)} without annotation"
        left_out = [
            f"left out: {len(names)} {what}, such as {names[0]}" for what, names in self.left_out.items() if names
        ]
        return "\n".join(["; ".join([total, *self.remarks, *left_out]), *(f"  {text}" for text in self.problems)])


def import_labelled(
    bucket: Client, labels: LabelStudioClient, settings: Settings, params: Params, source: LabelledPhotos, name: str
) -> ImportReport:
    """Upload photos below `name` in the source bucket, ingest them, and annotate tasks that have no annotation yet.

    Before any annotation, split and group of the photos are written to their tasks (`imported_split` and
    `imported_group`), also where the project has a photo of the same bytes. Without a catalogue in the bucket one with
    the photos' names is written. Raise what `ingest` raises, and ConfigurationError before anything is uploaded when
    the photos show labels that params.yaml does not have.
    """
    forgotten = load_forgotten(bucket, settings.target_bucket)
    checked = [
        replace(photo, problem=f"{REMOVED_ON_REQUEST}: {WHY_NO_TASK}") if photo.sha256 in forgotten else photo
        for photo in check_photos(source, params)
    ]
    usable = [photo for photo in checked if not photo.problem]
    folder = f"{settings.source_prefix}{name.strip('/')}/"
    _upload(bucket, settings, source, [photo.name for photo in usable], folder)
    origins = _origins(checked)
    with_data = {sha256: _as_data(origin) for sha256, origin in origins.items()}
    full_size = {photo.sha256 for photo in usable}  # masks drawn elsewhere lose no pixel
    report = ingest(bucket, labels, settings, params, with_data, full_size)
    project = find_project(labels, params)
    tasks = list(list_tasks(labels, project))
    with held(settings.var / "ingest.lock"):  # the other writer of task data
        _write_origins(labels, project, tasks, origins)  # also to tasks that showed these bytes before
    by_uri = {task.image.uri: task for task in tasks}
    aside = {problem.uri: f"{problem.reason}: {problem.message}" for problem in report.problems}
    problems = [f"{photo.name}: {photo.problem}" for photo in checked if photo.problem]
    annotated, before = 0, 0
    for photo in track(usable, "annotating", total=len(usable), transient=True):
        uri = f"gs://{settings.source_bucket}/{folder}{photo.name}"
        task = by_uri.get(uri)
        if task is None:
            problems.append(f"{photo.name}: {aside.get(uri, 'it has no task')}")
        elif task.annotation_count:
            before += 1
        elif problem := _annotate(labels, task, source, photo.name, params):
            problems.append(f"{photo.name}: {problem}")
        else:
            annotated += 1
    total = _without_counts(checked, source)
    return replace(total, annotated=annotated, before=before, problems=tuple(sorted(problems)), ingested=report)


def dry_run(source: LabelledPhotos, params: Params) -> ImportReport:
    """Check everything as `import_labelled` does, and change nothing; raise ConfigurationError as it does."""
    checked = check_photos(source, params)
    problems = tuple(f"{photo.name}: {photo.problem}" for photo in checked if photo.problem)
    return replace(_without_counts(checked, source), annotated=len(checked) - len(problems), problems=problems)


def check_photos(source: LabelledPhotos, params: Params) -> list[CheckedPhoto]:
    """Read all photos and masks; return them in order of their names, each with its problem.

    Of photos with the same bytes the first is used. Raise ConfigurationError when there are labels that params.yaml
    does not have.
    """
    source.require_labels()
    names = source.take(0, _ALL)

    def check(name: str) -> CheckedPhoto:
        return _check(source, name, params)

    with ThreadPoolExecutor(_CHECKS) as pool:
        checked = list(track(pool.map(check, names), "checking photos", total=len(names), transient=True))
    first: dict[str, str] = {}
    for index, photo in enumerate(checked):
        if photo.problem:
            continue
        original = first.setdefault(photo.sha256, photo.name)
        if original != photo.name:
            checked[index] = replace(photo, problem=f"duplicate: same bytes as {original}, whose mask is used")
    return checked


def _check(source: LabelledPhotos, name: str, params: Params) -> CheckedPhoto:
    origin = source.origin(name)
    if not name.lower().endswith(params.ingest.suffixes):
        return CheckedPhoto(
            name, problem=f"it has none of the suffixes {', '.join(params.ingest.suffixes)}; convert it"
        )
    try:
        data = source.photo(name)
        sha256 = sha256_hex(data)
        if image_kind(data)[1]:
            raise ImageError("animated", "the file is an animation; nobody could tell which frame was labelled")
        height, width, _ = examine_image(data, max_megapixels=params.ingest.max_megapixels)
    except ImageError as error:
        return CheckedPhoto(name, problem=f"{error.reason}: {error}")
    except PHOTO_ERRORS as error:
        return CheckedPhoto(name, problem=f"it cannot be read: {error}")
    try:
        drawn = source.drawn(name)
    except PHOTO_ERRORS as error:
        return CheckedPhoto(name, sha256, f"its mask cannot be read: {error}", origin)
    if drawn.mask.shape != (height, width):
        return CheckedPhoto(name, sha256, _describe_sizes(drawn.mask, height, width), origin)
    return CheckedPhoto(name, sha256, "", origin, drawn.overlap_pixels, not drawn.mask.any())


def _describe_sizes(mask: np.ndarray, height: int, width: int) -> str:
    text = f"its mask has {mask.shape[1]}×{mask.shape[0]} pixels, the photo {width}×{height}"
    turned = "; EXIF turns the photo, and masks are drawn on the upright one: turn the mask"
    return text + (turned if mask.shape == (width, height) else "")


def _without_counts(checked: Sequence[CheckedPhoto], source: LabelledPhotos) -> ImportReport:
    """Return a report with everything but counts and problems of annotations."""
    usable = [photo for photo in checked if not photo.problem]
    splits = Counter(photo.origin.split for photo in usable if photo.origin.split)
    remarks = []
    if splits:
        remarks.append("splits kept: " + ", ".join(f"{count} {split}" for split, count in sorted(splits.items())))
    if overlaps := [photo for photo in usable if photo.overlap_pixels]:
        pixels = sum(photo.overlap_pixels for photo in overlaps)
        remarks.append(f"{pixels} pixels of {len(overlaps)} photos are claimed by several labels")
    if empty := [photo.name for photo in usable if photo.is_empty]:
        remarks.append(f"{len(empty)} photos have no label at all, such as {empty[0]}")
    return ImportReport(len(checked), 0, 0, (), None, source.left_out(), tuple(remarks))


def _origins(checked: Sequence[CheckedPhoto]) -> dict[str, Origin]:
    """Return split and group by SHA-256; of equal photos the most protective split counts, and the first group."""
    origins: dict[str, Origin] = {}
    for photo in checked:
        if photo.sha256:
            origins[photo.sha256] = _merged(origins.get(photo.sha256, Origin()), photo.origin)
    return origins


def _merged(first: Origin, second: Origin) -> Origin:
    split = max(first.split, second.split, key=_PROTECTION.index)
    return Origin(split, first.group or second.group)  # `blind` is of a mask, not of the photo


def _as_data(origin: Origin) -> Metadata:
    """Return what a task's data holds of an origin, so that nobody can label a photo before its split is known."""
    return {key: text for key, text in ((IMPORTED_SPLIT, origin.split), (IMPORTED_GROUP, origin.group)) if text}


def _write_origins(
    labels: LabelStudioClient, project: int, tasks: Sequence[Task], origins: Mapping[str, Origin]
) -> None:
    """Write split and group to the tasks of the imported bytes; a split that is there already never becomes weaker."""
    wanted = [(task, origins[task.image.sha256]) for task in tasks if task.image.sha256 in origins]
    for task, origin in track(wanted, "keeping splits", total=len(wanted), transient=True):
        split = task.metadata.get(IMPORTED_SPLIT, "")
        before = Origin(split if split in _PROTECTION else "", task.metadata.get(IMPORTED_GROUP, ""))
        merged = _merged(before, origin)
        if merged != before:
            write_origin(labels, project, task.id, merged.split, merged.group)


def _upload(bucket: Client, settings: Settings, source: LabelledPhotos, names: Sequence[str], folder: str) -> None:
    set_pool_size(bucket, _UPLOADS)
    if stat(bucket, settings.source_bucket, settings.catalog) is None:
        put(bucket, settings.source_bucket, settings.catalog, source.catalog(), "text/csv; charset=utf-8")

    def upload(name: str) -> None:
        kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix := name.rpartition(".")[2].lower(), suffix)
        put(bucket, settings.source_bucket, folder + name, source.photo(name), f"image/{kind}")

    with ThreadPoolExecutor(_UPLOADS) as pool:
        for _ in track(pool.map(upload, names), "uploading", total=len(names), transient=True):
            pass


def _annotate(labels: LabelStudioClient, task: Task, source: LabelledPhotos, photo: str, params: Params) -> str:
    """Submit a photo's mask as an annotation; return what is wrong with it, empty when nothing is."""
    try:
        mask, blind = source.drawn(photo).mask, source.origin(photo).blind
    except PHOTO_ERRORS as error:
        return f"its mask cannot be read: {error}"
    if mask.shape != (task.image.height, task.image.width):
        return _describe_sizes(mask, task.image.height, task.image.width)
    result = regions_of(resample_mask(mask, *task.image.shown_size), params, blind=blind)
    labels.post(f"/api/tasks/{task.id}/annotations/", {"result": result, "was_cancelled": False, "lead_time": 0})
    return ""


def regions_of(mask: np.ndarray, params: Params, *, blind: bool = True) -> list[RegionJson]:
    """Return a (H, W) uint8 index mask as regions, one for each label and one for what is ignored.

    Unless it is `blind`, their ids name a model, so that sync takes the mask for one that a model drew.
    """
    names = {**params.label_names, IGNORE: params.ignore.name}
    ids = {value: f"{IMPORTED}{value}" if blind else region_id(_FROM_MODEL, str(value)) for value in names}
    return [
        {**region_json(RegionMask(names[value], mask == value, 1.0), ids[value]), "origin": "manual"}
        for value in np.unique(mask[mask > 0]).tolist()
    ]
