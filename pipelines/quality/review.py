"""What `maskloop quality` does: examine the labels of the newest dataset and show probable errors in Label Studio.

Photos of the splits test and val must be drawn without a model's opinion, also when they are corrected (ADR 0020), so
their reason says neither what the model sees, nor where, nor how sure it is. What is odd in an annotation is known
without a model, and is shown for photos of all splits.
"""

import logging
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.published import Published
from pipelines.dataset.shards import shard_of
from pipelines.dataset.split import BLIND_SPLITS
from pipelines.errors import AnnotationError
from pipelines.fs import held
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.regions import compile_annotation
from pipelines.labelstudio.remarks import Remark, read_remarks
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, show_reviews
from pipelines.models.registry import Registry
from pipelines.params import Params
from pipelines.quality.agreement import Drawings, measure_agreement
from pipelines.quality.folds import ENCODERS, MIN_PHOTOS, Features, predict_out_of_fold
from pipelines.quality.label_errors import JudgedPhoto, LabelIssue, find_label_issues
from pipelines.quality.metrics import Quality
from pipelines.quality.planted import GoldPhoto, clear_planted_errors, donor_regions, miss_rates, serve_gold_photos
from pipelines.records import NO_MODEL, Annotation, ModelVersion
from pipelines.segmentation.model import load_model
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_FEATURES = Path("quality")  # cache in the folder for state; may be deleted at any time
BLIND_REASON = "the mask differs from other masks: check all of it"


def review(
    settings: Settings, published: Published, registry: Registry, labels: LabelStudioClient, params: Params
) -> Quality:
    """Examine the newest dataset and show photos with probable label errors in Label Studio's tab "Review".

    First come photos that somebody is in doubt about, then those with odd annotations or with annotations that could
    not be used; last those that somebody skipped. Photos that are not among them any more leave the tab. Gold photos
    that only their expert drew are served once more.
    Raises DatasetError when nothing is published.
    """
    tag, champion = published.newest(), registry.champion()
    project = find_project(labels, params)
    with published.checked_out(tag) as dataset:
        version = _Version(published, dataset, published.manifest(tag))
        judged: Counter[str] = Counter()

        def counted() -> Iterator[JudgedPhoto]:
            for photo in _judged_photos(settings, version, registry, champion, params):
                judged[photo.judge] += 1
                yield photo

        issues = _without_opinion_on_blind(find_label_issues(counted(), params.quality.review), version.manifest)
        annotated = _read_annotations(dataset)
        odd = _odd_photos(version)
        remarks = read_remarks(labels, project)
        with held(settings.var / "ingest.lock"):
            changed = show_reviews(labels, project, _ranked_reasons(remarks, odd, issues))
        logger.info(
            "people say something about %d photos, %d have odd annotations, %d look wrong; %d tasks changed in the tab",
            len(remarks), len(odd), len(issues), changed,
        )  # fmt: skip
        _serve_gold(labels, project, version, annotated, champion, params)
        return Quality(
            dataset=tag,
            model=champion.served_as if champion else "",
            judged=judged,
            label_issues=tuple(issues),
            odd=odd,
            remarks=tuple(remarks),
            agreement=measure_agreement(_drawn_by_several(annotated.people, dataset, params), params.label_ids),
            missed=miss_rates((answer.person, answer.outcome) for answer in annotated.answers),
        )


def _without_opinion_on_blind(issues: Iterable[LabelIssue], manifest: pd.DataFrame) -> list[LabelIssue]:
    """Return the issues, those of blind splits with a reason that is the same for all of them."""
    blind = set(manifest.loc[manifest["split"].isin(BLIND_SPLITS), "sha256"])
    return [replace(issue, reason=BLIND_REASON) if issue.sha256 in blind else issue for issue in issues]


