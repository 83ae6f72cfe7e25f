"""Usage of each model's pre-labels: what became of regions, how good the masks were, and the time they saved."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.params import EffortParams, Params
from pipelines.reports.effort.photos import labelled_photos
from pipelines.reports.effort.saving import Learning, Saving, estimate_savings

BY_HAND = ""  # the model version of photos on which no model drew anything
_ORIGINS = {"untouched": "untouched", "corrected": "changed", "drawn": "manual", "deleted": "deleted"}
_UNKNOWN = float("nan")
_NOTHING = Saving(0, 0, 0)


@dataclass(frozen=True)
class Effort:
    """Usage of one model's masks on `photos` photos.

    `untouched`, `corrected`, `drawn` and `deleted` count regions. Seconds are means and medians over photos whose time
    counts, NaN where there are none: `seconds` and `median_seconds` over all of these photos, `…_with_masks` over those
    that showed masks, `…_without_masks` over the photos with which they are compared. `iou` compares the proposed masks
    with the submitted ones, by label over the pixels of all photos, with background as the empty label; it is empty
    when nothing was proposed. `left_out` counts photos whose time does not count, by reason. `saving` is that of all
    photos with masks, `by_chance` that of the photos chosen for the queue at random, which differ from the photos
    without masks only in having masks.
    """

    photos: int
    untouched: int
    corrected: int
    drawn: int
    deleted: int
    seconds: float
    median_seconds: float
    seconds_with_masks: float
    median_seconds_with_masks: float
    seconds_without_masks: float
    median_seconds_without_masks: float
    iou: Mapping[str, float]
    left_out: Mapping[str, int]
    saving: Saving
    by_chance: Saving

    @property
    def regions(self) -> int:
        """Count the regions that were submitted or deleted."""
        return self.untouched + self.corrected + self.drawn + self.deleted

    @property
    def untouched_share(self) -> float:
        """Return the share of submitted regions that are unchanged predictions: 0..1."""
        return self.untouched / max(1, self.regions - self.deleted)

    @property
    def shares(self) -> dict[str, float]:
        """Return the shares of regions accepted untouched, corrected, drawn by hand and deleted; they add up to 1."""
        return {name: getattr(self, name) / max(1, self.regions) for name in _ORIGINS}

    @property
    def miou(self) -> float:
        """Return the mean IoU over the submitted labels and background; NaN when nothing was proposed."""
        return float(np.mean(list(self.iou.values()))) if self.iou else _UNKNOWN

    def as_metrics(self) -> dict[str, float]:
        """Return the known metrics under their names in MLflow."""
        metrics = {f"labelers/{name}_share": share for name, share in self.shares.items()}
        metrics |= {
            "labelers/photos": float(self.photos),
            "labelers/photos_without_masks": float(self.saving.without_masks),
            "labelers/seconds_per_photo": self.seconds,
            "labelers/median_seconds_per_photo": self.median_seconds,
            "labelers/seconds_without_masks": self.seconds_without_masks,
            "labelers/median_seconds_without_masks": self.median_seconds_without_masks,
            "labelers/prelabel_miou": self.miou,
        }
        for name, interval in (
            ("seconds_saved_per_photo", self.saving.per_photo), ("hours_saved", self.saving.hours)
        ):  # fmt: skip
            if interval:
                metrics[f"labelers/{name}"] = interval.value
                metrics |= {f"labelers/{name}_low": interval.low, f"labelers/{name}_high": interval.high}
        metrics |= {f"labelers/iou/{label or 'background'}": value for label, value in self.iou.items()}
        return {name: value for name, value in metrics.items() if not np.isnan(value)}


@dataclass(frozen=True)
class EffortReport:
    """Usage of the masks of each model version, and the time that all of them saved.

    `by_model` starts with the photos on which no model drew anything (`BY_HAND`), if there are any; `in_all` covers the
    versions whose saving can be estimated. `learning` is None while there is too little data for its estimate.
    """

    by_model: Mapping[str, Effort]
    in_all: Saving
    learning: Learning | None
    left_out: Mapping[str, int]


def measure_effort(manifest: pd.DataFrame, params: Params) -> EffortReport:
    """Return the usage of each model's masks and the time they saved, versions in the order of their numbers.

    `manifest` has a row per photo and may be that of any dataset version; columns that it lacks count as unknown.
    """
    shares = params.prelabel.control_share, params.prelabel.random_share
    photos = labelled_photos(manifest, params.effort.longest_s, *shares)
    savings = estimate_savings(photos)
    pixels = _proposed_pixels(manifest)
    by_model = {}
    for version in sorted(set(photos["version"]), key=_rank):
        own = photos["version"] == version
        shown = own & (version != BY_HAND)
        bare = own if version == BY_HAND else photos["is_control"] & (photos["period"] == version)
        saved = [saving.get(version, _NOTHING) for saving in (savings.by_version, savings.by_chance)]
        by_model[version] = _effort(photos[own], photos[shown], photos[bare], pixels[own], *saved)
    return EffortReport(by_model, savings.in_all, savings.learning, _left_out(photos))


def effort_of(manifest: pd.DataFrame, params: EffortParams | None = None) -> Effort:
    """Return the effort on all of these photos, whichever model drew masks for them, or none.

    The time saved is not estimated, because these photos with and without masks need not be comparable.
    """
    photos = labelled_photos(manifest, (params or EffortParams()).longest_s)
    shown = photos["version"] != BY_HAND
    return _effort(photos, photos[shown], photos[~shown], _proposed_pixels(manifest))


def costs_time(effort: Effort) -> str:
    """Return why a model's masks should no longer be shown, because they cost people time; empty while unproven.

    The photos that were chosen at random must not contradict it, because the others are hard photos for the model.
    """
    saved, by_chance = effort.saving.per_photo, effort.by_chance.per_photo
    if saved is None or saved.high >= 0 or (by_chance and by_chance.value >= 0):
        return ""
    return (
        f"its masks cost people {-saved.value:.0f} s per photo (95 % interval {-saved.high:.0f} to {-saved.low:.0f} s; "
        f"{effort.saving.with_masks} timed photos with masks, {effort.saving.without_masks} without)"
    )


def _effort(
    photos: pd.DataFrame, shown: pd.DataFrame, bare: pd.DataFrame, pixels: "pd.Series[str]",
    saving: Saving = _NOTHING, by_chance: Saving = _NOTHING,
) -> Effort:  # fmt: skip
    """Compute the metrics of some photos: those with masks are `shown`, those compared with them are `bare`."""
    regions = {name: int(photos[column].sum()) for name, column in _ORIGINS.items()}
    seconds, with_masks, without = (part.loc[part["left_out"] == "", "seconds"] for part in (photos, shown, bare))
    return Effort(
        photos=len(photos),
        **regions,
        seconds=float(seconds.mean()),
        median_seconds=float(seconds.median()),
        seconds_with_masks=float(with_masks.mean()),
        median_seconds_with_masks=float(with_masks.median()),
        seconds_without_masks=float(without.mean()),
        median_seconds_without_masks=float(without.median()),
        iou=_iou(pixels),
        left_out=_left_out(photos),
        saving=saving,
        by_chance=by_chance,
    )


def _left_out(photos: pd.DataFrame) -> dict[str, int]:
    return dict(sorted(Counter(photos.loc[photos["left_out"] != "", "left_out"]).items()))


def _proposed_pixels(manifest: pd.DataFrame) -> "pd.Series[str]":
    if "prelabel_pixels" not in manifest.columns:
        return pd.Series("", range(len(manifest)), dtype=str)
    return manifest["prelabel_pixels"].fillna("").astype(str).reset_index(drop=True)


def _iou(pixels: "pd.Series[str]") -> dict[str, float]:
    total: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, np.int64))
    for text in pixels[pixels != ""]:
        for label, counts in json.loads(text).items():
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
