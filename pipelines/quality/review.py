"""What `maskloop quality` does: look through the newest dataset, and bring what looks wrong before people's eyes."""

import logging
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.published import Published
from pipelines.dataset.shards import shard_of
from pipelines.dataset.split import BLIND_SIDES
from pipelines.errors import AnnotationError
from pipelines.fs import held
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.regions import compile_annotation
from pipelines.labelstudio.tasks import locked_tasks, show_reviews
from pipelines.models.registry import Registry
from pipelines.params import Params
from pipelines.quality.agreement import Drawings, measure_agreement
from pipelines.quality.folds import ENCODERS, ENOUGH_PHOTOS, Features, judge_out_of_fold
from pipelines.quality.label_errors import Judged, find_suspicious
from pipelines.quality.metrics import Quality
from pipelines.quality.planted import GoldPhoto, donors_of, hand_out_gold, miss_rates, take_back
from pipelines.records import NO_MODEL, Annotation, ModelVersion
from pipelines.segmentation.model import load_model
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_FEATURES = Path("quality")  # in the folder for state; may be deleted at any time


def review(
    settings: Settings, published: Published, registry: Registry, labels: LabelStudioClient, params: Params
) -> Quality:
    """Examine the newest dataset and show suspicious photos in Label Studio's tab «Review».

    Photos that were called suspicious before and are not any more leave the tab. Gold photos that only their expert
    drew are handed out once more. Raises DatasetError when nothing is published.
    """
    tag, champion = published.newest(), registry.champion()
    project = find_project(labels, params)
    with published.checked_out(tag) as dataset:
        version = _Version(published, dataset, published.manifest(tag))
        judged: Counter[str] = Counter()

        def counted() -> Iterator[Judged]:
            for photo in _judged(settings, version, registry, champion, params):
                judged[photo.judge] += 1
                yield photo

        suspicious = find_suspicious(counted(), params.quality.review)
        digits = len(str(len(suspicious)))  # the tab orders by text
        reasons = {one.sha256: f"{rank:0{digits}} · {one.reason}" for rank, one in enumerate(suspicious, start=1)}
        with held(settings.var / "ingest.lock"):
            changed = show_reviews(labels, project, reasons)
        logger.info("%d photos look wrong; %d tasks changed in the tab", len(suspicious), changed)
        drawn = _read_drawn(dataset)
        _hand_out_gold(labels, project, version, drawn, champion, params)
        return Quality(
            dataset=tag,
            model=champion.served_as if champion else "",
            judged=judged,
            suspicious=tuple(suspicious),
            agreement=measure_agreement(_drawn_by_several(drawn.people, dataset, params), params.label_ids),
            missed=miss_rates((one.person, one.fate) for one in drawn.answers),
        )


@dataclass(frozen=True)
class _Version:
    """The version that is reviewed: its files, checked out, its manifest, and the other published versions."""

    published: Published
    dataset: Dataset
    manifest: pd.DataFrame


def _judged(
    settings: Settings, version: _Version, registry: Registry, champion: ModelVersion | None, params: Params
) -> Iterator[Judged]:
    """Yield photos with what a model says of them that did not learn from them: the champion, or a fold's."""
    unseen = _unseen_by(champion, version) if champion else set()
    if champion and unseen:
        with tempfile.TemporaryDirectory() as scratch:
            model = load_model(registry.download(champion, Path(scratch)), version=champion.served_as)
        for sha256 in track(sorted(unseen), "examining", transient=True):
            probabilities = model.probabilities(version.dataset.read_image(sha256))
            yield Judged(
                sha256, version.dataset.read_mask(sha256), probabilities, model.card.labels, champion.served_as
            )
    families = _families(version.manifest)
    others = {photo: family for photo, family in families.items() if photo not in unseen}
    if len(others) < ENOUGH_PHOTOS:
        logger.info("%d photos are too few to be judged by each other: nothing is said of these", len(others))
        return
    read_image, folder = version.dataset.read_image, settings.var / _FEATURES
    features = [Features(folder, read_image, params.train, encoder) for encoder in ENCODERS]
    for one in features:
        one.drop_others(list(others))
    yield from judge_out_of_fold(others, features, version.dataset.read_mask, params.label_ids, params.quality.folds)