def _odd_photos(version: "_Version") -> dict[str, str]:
    """Return what is odd in the annotations of a photo by its SHA-256, in the order of the manifest.

    Photos that no mask could be made of stand last; they have no row in the manifest. Versions of older code record
    nothing odd.
    """
    manifest = version.manifest
    notes = manifest["odd"].fillna("") if "odd" in manifest else pd.Series("", manifest.index)
    odd = {str(sha256): str(note) for sha256, note in zip(manifest["sha256"], notes, strict=True) if note}
    left_out = version.dataset.left_out()
    photos = version.dataset.annotations.photos() if left_out else {}
    unusable: defaultdict[str, list[str]] = defaultdict(list)
    for uuid, reason in sorted(left_out.items()):
        if (photo := photos.get(uuid, "")) not in ("", *odd):
            unusable[photo].append(reason)
    texts = {photo: "; ".join(dict.fromkeys(reasons)) for photo, reasons in sorted(unusable.items())}
    return odd | {photo: f"the photo is left out: {text}" for photo, text in texts.items()}


def _ranked_reasons(remarks: Sequence[Remark], odd: Mapping[str, str], issues: Sequence[LabelIssue]) -> dict[str, str]:
    """Return by photo the text of its task: remark and reason behind a number, because the tab orders by text."""
    reasons = {**odd} | {issue.sha256: issue.reason for issue in issues if issue.sha256 not in odd}
    words = {remark.photo: str(remark) for remark in remarks}
    doubts, skips = ([remark.photo for remark in remarks if remark.is_doubt is doubt] for doubt in (True, False))
    photos = dict.fromkeys([*doubts, *reasons, *skips])
    digits = len(str(len(photos)))
    return {
        photo: " · ".join(filter(None, [f"{rank:0{digits}}", words.get(photo), reasons.get(photo)]))
        for rank, photo in enumerate(photos, start=1)
    }


@dataclass(frozen=True)
class _Version:
    """The version that is reviewed: its files, checked out, its manifest, and the other published versions."""

    published: Published
    dataset: Dataset
    manifest: pd.DataFrame


def _judged_photos(
    settings: Settings, version: _Version, registry: Registry, champion: ModelVersion | None, params: Params
) -> Iterator[JudgedPhoto]:
    """Yield photos with predictions of a model that was not trained on them: the champion, or that of a fold."""
    unseen = _unseen_by(champion, version) if champion else set()
    if champion and unseen:
        with tempfile.TemporaryDirectory() as scratch:
            model = load_model(registry.download(champion, Path(scratch)), version=champion.served_as)
        for sha256 in track(sorted(unseen), "examining", transient=True):
            probabilities = model.probabilities(version.dataset.read_image(sha256))
            yield JudgedPhoto(
                sha256, version.dataset.read_mask(sha256), probabilities, model.card.labels, champion.served_as
            )
    families = _families(version.manifest)
    others = {photo: family for photo, family in families.items() if photo not in unseen}
    if len(others) < MIN_PHOTOS:
        logger.info("%d photos are too few to train heads for each fold: these photos are not judged", len(others))
        return
    read_image, folder = version.dataset.read_image, settings.var / _FEATURES
    features = [Features(folder, read_image, params.train, encoder) for encoder in ENCODERS]
    for cache in features:
        cache.evict_all_but(list(others))
    yield from predict_out_of_fold(others, features, version.dataset.read_mask, params.label_ids, params.quality.folds)


def _unseen_by(champion: ModelVersion, version: _Version) -> set[str]:
    """Return the photos of blind splits that the champion was not trained on; none when that cannot be known."""
    if champion.dataset not in version.published.tags():
        return set()
    then, now = version.published.manifest(champion.dataset), version.manifest
    trained_on = set(then.loc[~then["split"].isin(BLIND_SPLITS), "sha256"])
    return set(now.loc[now["split"].isin(BLIND_SPLITS), "sha256"]) - trained_on


def _families(manifest: pd.DataFrame) -> dict[str, str]:
    """Return the family of each photo; versions older than the column have groups."""
    column = next(name for name in ("family", "group", "sha256") if name in manifest)
    return dict(zip(manifest["sha256"], manifest[column].astype(str), strict=True))


@dataclass(frozen=True)
class _Latest:
    """A person's latest annotation of a photo. They are compared as tuples: the ground truth counts as the newest."""

    is_truth: bool
    updated_at: str
    uuid: str
    task: int


@dataclass(frozen=True)
class _Answer:
    """What a person did with a planted error: `outcome` is found or missed."""

    photo: str
    task: int
    person: str
    outcome: str


@dataclass(frozen=True)
class _Annotations:
    """Everybody's latest annotations by photo and person, and apart from them the answers to planted errors."""

    people: Mapping[str, dict[str, _Latest]]
    answers: list[_Answer] = field(default_factory=list)


