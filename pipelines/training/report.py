"""The report of a model as one HTML page that opens without a server: decision, changes, metrics, plots."""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, MODEL
from pipelines.params import Params
from pipelines.reports.html import inline, render
from pipelines.segmentation.model import ClothingModel, load_model
from pipelines.training.changes import Changes
from pipelines.training.data import clean_photos, metadata_of, photos_in
from pipelines.training.decision import Decision
from pipelines.training.evaluate import evaluate_model
from pipelines.training.metrics import Evaluation, compute_metrics, metrics_by_slice
from pipelines.training.plots import draw_calibration, draw_confusion, draw_curves, draw_sheet

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_SUMMARY = (
    ("mIoU", "miou"), ("mIoU without the background", "miou_foreground"), ("boundary IoU", "boundary_iou"),
    ("mean Dice", "mean_dice"), ("mean boundary F-score", "mean_boundary_f"), ("pixel accuracy", "pixel_accuracy"),
    ("mean class accuracy", "mean_class_accuracy"), ("calibration error, garments", "calibration_error"),
    ("calibration error, all pixels", "calibration_error_all"),
)  # fmt: skip
_COLUMNS = (
    ("IoU", "iou"), ("Dice", "dice"), ("precision", "precision"), ("recall", "recall"), ("boundary F", "boundary_f"),
    ("boundary IoU", "boundary_iou"),
)  # fmt: skip
_FLATTERING = "Models drew parts of the masks of these photos, so every metric favours that model."


@dataclass(frozen=True)
class Candidate:
    """A model at the gate: its name, such as `clothing:v3`, the model itself, and its evaluation on the test photos."""

    name: str
    model: ClothingModel
    evaluation: Evaluation


def write_page(
    path: Path, dataset: Dataset, title: str, decision: Decision | None, challenger: Candidate,
    champion: Candidate | None, params: Params, changes: Changes | None = None,
) -> None:  # fmt: skip
    """Write the report on a training and its evaluation beside the champion's.

    It shows the photos on which the challenger is worst, and others chosen by chance, as many as `params.evaluate`
    says: photo, truth, champion and challenger side by side.
    """
    candidates = [candidate for candidate in (champion, challenger) if candidate]
    evaluation, rounds = challenger.evaluation, params.evaluate.resamples
    columns = metadata_of(dataset, evaluation.photos, params.evaluate.slices)
    worst, others = choose(evaluation, params)
    html = render(
        _TEMPLATE,
        title=title,
        model=challenger.name,
        decision=decision,
        changes=changes,
        metrics=compute_metrics(evaluation, params.label_ids, rounds),
        note="" if set(evaluation.photos) <= set(clean_photos(dataset, "test")) else _FLATTERING,
        summary=_SUMMARY,
        columns=_COLUMNS,
        slices=metrics_by_slice(evaluation, columns, rounds, champion.evaluation if champion else None),
        plots=_plots(dataset, evaluation, params),
        panels=["photo", "truth", *(candidate.name for candidate in candidates)],
        groups={
            "The worst photos": _sheets(dataset, worst, candidates, params),
            "Photos chosen by chance": _sheets(dataset, others, candidates, params),
        },
    )
    path.write_text(html, encoding="utf-8")


def write_folder_page(path: Path, dataset: Dataset, params: Params) -> None:
    """Write the report on a training that is compared with no champion."""
    model = load_model(dataset.path(MODEL), min_region_share=params.prelabel.min_region_share, reduced_precision=False)
    photos = clean_photos(dataset, "test") or photos_in(dataset, "test")
    candidate = Candidate("the model", model, evaluate_model(model, dataset, photos, params.label_ids))
    write_page(path, dataset, f"trained on {len(photos_in(dataset, 'train'))} photos", None, candidate, None, params)


def choose(evaluation: Evaluation, params: Params) -> tuple[list[str], list[str]]:
    """Return the photos with the lowest mIoU, the worst first, and as many of the others by chance; always the same."""
    scores = evaluation.miou_of_photo
    count = params.evaluate.overlays
    ranked = sorted(scores, key=lambda sha256: (scores[sha256], sha256))
    rest = sorted(ranked[count:])
    chance = random.Random(params.train.seed)  # noqa: S311  it chooses pictures
    return ranked[:count], chance.sample(rest, min(count, len(rest)))


def _plots(dataset: Dataset, evaluation: Evaluation, params: Params) -> dict[str, str]:
    plots = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "plot.png"
        for name, draw in (
            ("Learning curves", partial(draw_curves, pd.read_csv(dataset.path(CURVES)))),
            ("Confusion matrix", partial(draw_confusion, evaluation.confusion, ["background", *params.label_ids])),
            ("Calibration (reliability diagram)", partial(draw_calibration, evaluation)),
        ):
            draw(scratch)
            plots[name] = inline(scratch.read_bytes(), "png")
    return plots


def _sheets(
    dataset: Dataset, photos: Sequence[str], candidates: Sequence[Candidate], params: Params
) -> list[dict[str, str]]:
    sheets = []
    for sha256 in photos:
        scores = " · ".join(
            f"{candidate.name} {candidate.evaluation.miou_of_photo[sha256]:.2f}" for candidate in candidates
        )
        picture = draw_sheet(dataset, sha256, [candidate.model for candidate in candidates], params)
        sheets.append({"photo": sha256[:12], "scores": scores, "picture": inline(picture, "jpeg")})
    return sheets
