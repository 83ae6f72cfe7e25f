"""What `maskloop quality` does: look through the newest dataset, and bring what looks wrong before people's eyes."""

import logging
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.progress import track
from rich.table import Table

from pipelines.dataset.files import ANNOTATIONS, IMAGES, MASKS, decode_mask, mask_path, parse_annotation_json
from pipelines.dataset.published import Published
from pipelines.errors import AnnotationError
from pipelines.images import decode_image
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.regions import compile_annotation
from pipelines.labelstudio.tasks import hand_out_again, show_reviews
from pipelines.lock import held
from pipelines.params import Params
from pipelines.quality.agreement import Agreement, Drawings, measure_agreement
from pipelines.quality.suspicion import Suspicion, find_suspicious
from pipelines.segmentation.clothing import load_model
from pipelines.settings import Settings
from pipelines.training.registry import Registry

logger = logging.getLogger(__name__)
_SHOWN = 20  # photos in the terminal; all are in the tab


@dataclass(frozen=True)
class Quality:
    """What was found in a dataset: suspicious photos, the worst first, and how well people agree."""

    dataset: str
    model: str
    examined: int
    suspicious: tuple[Suspicion, ...]
    agreement: Agreement


def review(
    settings: Settings, published: Published, registry: Registry, labels: LabelStudioClient, params: Params
) -> Quality:
    """Examine the newest dataset with the champion and show suspicious photos in Label Studio's tab «Review».

    Photos that were called suspicious before and are not any more leave the tab. Gold photos that only their expert
    drew are handed out once more. Without a champion only agreement is measured. Raises DatasetError when nothing is
    published.
    """
    dataset, champion = published.newest(), registry.champion()
    manifest = published.manifest(dataset)
    found: list[Suspicion] = []
    if champion:
        with tempfile.TemporaryDirectory() as scratch:
            model = load_model(registry.download(champion, Path(scratch)), version=champion.served_as)
        photos = _photos(published, dataset, manifest["sha256"].tolist())
        found = find_suspicious(
            track(photos, "examining", total=len(manifest), transient=True), model, params.quality.review
        )
        reasons = {one.sha256: f"{one.score:.3f} · {one.reason}" for one in found}
        with held(settings.var / "ingest.lock"):
            changed = show_reviews(labels, find_project(labels, params), reasons)
        logger.info("%d photos look wrong to %s; %d tasks changed in the tab", len(found), champion.served_as, changed)
    else:
        logger.info("no champion yet: nothing can be called suspicious")
    people = _people(published, dataset)
    gold = [one.task for of_photo in people.values() if len(of_photo) == 1 for one in of_photo.values() if one.is_truth]
    for task in gold:
        hand_out_again(labels, task)
    logger.info("%d gold photos wait for somebody who does not know the truth", len(gold))
    agreement = measure_agreement(_drawn_by_several(people, published, params), params.label_ids)
    return Quality(dataset, champion.served_as if champion else "", len(manifest), tuple(found), agreement)


def _photos(published: Published, dataset: str, names: list[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Give each photo with its mask, out of what the version keeps: a sync may go on beside."""
    images, masks = published.folder(dataset, IMAGES), published.folder(dataset, MASKS)
    for sha256 in names:
        mask = mask_path(sha256).name
        photo = decode_image(published.file(images[sha256], sha256), max_megapixels=float("inf"))
        yield sha256, photo, decode_mask(published.file(masks[mask], mask), mask)


@dataclass(frozen=True)
class _Drawn:
    """What one person drew last on a photo; `is_truth` comes first, so that the truth is newer than anything else."""

    is_truth: bool
    updated_at: str
    md5: str
    task: int


def _people(published: Published, dataset: str) -> dict[str, dict[str, _Drawn]]:
    """Give what each person drew last, by photo and person; who set the truth counts by that."""
    newest: dict[str, dict[str, _Drawn]] = defaultdict(dict)
    for name, md5 in published.folder(dataset, ANNOTATIONS).items():
        one = parse_annotation_json(published.file(md5, name), name)
        this = _Drawn(bool(one.raw.get("ground_truth")), one.updated_at.isoformat(), md5, one.task_id)
        of_photo = newest[one.image.sha256]
        of_photo[one.annotator] = max(this, of_photo.get(one.annotator, this), key=astuple)
    return newest


def _drawn_by_several(
    people: Mapping[str, Mapping[str, _Drawn]], published: Published, params: Params
) -> Iterator[Drawings]:
    for of_photo in people.values():
        if len(of_photo) > 1:
            masks = {person: _mask(published, one.md5, params) for person, one in of_photo.items()}
            readable = {person: mask for person, mask in masks.items() if mask is not None}
            truth = sorted(person for person, one in of_photo.items() if one.is_truth and person in readable)
            yield Drawings(readable, truth[0] if truth else None)


def _mask(published: Published, md5: str, params: Params) -> np.ndarray | None:
    annotation = parse_annotation_json(published.file(md5, md5), md5)
    try:
        return compile_annotation(annotation, params).mask
    except AnnotationError as error:
        logger.warning("annotation %s of %s is left out: %s", annotation.uuid, annotation.annotator, error)
        return None


def log_quality(registry: Registry, found: Quality) -> None:
    """Add the figures to the run of the champion that looked, with the dataset's number as step; people by address."""
    champion = registry.champion()
    if champion is None or champion.served_as != found.model:
        return
    agreement = found.agreement
    figures = {"quality/suspicious": float(len(found.suspicious)), "quality/alpha": agreement.alpha}
    figures |= {f"quality/iou/{label}": iou for label, iou in agreement.iou_of_label.items()}
    figures |= {f"quality/gold/{_metric_name(who)}": iou for who, (_, iou) in agreement.gold_of_person.items()}
    finite = {name: value for name, value in figures.items() if np.isfinite(value)}
    registry.add_metrics(champion.run_id, finite, int(found.dataset.rpartition("-")[2]))


def _metric_name(person: str) -> str:
    """Give an address with the signs that MLflow allows in the names of metrics."""
    return re.sub(r"[^\w .:/-]", "_", person)


def as_tables(found: Quality) -> list[Table]:
    """Lay out what was found for a terminal: the worst photos, and agreement where there is any to measure."""
    worst = Table(
        title=f"{len(found.suspicious)} of {found.examined} photos of {found.dataset} look wrong to "
        f"{found.model or 'nobody'}",
        title_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for heading in ("score", "photo", "reason"):
        worst.add_column(heading)
    for one in found.suspicious[:_SHOWN]:
        worst.add_row(f"{one.score:.3f}", one.sha256[:12], one.reason)
    tables = [worst]
    if found.agreement.photos:
        alike = Table(
            title=f"Agreement on {found.agreement.photos} photos that several people drew: "
            f"Krippendorff's alpha {found.agreement.alpha:.3f}",
            title_justify="left", box=box.SIMPLE_HEAD,
        )  # fmt: skip
        for heading in ("label or person", "IoU between people", "gold photos", "IoU with the truth"):
            alike.add_column(heading, justify="left" if heading == "label or person" else "right")
        for name, iou in {**found.agreement.iou_of_label, **found.agreement.iou_of_person}.items():
            photos, score = found.agreement.gold_of_person.get(name, (0, None))
            alike.add_row(name, f"{iou:.3f}", str(photos or "–"), "–" if score is None else f"{score:.3f}")
        tables.append(alike)
    return tables