def _unseen_by(champion: ModelVersion, version: _Version) -> set[str]:
    """Return the photos of the blind sides that the champion did not learn from; none when that cannot be known."""
    if champion.dataset not in version.published.tags():
        return set()
    table = version.published.manifest(champion.dataset)
    learned = set(table.loc[~table["split"].isin(BLIND_SIDES), "sha256"])
    now = version.manifest
    return set(now.loc[now["split"].isin(BLIND_SIDES), "sha256"]) - learned


def _families(manifest: pd.DataFrame) -> dict[str, str]:
    """Return the family of each photo; versions of before families were recorded have groups."""
    column = next(name for name in ("family", "group", "sha256") if name in manifest)
    return dict(zip(manifest["sha256"], manifest[column].astype(str), strict=True))


@dataclass(frozen=True)
class _Drawn:
    """What one person drew last on a photo; `is_truth` comes first, so that the truth is newer than anything else."""

    is_truth: bool
    updated_at: str
    uuid: str
    task: int


@dataclass(frozen=True)
class _Answer:
    """What became of a wrong region that somebody was shown on purpose: found or missed."""

    photo: str
    task: int
    person: str
    fate: str


@dataclass(frozen=True)
class _AllDrawn:
    """What each person drew last, by photo and person, and apart from it what measures people alone."""

    people: Mapping[str, dict[str, _Drawn]]
    answers: list[_Answer] = field(default_factory=list)


def _read_drawn(dataset: Dataset) -> _AllDrawn:
    """Read all annotations; who set the truth counts by that."""
    drawn = _AllDrawn(defaultdict(dict))
    for one in dataset.annotations.read():
        if one.planted:
            drawn.answers.append(_Answer(one.image.sha256, one.task_id, one.annotator, one.planted))
            continue
        this = _Drawn(bool(one.raw.get("ground_truth")), one.updated_at.isoformat(), one.uuid, one.task_id)
        of_photo = drawn.people[one.image.sha256]
        of_photo[one.annotator] = max(this, of_photo.get(one.annotator, this), key=astuple)
    return drawn


def _hand_out_gold(
    labels: LabelStudioClient, project: int, version: _Version, drawn: _AllDrawn, champion: ModelVersion | None,
    params: Params,
) -> None:  # fmt: skip
    """Let somebody else draw gold photos that only their expert drew; what was answered shows no wrong region more.

    While the champion draws no masks for anybody, a wrong region would be plain to see, so none is put there.
    """
    answered = {one.photo for one in drawn.answers}
    gold = {
        photo: one
        for photo, of_photo in drawn.people.items()
        for one in of_photo.values()
        if one.is_truth and len(of_photo) == 1 and photo not in answered
    }
    taken = locked_tasks(labels, project)
    free = {photo: {one.uuid} for photo, one in gold.items() if one.task not in taken}
    waiting = [
        GoldPhoto(gold[photo].task, photo, truth)
        for photo, masks in _masks_of(free, version.dataset, params)
        for truth in masks.values()
    ]
    # The labeling stream hands out what has a prediction of this name; see pipelines.prelabel.pipeline.
    stream = "" if champion is None else f"{champion.served_as} (paused)" if champion.paused else champion.served_as
    shown = hand_out_gold(
        labels, project, waiting, lambda photo: donors_of(version.manifest, photo, version.dataset.read_mask), params,
        version=stream, plants=champion is not None and not champion.paused,
    )  # fmt: skip
    over = {one.task for one in drawn.answers} - {one.task for one in gold.values()} - taken
    take_back(labels, sorted(over), stream or NO_MODEL)
    logger.info(
        "%d gold photos wait for somebody who does not know the truth, %d with a wrong region", len(waiting), shown
    )


def _drawn_by_several(
    people: Mapping[str, Mapping[str, _Drawn]], dataset: Dataset, params: Params
) -> Iterator[Drawings]:
    several = {photo: of_photo for photo, of_photo in people.items() if len(of_photo) > 1}
    uuids = {photo: {one.uuid for one in of_photo.values()} for photo, of_photo in several.items()}
    for photo, masks in _masks_of(uuids, dataset, params):
        readable = {person: masks[one.uuid] for person, one in several[photo].items() if one.uuid in masks}
        truth = sorted(person for person, one in several[photo].items() if one.is_truth and person in readable)
        yield Drawings(readable, truth[0] if truth else None)


def _masks_of(
    uuids: Mapping[str, Collection[str]], dataset: Dataset, params: Params
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each photo with the masks of some of its annotations by UUID; what cannot be compiled is left out."""
    for _, photos in groupby(sorted(uuids), key=shard_of):  # annotations of one shard are in memory at a time
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
