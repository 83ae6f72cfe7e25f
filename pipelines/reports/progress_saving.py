"""Minutes that pre-labels saved, by model version and by label, and what they will save on the next photos.

Where the saving of a version is measured (`effort.saving`), that counts. The model of `effort` says the rest: the IoU
of a proposed mask with the submitted one decides whether it was accepted, corrected or deleted, and each of these costs
seconds, compared with drawing. Its intervals resample families; they do not cover an error of the seconds themselves.
"""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.params import EffortParams, Params
from pipelines.reports.effort.measure import BY_HAND, EffortReport, measure_effort
from pipelines.reports.effort.regression import Interval
from pipelines.reports.effort.saving import Saving
from pipelines.reports.progress import RESAMPLES
from pipelines.segmentation.proposals import Seconds
from pipelines.training.acceptance import estimate_seconds

NEXT = 100  # photos whose saving is predicted
FEWEST_FAMILIES = 3
TOO_FEW = f"photos of fewer than {FEWEST_FAMILIES} families"
_MOST_CLUSTERS = 1000  # more families are combined
_BOUNDS = (0.025, 0.975)


@dataclass(frozen=True)
class VersionSaving:
    """Minutes that the masks of a model version saved on `photos`; None for the `reason` given."""

    version: str
    photos: int
    minutes: Interval | None
    is_measured: bool
    reason: str = ""


@dataclass(frozen=True)
class LabelSaving:
    """Proposed masks of a label by what became of them, and the minutes that they saved by the model of `effort`."""

    label: str
    accepted: int
    corrected: int
    deleted: int
    minutes: Interval | None
    reason: str = ""


@dataclass(frozen=True)
class NextSaving:
    """Minutes expected on the next NEXT photos, from those with masks of `version`, which a `share` of photos had."""

    version: str
    share: float
    minutes: Interval | None
    is_measured: bool
    reason: str = ""


@dataclass(frozen=True)
class SavedTime:
    """Time saved, with the `seconds` of the model of `effort`, which people's own times adjust, and its IoU bounds."""

    seconds: Seconds
    accept_iou: float
    correct_iou: float
    versions: tuple[VersionSaving, ...]
    in_all: VersionSaving
    labels: tuple[LabelSaving, ...]
    next_photos: NextSaving


def saved_time(
    manifest: pd.DataFrame, photos: pd.DataFrame, params: Params, serving: str = "", paused: str = ""
) -> SavedTime:
    """Return the time saved; `photos` are those of `labelled_photos` of the manifest, row by row.

    `serving` is the version that draws masks now, empty when unknown, and `paused` says why it draws none for people.
    """
    effort = params.effort
    seconds = estimate_seconds(manifest, effort)
    regions = _proposed_regions(manifest, seconds, effort)
    report = measure_effort(manifest, params)
    by_photo = _by_photo(regions, manifest)
    versions = tuple(
        _of_version(version, report, photos, by_photo) for version in report.by_model if version != BY_HAND
    )
    families = photos["family"].to_numpy(str)
    with_masks = (photos["version"] != BY_HAND).to_numpy()
    labels = [_of_label(str(label), own, with_masks, families, len(photos)) for label, own in regions.groupby("label")]
    labels.sort(key=lambda row: (-row.minutes.value if row.minutes else np.inf, row.label))
    return SavedTime(
        seconds, effort.accept_iou, effort.correct_iou, versions, _in_all(report, photos, by_photo), tuple(labels),
        _next_photos(report, photos, by_photo, serving, paused),
    )  # fmt: skip


def bootstrap_sum(values: np.ndarray, families: np.ndarray) -> Interval | None:
    """Return the sum of (N,) values with its percentile interval over (N,) families; None with too few of these."""
    draws = _resampled(np.asarray(values, float)[:, None], families)
    if draws is None:
        return None
    low, high = (float(bound) for bound in np.quantile(draws[:, 0], _BOUNDS))
    return Interval(float(values.sum()), low, high)


def bootstrap_share(parts: np.ndarray, wholes: np.ndarray, families: np.ndarray) -> Interval | None:
    """Return the share of all (N,) `parts` in all (N,) `wholes`, 0..1, with its percentile interval over families.

    Return None with too few families, or when the wholes are nothing.
    """
    draws = _resampled(np.column_stack([parts, wholes]).astype(float), families)
    if draws is None or not wholes.sum():
        return None
    drawn = draws[draws[:, 1] > 0]
    low, high = (float(bound) for bound in np.quantile(drawn[:, 0] / drawn[:, 1], _BOUNDS))
    return Interval(float(parts.sum() / wholes.sum()), low, high)


def _resampled(values: np.ndarray, families: np.ndarray) -> np.ndarray | None:
    """Return the sums of (N, K) values in each resample of the families, (RESAMPLES, K); None with too few families."""
    codes = pd.factorize(families)[0]
    if len(set(codes.tolist())) < FEWEST_FAMILIES:
        return None
    sums = np.column_stack([np.bincount(codes % _MOST_CLUSTERS, column) for column in values.T])
    count = len(sums)
    return np.asarray(np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES) @ sums)


