"""Seconds per photo that a model's masks save, estimated from an experiment that runs all the time.

A hash of a photo's group decides whether the photo is served without masks, so the assignment is random by family. The
photos with the masks of a model version are compared with those without masks that were labelled at the same time,
never with earlier days on which people had less practice. A regression on all photos whose time counts explains the
seconds by person, experience, number of garments and model version; m is its expectation for a photo by person,
experience and garments alone. The version's own controls correct it:

    seconds without masks, of the photos with masks = Σ_masks m · (Σ_controls s / Σ_controls m)

for seconds s. The time saved is this sum less the seconds that the photos with masks took. Errors of the regression are
equal in both arms in expectation, so that the estimate is consistent (Rosenblum and van der Laan, "Simple, efficient
estimators of treatment effects in randomized trials using generalized linear models", 2010). The interval is that of
the logarithm of the ratio of both sums, jackknifed by family, since photos of one family resemble each other and share
an arm. The ratio over all versions, family by family, gives the saving of all versions.

A version may propose nothing on a photo of its arm. The photo was assigned to the arm at random and is counted there:
nothing was saved on it, and the whole saving belongs to the photos with masks.

The estimate assumes that masks change how long a photo takes but not how many garments people find in it, and that a
photo's time does not depend on the photos before it, apart from practice. Photos without masks are random, but most of
those with masks were chosen because a model was uncertain about them. If such photos take longer at equal garments,
masks save more than the estimate. `by_chance` avoids this, because both of its arms are random.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pipelines.reports.effort.photos import arm_regressors, regressors
from pipelines.reports.effort.regression import Interval, Regression, fit, from_logarithms

TOO_FEW = "too few blind photos to tell"
_FEWEST_PHOTOS = 5  # in each arm
_FEWEST_FAMILIES = 3  # two leave one degree of freedom, and an interval too wide to be useful
_FIRST = 5  # photos done before the "first photos" of a person: the middle of the first ten


@dataclass(frozen=True)
class Saving:
    """Time that masks saved on `photos` photos, estimated from `with_masks` and `without_masks` photos that count.

    `per_photo` is in seconds per photo with masks, negative when masks cost time; None when it cannot be estimated, for
    the `reason` given.
    """

    photos: int
    with_masks: int
    without_masks: int
    per_photo: Interval | None = None
    reason: str = ""

    @property
    def hours(self) -> Interval | None:
        """Return the time saved on all of the photos, in hours; None when it cannot be estimated."""
        return self.per_photo.times(self.photos / 3600) if self.per_photo else None


@dataclass(frozen=True)
class Learning:
    """Effect of practice on the seconds per photo, without masks and at equal garments.

    `curve` has the seconds of the average photo by the number of photos that its person had done before; `change` is
    the last over the first (1: no change).
    """

    curve: tuple[tuple[int, Interval], ...]
    change: Interval


@dataclass(frozen=True)
class Savings:
    """Time saved by the masks of each version, and of all versions with an estimate; and the effect of practice."""

    by_version: dict[str, Saving]
    by_chance: dict[str, Saving]  # the same for the photos with masks that were chosen for the queue at random
    in_all: Saving
    learning: Learning | None


@dataclass(frozen=True)
class _Arms:
    """Comparison of one version, each (N,) bool: photos with its masks, all photos of its arm, and its controls."""

    masks: np.ndarray
    given: np.ndarray
    controls: np.ndarray
    reason: str  # why there is no comparison; empty when there is


def estimate_savings(photos: pd.DataFrame) -> Savings:
    """Return the time that the masks of each model version saved; `photos` are those of `labelled_photos`."""
    shown = photos.loc[photos["version"] != "", "version"].value_counts()
    counted = photos[photos["left_out"] == ""].reset_index(drop=True)
    regression = _fit(counted)
    arms = {str(version): _arms(counted, str(version)) for version in shown.index}
    by_version = {version: _saving(regression, [own], int(shown[version])) for version, own in arms.items()}
    by_chance = {
        version: _saving(regression, [_arms(counted, version, counted["is_random"].to_numpy())], saving.photos)
        for version, saving in by_version.items()
    }
    estimated = [version for version, saving in by_version.items() if saving.per_photo]
    photos_in_all = sum(by_version[version].photos for version in estimated)
    in_all = _saving(regression, [arms[version] for version in estimated], photos_in_all)
    return Savings(by_version, by_chance, in_all, _learning(regression, counted))


def _fit(counted: pd.DataFrame) -> Regression | None:
    """Fit the seconds of all photos that count; return None when there are none."""
    if counted.empty:
        return None
    known = regressors(counted)
    inputs = np.column_stack([known, arm_regressors(counted)]).astype(float)
    return fit(inputs, known.shape[1], counted["seconds"].to_numpy(float), counted["family"].to_numpy(str))


def _arms(counted: pd.DataFrame, version: str, chosen: np.ndarray | bool = True) -> _Arms:
    """Return a version's arms; the photos with masks are limited to those `chosen`, (N,) bool."""
    masks, at_its_time = (counted[column].to_numpy() == version for column in ("version", "period"))
    controls, masks = counted["is_control"].to_numpy() & at_its_time, masks & chosen
    given = masks | (at_its_time & ~counted["is_control"].to_numpy() & chosen)
    spared = counted["is_spared"].to_numpy()
    reason = _lack(counted[masks], "with its masks") or _lack(counted[controls], "without masks at its time")
    if not reason and (masks & spared).sum() > controls.sum():
        # Before these splits were blind; the few photos without masks were not chosen at random.
        reason = f"{TOO_FEW}: at its time most photos of the splits test and val had masks as well"
    return _Arms(masks, given, controls, reason)