def _read_annotations(dataset: Dataset) -> _Annotations:
    annotated = _Annotations(defaultdict(dict))
    for annotation in dataset.annotations.read():
        photo, person, task = annotation.image.sha256, annotation.annotator, annotation.task_id
        if annotation.planted:
            annotated.answers.append(_Answer(photo, task, person, annotation.planted))
            continue
        is_truth = bool(annotation.raw.get("ground_truth"))
        latest = _Latest(is_truth, annotation.updated_at.isoformat(), annotation.uuid, task)
        by_person = annotated.people[photo]
        by_person[person] = max(latest, by_person.get(person, latest), key=astuple)
    return annotated


def _serve_gold(
    labels: LabelStudioClient, project: int, version: _Version, annotated: _Annotations,
    champion: ModelVersion | None, params: Params,
) -> None:  # fmt: skip
    """Let somebody else draw gold photos that only their expert drew; clear planted errors that were answered.

    While no champion draws masks, a planted error would be the only mask that people see, so none is shown.
    """
    answered = {answer.photo for answer in annotated.answers}
    gold = {
        photo: latest
        for photo, by_person in annotated.people.items()
        for latest in by_person.values()
        if latest.is_truth and len(by_person) == 1 and photo not in answered
    }
    locked = locked_tasks(labels, project)
    free = {photo: {latest.uuid} for photo, latest in gold.items() if latest.task not in locked}
    tasks = sorted(gold[photo].task for photo in free)
    sizes = {task.id: task.image.shown_size for task in list_tasks(labels, project, only=tasks)} if tasks else {}
    waiting = [
        GoldPhoto(gold[photo].task, photo, truth, sizes.get(gold[photo].task))
        for photo, masks in _masks_of(free, version.dataset, params)
        for truth in masks.values()
    ]
    # The label stream serves tasks with a prediction of this version; see pipelines.prelabel.pipeline.
    stream = "" if champion is None else f"{champion.served_as} (paused)" if champion.paused else champion.served_as
    planted = serve_gold_photos(
        labels, project, waiting, lambda photo: donor_regions(version.manifest, photo, version.dataset.read_mask),
        params, version=stream, plants=champion is not None and not champion.paused,
    )  # fmt: skip
    done = {answer.task for answer in annotated.answers} - {latest.task for latest in gold.values()} - locked
    clear_planted_errors(labels, sorted(done), stream or NO_MODEL)
    logger.info("%d gold photos wait for a second annotator, %d with a planted error", len(waiting), planted)


def _drawn_by_several(
    people: Mapping[str, Mapping[str, _Latest]], dataset: Dataset, params: Params
) -> Iterator[Drawings]:
    several = {photo: by_person for photo, by_person in people.items() if len(by_person) > 1}
    uuids = {photo: {latest.uuid for latest in by_person.values()} for photo, by_person in several.items()}
    for photo, masks in _masks_of(uuids, dataset, params):
        readable = {person: masks[latest.uuid] for person, latest in several[photo].items() if latest.uuid in masks}
        truth = sorted(person for person, latest in several[photo].items() if latest.is_truth and person in readable)
        yield Drawings(readable, truth[0] if truth else None)


def _masks_of(
    uuids: Mapping[str, Collection[str]], dataset: Dataset, params: Params
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each photo with the masks of these annotations, by UUID, without those that cannot be compiled."""
    for _, photos in groupby(sorted(uuids), key=shard_of):  # one shard's annotations are in memory at a time
        of_photo: dict[str, list[Annotation]] = {photo: [] for photo in photos}
        for annotation in dataset.annotations.of_photos(of_photo):
            if annotation.uuid in uuids[annotation.image.sha256]:
                of_photo[annotation.image.sha256].append(annotation)
        for photo, annotations in of_photo.items():
            masks = {annotation.uuid: _mask(annotation, params) for annotation in annotations}
            yield photo, {uuid: mask for uuid, mask in masks.items() if mask is not None}


def _mask(annotation: Annotation, params: Params) -> np.ndarray | None:
    try:
        return compile_annotation(annotation, params).mask
    except AnnotationError as error:
        logger.warning("annotation %s of %s is left out: %s", annotation.uuid, annotation.annotator, error)
        return None
