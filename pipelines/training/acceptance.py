"""What people would do with a model's regions, learnt on photos whose masks no model drew any part of.

What people do with a region follows from its IoU with the true mask (`params.effort`): they leave it as it is, correct
it, or delete it. Two logistic models say how likely that is from what the network says of the region;
`pipelines.segmentation.proposals` uses them when photos are pre-labelled.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd

from pipelines.params import IGNORE, EffortParams
from pipelines.segmentation.proposals import FEATURES, Logistic, Proposals, RegionDescription, Seconds

COLUMNS = ("photo", "family", "label", "score", *FEATURES, "iou")  # of a table of regions
Rows = list[dict[str, Any]]
_FEWEST = 20  # regions, below which nothing but their share is learnt
_FOLDS = 10
_INTERCEPT_SD, _SLOPE_SD = 3.0, 1.0  # of the prior, in logits and in logits per standard deviation of a feature
_LABEL_SDS = (0.05, 0.2, 0.5, 1.0)  # of the labels' intercepts; the data choose
_NEWTON_STEPS = 50
_COUNTS = ("regions_untouched", "regions_changed", "regions_deleted", "regions_manual")  # in the order of `Seconds`
_HUBER = 1.345  # Huber 1981: 95 % efficient where errors are normal
_LEAST_SPREAD, _LEAST_SECONDS, _STRAY, _BOUND, _ROUNDS = 0.05, 0.5, 0.5, 4.0, 20


def region_rows(
    photo: str, family: str, descriptions: Sequence[RegionDescription], predicted: np.ndarray, truth: np.ndarray
) -> Rows:
    """Return a row of COLUMNS per described region of one photo.

    `predicted` and `truth` are (H, W) uint8 index masks with the ids of `descriptions`; `predicted` is the mask that
    people would see, specks dropped. Pixels that are `IGNORE` in `truth` count for nothing.
    """
    known = truth != IGNORE
    pairs = np.bincount(predicted[known].astype(np.intp) << 8 | truth[known], minlength=1 << 16).reshape(256, 256)
    proposed, wanted, both = pairs.sum(1), pairs.sum(0), pairs.diagonal()
    iou = both / np.maximum(proposed + wanted - both, 1)
    return [
        {
            "photo": photo, "family": family, "label": region.label, "score": region.score,
            **dict(zip(FEATURES, region.features, strict=True)), "iou": float(iou[region.label_id]),
        }
        for region in descriptions
    ]  # fmt: skip


def region_table(rows: Rows) -> pd.DataFrame:
    """Return rows of any number of photos as a table, which has its columns even when there is no row."""
    return pd.DataFrame(rows, columns=list(COLUMNS))


def fit_proposals(regions: pd.DataFrame, seconds: Seconds, effort: EffortParams) -> Proposals:
    """Fit the chances of regions on a table of regions (COLUMNS).

    Both models are logistic regressions with normal priors, at the mode of the posterior. Every label has an intercept
    of its own around the common one; how far these stray is chosen by the marginal likelihood (Laplace's approximation:
    Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.5), so a label with little support gets the
    common one. With fewer than 20 regions, or when all end in the same way, the chance is their share, with one more
    region that ends in each of three ways by a third. No region is shown where `cross_fitted` chances save nothing on
    these very photos.
    """
    photos = sorted(set(regions["photo"]))
    saved = savings_by_photo(cross_fitted(regions, seconds, effort), photos, seconds, effort)
    return _fit_chances(regions, seconds, effort, float(saved.mean()) if photos else 0.0)


def cross_fitted(regions: pd.DataFrame, seconds: Seconds, effort: EffortParams) -> pd.DataFrame:
    """Return the table with chances `accepted`, `corrected`, `deleted` by models that never saw the row's family."""
    families, sizes = np.unique(regions["family"].to_numpy(str), return_counts=True)
    folds = np.zeros(min(_FOLDS, len(families)), int)
    fold_of = {}
    for place in np.argsort(-sizes, kind="stable"):  # the largest first, each to the fold with the fewest regions
        fold_of[families[place]] = int(folds.argmin())
        folds[folds.argmin()] += sizes[place]
    fold = regions["family"].astype(str).map(fold_of).to_numpy()
    chances = np.zeros((len(regions), 3))
    for number in range(len(folds)):
        held_out = fold == number
        proposals = _fit_chances(regions[~held_out], seconds, effort)
        chances[held_out] = chances_of(regions[held_out], proposals)
    return regions.assign(**dict(zip(("accepted", "corrected", "deleted"), chances.T, strict=True)))