def _lack(photos: pd.DataFrame, which: str) -> str:
    families = photos["family"].nunique()
    if len(photos) >= _FEWEST_PHOTOS and families >= _FEWEST_FAMILIES:
        return ""
    return f"{TOO_FEW}: timed photos {which}: {len(photos)}, families: {families}"


def _saving(regression: Regression | None, arms: Sequence[_Arms], photos: int) -> Saving:
    """Estimate the time that the masks of one or several versions saved together."""
    masks, controls = (sum(int(getattr(arm, name).sum()) for arm in arms) for name in ("masks", "controls"))
    reason = next((arm.reason for arm in arms if arm.reason), "") if arms else f"{TOO_FEW}: of no version enough"
    if regression is None or reason:
        return Saving(photos, masks, controls, None, reason or TOO_FEW)
    unaided, taken = np.zeros(1 + regression.clusters), np.zeros(1 + regression.clusters)
    for arm in arms:
        expected_given, expected_controls = regression.expected([arm.given, arm.controls])
        taken_given, taken_controls = regression.taken([arm.given, arm.controls])
        with np.errstate(invalid="ignore"):
            unaided += expected_given * taken_controls / expected_controls
        taken += taken_given
    sizes = [
        regression.sizes(np.any(group, axis=0)) for group in zip(*((a.controls, a.given) for a in arms), strict=True)
    ]
    if not np.isfinite(unaided).all():  # all controls are in one cluster of families
        return Saving(photos, masks, controls, None, TOO_FEW)
    ratio = from_logarithms(np.log(unaided / taken), sizes)
    per_photo = (float(taken[0] / masks * (bound - 1)) for bound in (ratio.value, ratio.low, ratio.high))
    return Saving(photos, masks, controls, Interval(*per_photo))


def _learning(regression: Regression | None, counted: pd.DataFrame) -> Learning | None:
    """Estimate the effect of practice; return None while people have done too few photos."""
    if regression is None or regression.clusters < _FEWEST_FAMILIES:
        return None
    done = counted.groupby("person")["done"].max()
    practised = np.log1p(done[done >= 4 * _FIRST])
    if practised.empty:
        return None
    now = int(np.expm1(practised.mean()))
    experience = regression.base - 2  # its column, before garments
    inputs = regression.inputs.copy()
    inputs[:, experience] = 0  # every person at the mean of the logarithms
    expected, photos = (
        part[0] for part in (replace(regression, inputs=inputs).expected([np.ones(len(counted))]),
                             replace(regression, seconds=np.ones(len(counted))).taken([np.ones(len(counted))]))
    )  # fmt: skip
    power = np.concatenate([regression.weights[None], regression.without])[:, experience]
    sizes = [regression.sizes(np.ones(len(counted), bool))]
    mean = np.log1p(counted["done"]).mean()
    points = np.unique(np.geomspace(_FIRST, now, 12).round().astype(int))
    curve = [np.log(expected / photos) + power * (np.log1p(point) - mean) for point in points]
    return Learning(
        tuple((int(point), from_logarithms(values, sizes)) for point, values in zip(points, curve, strict=True)),
        from_logarithms(curve[-1] - curve[0], sizes),
    )
