"""What people did with each model's masks: what became of regions, how good the masks were, and what they saved."""

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
_NOT_KNOWN = float("nan")
_NOTHING = Saving(0, 0, 0)


@dataclass(frozen=True)
class Effort:
    """What people did with one model's masks on `photos` photos.

    `untouched`, `corrected`, `drawn` and `deleted` count regions. Seconds are of photos whose time counts, NaN where
    there are none: `seconds` and `median_seconds` of these photos, `…_with_masks` of those on which masks were shown,
    `…_without_masks` of the photos that they are compared with. `iou` compares the proposed masks with the submitted
    ones, by label over the pixels of all photos, with background as the empty label; it is empty when nothing was
    proposed. `left_out` counts photos whose time does not count, by the reason. `saving` is of all photos with masks,
    `by_chance` of those that chance chose for the queue, which differ from the photos without masks in nothing else.
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
        """Return the share of submitted regions that are predictions nobody changed: 0..1."""
        return self.untouched / max(1, self.regions - self.deleted)

    @property
    def shares(self) -> dict[str, float]:
        """Return what became of regions: accepted untouched, corrected, drawn by hand, deleted; they add up to 1."""
        return {name: getattr(self, name) / max(1, self.regions) for name in _ORIGINS}

    @property
    def miou(self) -> float:
        """Average the IoU over labels that were submitted, background included; NaN when nothing was proposed."""
        return float(np.mean(list(self.iou.values()))) if self.iou else _NOT_KNOWN

    def as_metrics(self) -> dict[str, float]:
        """Return the figures that are known under the names they have in MLflow."""
        figures = {f"labelers/{name}_share": share for name, share in self.shares.items()}
        figures |= {
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
                figures[f"labelers/{name}"] = interval.value
                figures |= {f"labelers/{name}_low": interval.low, f"labelers/{name}_high": interval.high}
        figures |= {f"labelers/iou/{label or 'background'}": value for label, value in self.iou.items()}
        return {name: value for name, value in figures.items() if not np.isnan(value)}


@dataclass(frozen=True)
class EffortReport:
    """What people did with the masks of each model, by version, and what all of them saved.

    `by_model` starts with photos on which no model drew anything (`BY_HAND`), if there are any; `in_all` is over the
    versions whose saving can be told. `learning` is None while too little was done to tell what practice did.
    """

    by_model: Mapping[str, Effort]
    in_all: Saving
    learning: Learning | None
    left_out: Mapping[str, int]


def measure_effort(manifest: pd.DataFrame, params: Params) -> EffortReport:
    """Return what people did with each model's masks, versions in the order of their numbers.

    `manifest` has a row per photo and is that of any dataset version; columns that it lacks count as not known.
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
    """Return the effort on these photos of a manifest together, whatever model drew masks for them, and if none did.

    Nothing is said of what was saved: these photos with masks and without need not be comparable.
    """
    photos = labelled_photos(manifest, (params or EffortParams()).longest_s)
    shown = photos["version"] != BY_HAND
    return _effort(photos, photos[shown], photos[~shown], _proposed_pixels(manifest))


def costs_time(effort: Effort) -> str:
    """Return why a model's masks should not be shown any more: they cost people time; empty while that is not sure.

    What the photos say that chance chose must not contradict it: the others are those that the model was unsure of.
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
    """Put the figures of some photos together: those with masks are `shown`, those to compare with are `bare`."""
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