def chances_of(regions: pd.DataFrame, proposals: Proposals) -> np.ndarray:
    """Return the chances of each row of a table of regions: accepted, corrected, deleted, (N, 3) float64."""
    features = regions[list(FEATURES)].to_numpy(float).tolist()
    described = [
        RegionDescription(label, 0, score, tuple(row))
        for label, score, row in zip(regions["label"], regions["score"], features, strict=True)
    ]
    chances = [proposals.chances(region) for region in described]
    return np.array([(chance.accepted, chance.corrected, chance.deleted) for chance in chances]).reshape(-1, 3)


def savings_by_photo(
    regions: pd.DataFrame, photos: Sequence[str], seconds: Seconds, effort: EffortParams
) -> np.ndarray:
    """Return the seconds that showing what pays saves on each photo, (N,) float64; 0 where nothing is shown.

    `regions` has chances as `cross_fitted` adds them: they decide what is shown, and the IoU what people do with it.
    """
    iou = regions["iou"].to_numpy(float)
    accepted, corrected = iou >= effort.accept_iou, (iou >= effort.correct_iou) & (iou < effort.accept_iou)
    worth = seconds.saved(*(how.astype(float) for how in (accepted, corrected, iou < effort.correct_iou)))
    expected = seconds.saved(*(regions[name].to_numpy(float) for name in ("accepted", "corrected", "deleted")))
    by_photo = pd.Series(np.where(expected > 0, worth, 0.0)).groupby(regions["photo"].to_numpy()).sum()
    return by_photo.reindex(list(photos), fill_value=0.0).to_numpy(float)


