"""What pre-labels saved the people who corrected them, by the model that made them; all of it stands in the manifest.

Hours saved, of the photos that a model pre-labelled: their number, times the median over them of

    (seconds a region takes without a model) × (regions that were submitted) − (seconds the photo took)

where a region's seconds without a model are the median, over photos that were drawn from nothing, of the photo's
seconds by its regions. Medians, because a photo left open over lunch says nothing about a model.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

BY_HAND = ""  # the model version of photos that nobody pre-labelled
_ENOUGH = 5  # photos drawn from nothing, before hours saved can be told
_ORIGINS = ("regions_untouched", "regions_changed", "regions_manual", "regions_deleted")


@dataclass(frozen=True)
class Effort:
    """What people did with one model's pre-labels on `photos` photos; shares are 0..1 of all regions they dealt with.

    `seconds` is the median per photo; `iou` compares pre-labels with what was submitted, by label over the pixels of
    all photos, with background as the empty label, and is empty when nothing was proposed. `hours_saved` is None while
    too few photos were drawn from nothing to compare with.
    """

    photos: int
    untouched: int
    corrected: int
    drawn: int
    deleted: int
    seconds: float
    iou: Mapping[str, float]
    hours_saved: float | None

    @property
    def regions(self) -> int:
        """Count the regions that were submitted or deleted."""
        return self.untouched + self.corrected + self.drawn + self.deleted

    @property
    def untouched_share(self) -> float:
        """Give the share of submitted regions that are predictions nobody changed: 0..1."""
        return self.untouched / max(1, self.regions - self.deleted)

    @property
    def shares(self) -> dict[str, float]:
        """Give what became of regions: accepted untouched, corrected, drawn by hand, deleted; they add up to 1."""
        counts = {
            "untouched": self.untouched,
            "corrected": self.corrected,
            "drawn": self.drawn,
            "deleted": self.deleted,
        }
        return {name: count / max(1, self.regions) for name, count in counts.items()}

    @property
    def miou(self) -> float:
        """Average the IoU over labels that were submitted, background included; NaN when nothing was proposed."""
        return float(np.mean(list(self.iou.values()))) if self.iou else float("nan")

    def as_metrics(self) -> dict[str, float]:
        """Give the figures under the names they have in MLflow."""
        figures = {f"labelers/{name}_share": share for name, share in self.shares.items()}
        figures |= {"labelers/photos": float(self.photos), "labelers/seconds_per_photo": self.seconds}
        if self.iou:
            figures["labelers/prelabel_miou"] = self.miou
        if self.hours_saved is not None:
            figures["labelers/hours_saved"] = self.hours_saved
        return figures | {f"labelers/iou/{label or 'background'}": value for label, value in self.iou.items()}


def effort_by_model(manifest: pd.DataFrame) -> dict[str, Effort]:
    """Give, by model version in order of their numbers, what people did with it; photos drawn from nothing come first.

    `manifest` has a row per photo. Versions published before deletions and pixels were recorded count none of them.
    """
    table = manifest.reindex(columns=[*manifest.columns, *({*_ORIGINS, "prelabel_pixels"} - set(manifest.columns))])
    table = table.assign(regions=table[list(_ORIGINS[:3])].fillna(0).sum(axis=1))
    by_hand = table[(table["prediction_version"] == BY_HAND) & (table["regions"] > 0)]
    pace = float((by_hand["lead_time_s"] / by_hand["regions"]).median()) if len(by_hand) >= _ENOUGH else None
    models = sorted(set(table["prediction_version"]), key=_rank)
    return {name: _effort(table[table["prediction_version"] == name], name, pace) for name in models}


def effort_of(rows: pd.DataFrame) -> Effort:
    """Give the effort on these photos of a manifest as one, whatever pre-labelled them."""
    return effort_by_model(rows.assign(prediction_version="any"))["any"]


def _effort(rows: pd.DataFrame, name: str, pace: float | None) -> Effort:
    counts = [int(rows[column].fillna(0).sum()) for column in _ORIGINS]
    saved = None
    if pace is not None and name != BY_HAND:
        saved = len(rows) * float((pace * rows["regions"] - rows["lead_time_s"]).median()) / 3600
    return Effort(
        photos=len(rows), untouched=counts[0], corrected=counts[1], drawn=counts[2], deleted=counts[3],
        seconds=float(rows["lead_time_s"].median()), iou=_iou(rows["prelabel_pixels"]), hours_saved=saved,
    )  # fmt: skip


def _iou(pixels: "pd.Series[str]") -> dict[str, float]:
    total: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))
    for text in pixels.dropna():
        for label, counts in (json.loads(text) if text else {}).items():
            total[label] += counts
    return {
        label: float(both / (proposed + submitted - both))
        for label, (proposed, submitted, both) in sorted(total.items())
        if submitted
    }


def _rank(name: str) -> tuple[str, int, str]:
    """Sort `clothing:v10` behind `clothing:v9`."""
    stem, _, number = name.rpartition(":v")
    return (stem, int(number), name) if number.isdecimal() else (name, 0, name)
