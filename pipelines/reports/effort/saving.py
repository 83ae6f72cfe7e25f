"""How many seconds a model's masks save per photo, as an experiment shows it that runs all the time.

Which photos are handed out without masks follows from a hash of their group, so chance decides it, family by family.
Of a model version, the photos with its masks are compared with those without that were labelled at the same time,
never with earlier days on which people had less practice. A regression on all photos whose time counts explains the
seconds by person, experience, number of garments and model version; m is what it expects of a photo by person,
experience and garments alone. The version's own controls say how far that is off, and so

    seconds without masks, of the photos with masks = Σ_masks m · (Σ_controls s / Σ_controls m)

for seconds s; less what the photos with masks took, that is what was saved. Whatever the regression gets wrong is the
same in both arms but for chance, so the estimate is consistent (Rosenblum and van der Laan, «Simple, efficient
estimators of treatment effects in randomized trials using generalized linear models», 2010). The interval is that of
the logarithm of the ratio of both sums, jackknifed by family, since photos of one family resemble each other and share
an arm. The ratio over all versions, family by family, gives the saving in all.

A version may propose nothing on a photo that it was shown. Chance gave that photo to its arm all the same, so it is
counted there: nothing was saved on it, and the whole saving is that of the photos with masks.

This assumes that masks change how long a photo takes but not how many garments people find in it, which counts as the
photo's own difficulty, and that a photo's time does not depend on which photos came before it, practice apart. Photos
without masks come by chance, most of those with masks because a model was unsure of them; if such photos take longer at
equal garments, masks save more than the estimate says. `by_chance` is free of that: both arms came by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pipelines.reports.effort.photos import arm_regressors, regressors
from pipelines.reports.effort.regression import Interval, Regression, fit, from_logarithms

TOO_FEW = "too few blind photos to tell"
_FEWEST_PHOTOS = 5  # in each arm
_FEWEST_FAMILIES = 3  # two leave one degree of freedom, and an interval that says nothing
_FIRST = 5  # photos done before «the first photos» of a person: the middle of the first ten


@dataclass(frozen=True)
class Saving:
    """What masks saved on `photos` photos, estimated on `with_masks` and `without_masks` photos whose time counts.

    `per_photo` is in seconds per photo with masks, negative when masks cost time; None when it cannot be told, and
    `reason` then says why.
    """

    photos: int
    with_masks: int
    without_masks: int
    per_photo: Interval | None = None
    reason: str = ""

    @property
    def hours(self) -> Interval | None:
        """Return what was saved on all of the photos, in hours; None when it cannot be told."""
        return self.per_photo.times(self.photos / 3600) if self.per_photo else None


@dataclass(frozen=True)
class Learning:
    """What practice did to the seconds per photo, without masks and at equal garments.

    `curve` gives the seconds of the average photo by how many its person had done before; `change` is the last over the
    first (1: nobody became quicker).
    """

    curve: tuple[tuple[int, Interval], ...]
    change: Interval


@dataclass(frozen=True)
class Savings:
    """What the masks of each version saved, what those did whose saving can be told, and what practice did."""

    by_version: dict[str, Saving]
    by_chance: dict[str, Saving]  # the same, of the photos with masks that chance and no model chose for the queue
    in_all: Saving
    learning: Learning | None


@dataclass(frozen=True)
class _Arms:
    """One version's comparison, each (N,) bool: photos with its masks, all that chance gave to it, and its controls."""

    masks: np.ndarray
    given: np.ndarray
    controls: np.ndarray
    reason: str  # why it cannot be made; empty when it can


def estimate_savings(photos: pd.DataFrame) -> Savings:
    """Return what the masks of each model version saved; `photos` are those of `labelled_photos`."""
    shown = photos.loc[photos["version"] != "", "version"].value_counts()
    counted = photos[photos["left_out"] == ""].reset_index(drop=True)
    regression = _fit(counted)
    arms = {str(version): _arms(counted, str(version)) for version in shown.index}
    by_version = {version: _saving(regression, [these], int(shown[version])) for version, these in arms.items()}
    by_chance = {
        version: _saving(regression, [_arms(counted, version, counted["is_random"].to_numpy())], saving.photos)
        for version, saving in by_version.items()
    }
    told = [version for version, saving in by_version.items() if saving.per_photo]
    in_all = _saving(regression, [arms[version] for version in told], sum(by_version[one].photos for one in told))
    return Savings(by_version, by_chance, in_all, _learning(regression, counted))


def _fit(counted: pd.DataFrame) -> Regression | None:
    """Fit the seconds of all photos that count; None when there are none."""
    if counted.empty:
        return None
    known = regressors(counted)
    inputs = np.column_stack([known, arm_regressors(counted)]).astype(float)
    return fit(inputs, known.shape[1], counted["seconds"].to_numpy(float), counted["family"].to_numpy(str))


def _arms(counted: pd.DataFrame, version: str, chosen: np.ndarray | bool = True) -> _Arms:
    """Give a version's arms, that with masks from the photos that are `chosen`, (N,) bool."""
    masks, at_its_time = (counted[column].to_numpy() == version for column in ("version", "period"))
    controls, masks = counted["is_control"].to_numpy() & at_its_time, masks & chosen
    given = masks | (at_its_time & ~counted["is_control"].to_numpy() & chosen)
    spared = counted["is_spared"].to_numpy()
    reason = _lack(counted[masks], "with its masks") or _lack(counted[controls], "without masks at its time")
    if not reason and (masks & spared).sum() > controls.sum():
        # So it was before these sides were left blind; the few photos without masks were not chosen by chance.
        reason = f"{TOO_FEW}: at its time most photos of the sides test and val had masks as well"
    return _Arms(masks, given, controls, reason)


def _lack(photos: pd.DataFrame, which: str) -> str:
    families = photos["family"].nunique()
    if len(photos) >= _FEWEST_PHOTOS and families >= _FEWEST_FAMILIES:
        return ""
    return f"{TOO_FEW}: timed photos {which}: {len(photos)}, families: {families}"


def _saving(regression: Regression | None, arms: Sequence[_Arms], photos: int) -> Saving:
    """Estimate what the masks of one or several versions saved together."""
    masks, controls = (sum(int(getattr(these, name).sum()) for these in arms) for name in ("masks", "controls"))
    reason = next((these.reason for these in arms if these.reason), "") if arms else f"{TOO_FEW}: of no version enough"
    if regression is None or reason:
        return Saving(photos, masks, controls, None, reason or TOO_FEW)
    unaided, taken = np.zeros(1 + regression.clusters), np.zeros(1 + regression.clusters)
    for these in arms:
        expected_given, expected_controls = regression.expected([these.given, these.controls])
        taken_given, taken_controls = regression.taken([these.given, these.controls])
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
    """Estimate what practice did; None while people have done too few photos to tell."""
    if regression is None or regression.clusters < _FEWEST_FAMILIES:
        return None
    done = counted.groupby("person")["done"].max()
    practised = np.log1p(done[done >= 4 * _FIRST])
    if practised.empty:
        return None
    now = int(np.expm1(practised.mean()))
    experience = regression.base - 2  # its column, before garments
    inputs = regression.inputs.copy()
    inputs[:, experience] = 0  # everybody at the mean of the logarithms
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
