"""The report of a model as one HTML page that opens without a server: decision, figures, pictures."""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from pipelines.dataset.files import CURVES
from pipelines.html import inline, render
from pipelines.params import Params
from pipelines.segmentation.clothing import ClothingModel
from pipelines.training.data import metadata_of
from pipelines.training.figures import Evaluation, figures, figures_of_slices
from pipelines.training.gate import Decision
from pipelines.training.report import draw_calibration, draw_confusion, draw_curves, draw_sheet

_TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class Contender:
    """A model at the gate: its name, such as `clothing:v3`, itself, and what it answered on the test photos."""

    name: str
    model: ClothingModel
    found: Evaluation


def write_page(
    path: Path, title: str, decision: Decision, challenger: Contender, champion: Contender | None, params: Params
) -> None:
    """Write the report on what `train` left in the current folder and what the contenders answered.

    It shows the photos on which the challenger is worst, and others chosen by chance, as many as `params.evaluate`
    says: photo, truth, champion and challenger side by side.
    """
    models = [one for one in (champion, challenger) if one]
    found, rounds = challenger.found, params.evaluate.resamples
    pictures = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "picture.png"
        for name, draw in (
            ("learning curves", partial(draw_curves, pd.read_csv(CURVES))),
            ("confusion matrix", partial(draw_confusion, found.confusion, ["background", *params.label_ids])),
            ("are its probabilities honest?", partial(draw_calibration, found)),
        ):
            draw(scratch)
            pictures[name] = inline(scratch.read_bytes(), "png")
    worst, others = choose(found, params)
    html = render(
        _TEMPLATE,
        title=title,
        model=challenger.name,
        decision=decision,
        metrics=figures(found, params.label_ids, rounds),
        slices=figures_of_slices(
            found, metadata_of(found.photos, params.evaluate.slices), rounds, champion.found if champion else None
        ),
        pictures=pictures,
        panels=["photo", "truth", *(one.name for one in models)],
        groups={
            "The worst photos": _sheets(worst, models, params),
            "Photos chosen by chance": _sheets(others, models, params),
        },
    )
    path.write_text(html, encoding="utf-8")


def choose(found: Evaluation, params: Params) -> tuple[list[str], list[str]]:
    """Choose the photos with the lowest mIoU, the worst first, and as many of the others by chance; always the same."""
    scores = found.miou_of_photo
    count = params.evaluate.overlays
    ranked = sorted(scores, key=lambda sha256: (scores[sha256], sha256))
    rest = sorted(ranked[count:])
    chance = random.Random(params.train.seed)  # noqa: S311  it chooses pictures
    return ranked[:count], chance.sample(rest, min(count, len(rest)))


def _sheets(photos: Sequence[str], models: Sequence[Contender], params: Params) -> list[dict[str, str]]:
    sheets = []
    for sha256 in photos:
        scores = " · ".join(f"{one.name} {one.found.miou_of_photo[sha256]:.2f}" for one in models)
        picture = draw_sheet(sha256, [one.model for one in models], params)
        sheets.append({"photo": sha256[:12], "scores": scores, "picture": inline(picture, "jpeg")})
    return sheets