def _proposed_regions(manifest: pd.DataFrame, seconds: Seconds, effort: EffortParams) -> pd.DataFrame:
    """Return a row per proposed mask: `photo` (row of the manifest), `label`, and what became of it by its IoU."""
    rows = [
        (photo, label, both / (proposed + submitted - both))
        for photo, text in enumerate(_proposals(manifest))
        for label, (proposed, submitted, both) in (json.loads(text) if text else {}).items()
        if label and proposed
    ]
    table = pd.DataFrame(rows, columns=["photo", "label", "iou"])
    iou = table["iou"].to_numpy(float)
    ends = (iou >= effort.accept_iou, (iou >= effort.correct_iou) & (iou < effort.accept_iou), iou < effort.correct_iou)
    table = table.assign(**dict(zip(("accepted", "corrected", "deleted"), ends, strict=True)))
    return table.assign(seconds=seconds.saved(*(end.astype(float) for end in ends)))


def _by_photo(regions: pd.DataFrame, manifest: pd.DataFrame) -> np.ndarray:
    """Return the seconds that the masks of each photo saved, (N,) float64; NaN where no proposal is recorded."""
    saved = regions.groupby("photo")["seconds"].sum().reindex(range(len(manifest)), fill_value=0.0).to_numpy(float)
    return np.where([bool(text) for text in _proposals(manifest)], saved, np.nan)


def _proposals(manifest: pd.DataFrame) -> list[str]:
    """Return the pixels of each photo's proposal as JSON, or an empty text."""
    if "prelabel_pixels" not in manifest.columns:
        return [""] * len(manifest)
    return [str(text) for text in manifest["prelabel_pixels"].fillna("")]


def _of_version(version: str, report: EffortReport, photos: pd.DataFrame, by_photo: np.ndarray) -> VersionSaving:
    saving = report.by_model[version].saving
    chosen = (photos["version"] == version).to_numpy()
    return _measured_or_modelled(version, saving, int(chosen.sum()), photos, by_photo, chosen)


def _in_all(report: EffortReport, photos: pd.DataFrame, by_photo: np.ndarray) -> VersionSaving:
    chosen = (photos["version"] != BY_HAND).to_numpy()
    name = "all measured versions" if report.in_all.hours else "in all"
    return _measured_or_modelled(name, report.in_all, int(chosen.sum()), photos, by_photo, chosen)


def _measured_or_modelled(
    name: str, saving: Saving, count: int, photos: pd.DataFrame, by_photo: np.ndarray, chosen: np.ndarray
) -> VersionSaving:
    if saving.hours:
        return VersionSaving(name, saving.photos, saving.hours.times(60), True)
    known = chosen & np.isfinite(by_photo)
    minutes = bootstrap_sum(by_photo[known] / 60, photos["family"].to_numpy(str)[known])
    return VersionSaving(name, count, minutes, False, saving.reason if minutes else TOO_FEW)


def _of_label(
    label: str, regions: pd.DataFrame, with_masks: np.ndarray, families: np.ndarray, photos: int
) -> LabelSaving:
    accepted, corrected, deleted = (int(regions[name].sum()) for name in ("accepted", "corrected", "deleted"))
    saved = np.zeros(photos)
    saved[regions["photo"].to_numpy(int)] = regions["seconds"].to_numpy(float) / 60
    few = len(set(families[regions["photo"].to_numpy(int)])) < FEWEST_FAMILIES
    minutes = None if few else bootstrap_sum(saved[with_masks], families[with_masks])
    return LabelSaving(label, accepted, corrected, deleted, minutes, "" if minutes else TOO_FEW)


def _next_photos(
    report: EffortReport, photos: pd.DataFrame, by_photo: np.ndarray, serving: str, paused: str
) -> NextSaving:
    """Predict from the version that serves, or from the one used last while people used none of its masks."""
    if paused:
        return NextSaving(serving, 0.0, None, False, f"{serving} is paused and draws no masks: {paused}")
    used = photos[photos["version"] != BY_HAND].sort_values("at", kind="stable")["version"]
    if used.empty:
        return NextSaving(serving, 0.0, None, False, "people have used no masks yet")
    version = serving if serving in set(used) else str(used.iloc[-1])
    own = (photos["version"] == version).to_numpy()
    share = own.sum() / (own.sum() + (photos["period"] == version).sum())
    scale = float(NEXT * share / 60)
    if per_photo := report.by_model[version].saving.per_photo:
        return NextSaving(version, float(share), per_photo.times(scale), True)
    known = own & np.isfinite(by_photo)
    total = bootstrap_sum(by_photo[known], photos["family"].to_numpy(str)[known])
    minutes = total.times(scale / int(known.sum())) if total else None
    return NextSaving(version, float(share), minutes, False, "" if minutes else TOO_FEW)
