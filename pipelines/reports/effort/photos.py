"""A manifest as the data of an experiment: a row per labelled photo, with its time and whether that counts."""

import json
from collections import Counter

import numpy as np
import pandas as pd

from pipelines.dataset.split import BLIND_SPLITS, is_blind
from pipelines.prelabel.strategies import chance_of

NO_TIME = "no time recorded"
IMPORTED = "imported masks"
SEVERAL = "drawn by several people"
BREAK = "a break in between"
FAR_OUT = "many times the usual time of such photos"
_REASONS = [NO_TIME, IMPORTED, SEVERAL, BREAK]  # why a photo's time does not count; the first that applies
_ORIGINS = ("untouched", "changed", "manual", "deleted")
_QUARTILE_DISTANCES = 3.0  # from the upper quartile: far out (Tukey, "Exploratory Data Analysis", 1977)
_SHORTEST_BREAK = 5.0  # times the expected time; needed where nearly equal times make the quartiles useless


def labelled_photos(
    manifest: pd.DataFrame, longest_s: float, control_share: float = 0.0, random_share: float = 0.0
) -> pd.DataFrame:
    """Return a row per photo of a manifest of any version, in the manifest's order, numbered from 0.

    A time above `longest_s` seconds is a break; the shares, 0..1, are those of `prelabel` in params.yaml.

    Columns, of type str: `version` (the model whose masks were shown, or empty), `period` (of photos without masks: the
    version whose masks were shown at that time, or empty), `family`, `person` (or empty), `left_out` (why the photo's
    time does not count, or empty when it does). Of type bool: `is_spared` (its split is served without masks),
    `is_control` (served without masks at random), `is_random` (chosen for the queue at random). Of type int: `done`
    (photos that this person had labelled before), `garments` (labels in the final mask), and regions `untouched`,
    `changed`, `manual`, `deleted`. Of type float: `seconds` and `at` (since 1970), NaN when unknown.
    """
    manifest = manifest.reset_index(drop=True)
    table = pd.DataFrame({"version": _texts(manifest, "prediction_version")})
    table["at"] = _moments(manifest)
    table["period"] = _periods(table["at"].to_numpy(), table["version"].to_numpy(object))
    table["is_spared"], table["is_control"], table["is_random"] = _chosen(manifest, control_share, random_share)
    table["family"] = _families(manifest)
    people = _lists(manifest, "annotators")
    table["person"] = [names[-1] if names else "" for names in people]
    table["garments"] = _garments(manifest)
    table["seconds"] = _numbers(manifest, "lead_time_s")
    for name in _ORIGINS:
        table[name] = _numbers(manifest, f"regions_{name}").fillna(0).astype(int)
    several = np.array([len(uuids) > 1 for uuids in _lists(manifest, "annotations")], bool)
    is_long = table["seconds"] > longest_s
    table["left_out"] = np.select(
        [~(table["seconds"] > 0), _flags(manifest, "imported"), several, is_long], _REASONS, default=""
    ).astype(object)
    table["done"] = _done_before(table, people)
    table.loc[_far_out(table[table["left_out"] == ""]), "left_out"] = FAR_OUT
    return table


def regressors(photos: pd.DataFrame) -> pd.DataFrame:
    """Return what a photo's time depends on besides masks, a column each, with one column per person.

    Experience is the logarithm of one plus the photos done before: the time of a task falls by a power of how often it
    was done (Newell and Rosenbloom, "Mechanisms of skill acquisition and the law of practice", 1981).
    """
    people = pd.get_dummies(photos["person"], prefix="person", prefix_sep="\t", dtype=float)
    experience, garments = np.log1p(photos["done"]), np.log1p(photos["garments"])
    return people.assign(experience=experience - experience.mean(), garments=garments - garments.mean())


def arm_regressors(photos: pd.DataFrame) -> pd.DataFrame:
    """Return how masks affect a photo's time, a column each: per model version, and per garment.

    Photos for which the version of their time proposed nothing have a column of their own.
    """
    shown, garments = photos["version"] != "", np.log1p(photos["garments"])
    arms = pd.get_dummies(photos["version"].where(shown), prefix="masks of", dtype=float)
    none_proposed = ~shown & ~photos["is_control"] & (photos["period"] != "")
    return arms.assign(none_proposed=none_proposed, garments=shown * (garments - garments.mean()))


