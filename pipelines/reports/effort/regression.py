"""Poisson regression of the seconds per photo, with a jackknife over families for the intervals.

A Poisson regression with logarithmic link fits the mean of any positive quantity with multiplicative effects, here of
people, practice and photos (Santos Silva and Tenreyro, "The log of gravity", 2006). The seconds need not follow a
Poisson distribution, because the interval comes from the jackknife and not from the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95
_MOST_CLUSTERS = 1000  # more families than this are combined: so many estimate the variance well enough
_RIDGE = 1e-9  # of the mean curvature: allows a person all of whose photos are of one family
_CELLS = 4_000_000  # photos times clusters in memory at the same time


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Interval":
        """Return it in another unit; `factor` is not negative."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Regression:
    """A fitted regression of N photos, with its weights when each of G clusters of families is left out.

    `inputs` is (N, K) float64, of which the first `base` columns do not concern masks; `seconds` (N,), `cluster` (N,)
    int 0..G-1, `weights` (K,), `without` (G, K).
    """

    inputs: np.ndarray
    base: int
    seconds: np.ndarray
    cluster: np.ndarray
    weights: np.ndarray
    without: np.ndarray

    @property
    def clusters(self) -> int:
        """Count the clusters."""
        return len(self.without)

    def expected(self, groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the sum of the seconds expected without masks over each group of photos, (N,) bool or float64.

        Each sum is (1 + G,): over the whole group with the weights of all photos, and without each cluster with the
        weights fitted without it.
        """
        members = np.column_stack(groups).astype(float)
        rows = np.flatnonzero(members.any(1))
        inputs, members, cluster = self.inputs[rows, : self.base], members[rows], self.cluster[rows]
        sums = [members.T @ np.exp(inputs @ self.weights[: self.base])]
        step = max(1, _CELLS // max(1, len(rows)))
        for start in range(0, self.clusters, step):
            weights = self.without[start : start + step, : self.base]
            each = np.exp(inputs @ weights.T)
            each[cluster[:, None] == start + np.arange(len(weights))] = 0
            sums.extend((members.T @ each).T)
        return list(np.array(sums).T)

    def taken(self, groups: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the sum of the seconds that the photos of each group took, in the shape of `expected`."""
        sums = [self.seconds * group for group in groups]
        parts = [np.bincount(self.cluster, values, self.clusters) for values in sums]
        return [np.concatenate([[part.sum()], part.sum() - part]) for part in parts]

    def sizes(self, group: np.ndarray) -> np.ndarray:
        """Return the number of photos of a group, (N,) bool, in each cluster: (G,) int."""
        return np.bincount(self.cluster[group], minlength=self.clusters)


def fit(inputs: np.ndarray, base: int, seconds: np.ndarray, families: np.ndarray) -> Regression:
    """Fit the regression of N ≥ 1 photos; `families` (N,) str are what the jackknife leaves out, one after the other.

    The weights without a cluster are one Newton step from those with it (Pregibon, "Logistic regression diagnostics",
    1981), which agrees with a full fit to a thousandth here.
    """
    _, family = np.unique(families, return_inverse=True)
    cluster = np.unique(family % _MOST_CLUSTERS, return_inverse=True)[1]
    weights = _poisson(inputs, seconds)
    mean = np.exp(inputs @ weights)
    slopes, whole = inputs * (seconds - mean)[:, None], _curvature(inputs, mean)
    order = np.argsort(cluster, kind="stable")
    without = []
    for rows in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        own = (inputs[rows] * mean[rows, None]).T @ inputs[rows]
        without.append(weights - np.linalg.solve(whole - own, slopes[rows].sum(0)))
    return Regression(inputs, base, seconds, cluster, weights, np.array(without))


def half_width(moves: np.ndarray, sizes: Sequence[np.ndarray]) -> float:
    """Return half the width of the 95 % interval of an estimate.

    `moves` (G,) is the change of the estimate when each cluster is left out (CV3: MacKinnon, Nielsen and Webb, "Fast
    and reliable jackknife and bootstrap methods for cluster-robust inference", 2023), `sizes` the number of photos (G,)
    of each cluster in each arm. A cluster belongs to the first arm in which it has photos. Student's t has the degrees
    of freedom of Welch and Satterthwaite over the arms, each of which has its effective number of clusters less one
    (Carter, Schnepel and Steigerwald, "Asymptotic behavior of a t-test robust to cluster heterogeneity", 2017).
    """
    arm = np.select([size > 0 for size in sizes], list(range(len(sizes))), default=len(sizes))
    variance, parts = 0.0, 0.0
    for number in np.unique(arm):
        inside = arm == number
        size = sizes[number][inside] if number < len(sizes) else np.ones(inside.sum())
        # Leaving out a cluster moves the mean of its arm by 1 / (G - 1), not by 1 / G, of its distance.
        shrink = 1 - 1 / inside.sum() if number < len(sizes) else 1.0
        part = shrink * float(np.sum(moves[inside] ** 2))
        variance += part
        parts += part**2 / max(1.0, size.sum() ** 2 / np.sum(size**2) - 1)
    degrees = max(1.0, variance**2 / parts) if parts else 1.0
    return float(stats.t.ppf(0.5 + _CONFIDENCE / 2, degrees) * np.sqrt(variance))


def from_logarithms(values: np.ndarray, sizes: Sequence[np.ndarray]) -> Interval:
    """Return the exponential of an estimate, (1 + G,) with its values without each cluster, and its interval."""
    half = half_width(values[1:] - values[0], sizes)
    return Interval(*(float(np.exp(values[0] + sign * half)) for sign in (0, -1, 1)))


def _poisson(inputs: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the weights (K,) of the regression, by Newton's method."""
    weights = np.linalg.lstsq(inputs, np.log(seconds), rcond=None)[0]
    for _ in range(50):
        mean = np.exp(inputs @ weights)
        step = np.linalg.solve(_curvature(inputs, mean), inputs.T @ (seconds - mean))
        step *= min(1.0, 2 / max(2, np.abs(inputs @ step).max()))  # large steps overflow
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return np.asarray(weights)


def _curvature(inputs: np.ndarray, mean: np.ndarray) -> np.ndarray:
    curvature = (inputs * mean[:, None]).T @ inputs
    curvature[np.diag_indices_from(curvature)] += _RIDGE * np.trace(curvature) / len(curvature)
    return np.asarray(curvature)