def calibration_error(chances: np.ndarray, happened: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error of (N,) chances 0..1 against what happened, (N,) bool: 0 (calibrated) to 1.

    After Guo et al., "On calibration of modern neural networks", ICML 2017, with bins of equal width.
    """
    place = np.minimum((chances * bins).astype(np.intp), bins - 1)
    off = np.bincount(place, chances, bins) - np.bincount(place, happened, bins)
    return float(np.abs(off).sum() / max(1, len(chances)))


def estimate_seconds(manifest: pd.DataFrame, effort: EffortParams) -> Seconds:
    """Return people's own seconds as a dataset's manifest shows them, as far as they can be told from it.

    A photo's lead time is a sum over what was done on it; the seconds of each thing follow by least squares, in which a
    deviation counts by its share of the expected time, and a far-out one less (Huber's weights).

    The seconds of params.yaml weigh as much as `effort.min_photos` photos: times are blended with what params.yaml says
    of the same photos, and things done on fewer photos than that are filled up with it. Where even many times tell
    little, as of the short time that a deletion takes, a thing is expected to follow the pace of all others, give or
    take half of it. None leaves a fourth to four times that of params.yaml.

    Left out are photos without a lead time (imported ones), with a longer one than `effort.longest_s`, of several
    annotators, and those whose deleted regions were not recorded.
    """
    from scipy.optimize import lsq_linear

    counts, times = _timed_photos(manifest, effort)
    prior = np.array(astuple(Seconds.from_params(effort)))
    share, usual = len(times) / (len(times) + effort.min_photos), counts @ prior
    blended, bounds = share * times + (1 - share) * usual, np.maximum(prior, _LEAST_SECONDS)
    missing = np.maximum(0, effort.min_photos - (counts > 0).sum(0))
    seconds = prior
    for _ in range(_ROUNDS):
        weights = _trust(times, counts @ seconds)
        typical = (weights[:, None] * counts**2).sum(0) / np.maximum((counts > 0).sum(0), 1)
        whole = float(weights @ usual**2)
        centre = prior * (float(weights @ (blended * usual)) / whole if whole else 1.0)
        held = np.sqrt(1 / (_STRAY * np.maximum(centre, _LEAST_SECONDS)) ** 2 + missing * typical)
        rows = np.vstack([np.sqrt(weights)[:, None] * counts, np.diag(held)])
        targets = np.concatenate([np.sqrt(weights) * blended, held * centre])
        seconds = lsq_linear(rows, targets, (bounds / _BOUND, bounds * _BOUND)).x
    return Seconds(*(float(value) for value in seconds))


def _trust(times: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the weights of (N,) times in a least-squares fit: inverse variances, less for those that are far out."""
    if not len(times):
        return np.ones(0)
    expected = np.maximum(expected, _LEAST_SECONDS)
    off = np.abs(times - expected) / expected
    spread = max(_LEAST_SPREAD, 1.4826 * float(np.median(off)))  # a normal distribution's standard deviation
    return np.asarray(np.minimum(1, _HUBER * spread / np.maximum(off, 1e-9)) / (spread * expected) ** 2)


def _timed_photos(manifest: pd.DataFrame, effort: EffortParams) -> tuple[np.ndarray, np.ndarray]:
    """Return what was done on each photo that can be counted, (N, 5) as `Seconds` has it, and the seconds, (N,)."""
    table = manifest.reindex(columns=["lead_time_s", "prediction_version", *_COUNTS])
    by_hand = table["prediction_version"].astype(object).fillna("").eq("").to_numpy()
    done = table[list(_COUNTS)].to_numpy(float)
    counts = np.column_stack([np.ones(len(done)), np.where(np.isnan(done) & by_hand[:, None], 0, done)])
    times = table["lead_time_s"].fillna(0).to_numpy(float)
    usable = (times > 0) & (times <= effort.longest_s) & np.isfinite(counts).all(1)
    if "annotations" in manifest.columns:
        usable &= np.array([len(uuids) == 1 for uuids in manifest["annotations"]], bool)
    return counts[usable], times[usable]


def _fit_chances(
    regions: pd.DataFrame, seconds: Seconds, effort: EffortParams, saved_per_photo: float = 0.0
) -> Proposals:
    features, labels = regions[list(FEATURES)].to_numpy(float), regions["label"].tolist()
    iou = regions["iou"].to_numpy(float)
    return Proposals(
        seconds=seconds,
        acceptable=_fit(features, labels, iou >= effort.accept_iou, 1 / 3),
        correctable=_fit(features, labels, iou >= effort.correct_iou, 2 / 3),
        regions=len(regions),
        photos=int(regions["photo"].nunique()),
        saved_per_photo=saved_per_photo,
    )


def _fit(features: np.ndarray, labels: Sequence[str], happened: np.ndarray, usual: float) -> Logistic:
    """Fit one logistic model on (N, K) float64 features; `usual` is the chance where nothing is known."""
    rate = (happened.sum() + usual) / (len(happened) + 1)
    base = float(np.log(rate / (1 - rate)))
    if len(happened) < _FEWEST or happened.all() or not happened.any():
        return Logistic(base, (0.0,) * features.shape[1], {})
    names, own = np.unique(labels, return_inverse=True)
    mean, deviation = features.mean(0), features.std(0)
    deviation[deviation == 0] = 1
    inputs = np.column_stack([np.ones(len(features)), (features - mean) / deviation, np.eye(len(names))[own]])
    centre = np.zeros(inputs.shape[1])
    centre[0] = base
    fits = []
    for label_sd in _LABEL_SDS:
        sds = np.repeat([_INTERCEPT_SD, _SLOPE_SD, label_sd], [1, features.shape[1], len(names)])
        fits.append(_posterior_mode(inputs, happened.astype(float), centre, sds))
    weights, _ = max(fits, key=lambda fit: fit[1])
    slopes = weights[1 : 1 + features.shape[1]] / deviation
    of_label = dict(zip(names.tolist(), weights[1 + features.shape[1] :].tolist(), strict=True))
    return Logistic(float(weights[0] - slopes @ mean), tuple(slopes.tolist()), of_label)


def _posterior_mode(
    inputs: np.ndarray, happened: np.ndarray, centre: np.ndarray, sds: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the weights of a logistic model with a normal prior, by Newton's method, and its log evidence."""
    weights, precision = centre.copy(), 1 / sds**2

    def loss(at: np.ndarray) -> float:
        logits = inputs @ at
        return float(np.sum(np.logaddexp(0, logits) - happened * logits) + precision @ (at - centre) ** 2 / 2)

    def curvature(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chance = 1 / (1 + np.exp(-np.clip(inputs @ at, -30, 30)))
        hessian = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + np.diag(precision)
        return hessian, inputs.T @ (chance - happened) + precision * (at - centre)

    for _ in range(_NEWTON_STEPS):
        hessian, gradient = curvature(weights)
        step = np.linalg.solve(hessian, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    spread = np.linalg.slogdet(curvature(weights)[0])[1] - np.log(precision).sum()
    return weights, -loss(weights) - float(spread) / 2