def _chosen(
    manifest: pd.DataFrame, control_share: float, random_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which photos' split is served without masks, which are controls, and which were random: (N,) bool each.

    Photos of the training split without masks usually lack them for a reason, for example because the model was not
    confident about any region. They are no controls, except for the random share of controls once the test split has
    stopped growing. Where the split is not recorded, every photo without masks counts as a control.
    """
    photos = _texts(manifest, "sha256")
    is_share, is_random = (
        np.array([chance_of(purpose, photo) < share for photo in photos], bool)
        for purpose, share in (("control", control_share), ("random", random_share))
    )
    split = _texts(manifest, "split")
    spared, unknown = split.isin(BLIND_SPLITS).to_numpy(), (split == "").to_numpy()
    blind = (is_blind(manifest) & (_texts(manifest, "prediction_version") == "")).to_numpy()
    return spared, blind & (spared | unknown | (_flags(manifest, "test_full") & is_share)), is_random


def _periods(at: np.ndarray, version: np.ndarray) -> np.ndarray:
    """Return, for each photo without masks, the version whose masks were shown at its time, or "": (N,) str.

    That is the version of the nearest photo with masks, if the photo was labelled between the first and the last one
    with the masks of that version. Where the times of versions overlap, for example because a person opened an old
    photo again, a photo without masks therefore belongs to one version only.
    """
    period = np.full(len(at), "", object)
    shown, bare = (np.flatnonzero(chosen & np.isfinite(at)) for chosen in (version != "", version == ""))
    if not len(shown) or not len(bare):
        return period
    shown = shown[np.argsort(at[shown], kind="stable")]
    place = np.searchsorted(at[shown], at[bare])
    before, after = shown[(place - 1).clip(0)], shown[place.clip(None, len(shown) - 1)]
    nearest = version[np.where(np.abs(at[bare] - at[before]) <= np.abs(at[after] - at[bare]), before, after)]
    times = pd.Series(at[shown]).groupby(version[shown]).agg(["min", "max"]).loc[nearest].to_numpy()
    period[bare] = np.where((times[:, 0] <= at[bare]) & (at[bare] <= times[:, 1]), nearest, "")
    return period


def _families(manifest: pd.DataFrame) -> "pd.Series[str]":
    """Return each photo's family, or its group where that is not recorded, or the photo itself."""
    families = pd.Series([f"photo {place}" for place in range(len(manifest))], manifest.index)
    for column in ("sha256", "group", "family"):
        known = _texts(manifest, column)
        families = known.where(known != "", families)
    return families


def _garments(manifest: pd.DataFrame) -> list[int]:
    """Count the labels of each final mask, or the submitted regions in older manifests that lack the labels."""
    if "label_pixels" in manifest.columns:
        return [len(json.loads(text)) if text else 0 for text in _texts(manifest, "label_pixels")]
    counts = [_numbers(manifest, f"regions_{name}").fillna(0) for name in _ORIGINS[:3]]
    return sum(counts, start=pd.Series(0.0, manifest.index)).astype(int).tolist()


def _done_before(table: pd.DataFrame, people: list[list[str]]) -> list[int]:
    """Count, for each photo, what its person had labelled before; photos without a time are no practice."""
    done: Counter[str] = Counter()
    before = [0] * len(table)
    idle = table["left_out"].isin((NO_TIME, IMPORTED)).to_numpy()
    for place in np.argsort(table["at"].to_numpy(), kind="stable"):
        before[place] = done[people[place][-1]] if people[place] else 0
        if not idle[place]:
            done.update(people[place])
    return before


def _far_out(counted: pd.DataFrame) -> pd.Index:
    """Return the index of photos whose time is far above that of similar photos.

    The fence is the same for all photos, with masks or without: that of the arm whose photos take longest. It is in
    logarithms of seconds adjusted for person, experience and garments. A fence per arm would remove a ten-minute break
    from quick photos and keep it on slow ones. Short times are no error.
    """
    if counted.empty:
        return counted.index
    known, arms = regressors(counted), arm_regressors(counted)
    base, log_seconds = known.shape[1], np.log(counted["seconds"].to_numpy())
    inputs = np.column_stack([known, arms]).astype(float)
    weights = np.linalg.lstsq(inputs, log_seconds, rcond=None)[0]
    above = log_seconds - inputs[:, :base] @ weights[:base]
    low, middle, high = np.quantile(log_seconds - inputs @ weights, [0.25, 0.5, 0.75])
    spread = max(high + _QUARTILE_DISTANCES * (high - low), middle + np.log(_SHORTEST_BREAK))
    return counted.index[above > spread + (inputs[:, base:] @ weights[base:]).max()]


def _moments(manifest: pd.DataFrame) -> "pd.Series[float]":
    if "updated_at" not in manifest.columns:
        return pd.Series(np.nan, manifest.index)
    moments = pd.to_datetime(manifest["updated_at"], utc=True, errors="coerce", format="ISO8601")
    return (moments - pd.Timestamp(0, tz="UTC")).dt.total_seconds()


def _texts(manifest: pd.DataFrame, column: str) -> "pd.Series[str]":
    if column not in manifest.columns:
        return pd.Series("", manifest.index)
    return manifest[column].fillna("").astype(str)


def _numbers(manifest: pd.DataFrame, column: str) -> "pd.Series[float]":
    if column not in manifest.columns:
        return pd.Series(np.nan, manifest.index)
    return pd.to_numeric(manifest[column], errors="coerce")


def _flags(manifest: pd.DataFrame, column: str) -> np.ndarray:
    if column not in manifest.columns:
        return np.zeros(len(manifest), bool)
    return manifest[column].fillna(False).to_numpy(bool)


def _lists(manifest: pd.DataFrame, column: str) -> list[list[str]]:
    """Return a column of lists of texts; Parquet reads them as arrays, and a missing cell is an empty list."""
    cells = manifest[column] if column in manifest.columns else [()] * len(manifest)
    return [list(map(str, cell)) if isinstance(cell, (list, tuple, np.ndarray)) else [] for cell in cells]
