"""Is a gain of mIoU more than chance, with a known rate of errors? Tests and intervals over families of photos.

Under the null hypothesis two models are exchangeable within each family: who is called challenger makes no difference.
Nothing is assumed of photos of one family, which may be as alike as they like.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from pipelines.params import PromoteParams
from pipelines.training.bootstrap import by_family
from pipelines.training.confusion import iou_of_pixels, pixels_of
from pipelines.training.metrics import CONFIDENCE, Evaluation, gain_of_pixels

POWER = 0.8  # with which a gain of the detectable size is found
_DECAY = 0.8  # of the level from one look at a test split to the next
_STEPS = 4  # p values, at least, up to the level, or the swap test has little power
_MOST_EXACT = 12  # families, up to which all swaps are tried
_FEWEST_SWAPS, _MOST_SWAPS = 9_999, 499_999
_SWAPS_PER_LEVEL = 20  # as many random swaps as make p values this much finer than the level
_AT_ONCE = 9_999
_TIE = 1e-12  # sums in another order differ by less
_SEED = 1935
Number = TypeVar("Number", float, np.ndarray)
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def level_of_look(looks: int, params: PromoteParams) -> float:
    """Return the level of the look at a test split that follows `looks` earlier ones.

    The first look has 1 − `confidence`; what `total_error` leaves is spent over all later ones, each of which gets 0.8
    of what the one before had: α_k = (total − α_1) · 0.2 · 0.8^(k−2). The levels add up to `total_error`, so by
    Bonferroni's inequality that bounds the chance of any false promotion, whatever the looks have in common.

    Spending of the error over looks: Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika
    70 (1983); of exponential shape: Hwang, Shih and DeCani, "Group sequential designs using a family of type I error
    probability spending functions", Statistics in Medicine 9 (1990), here for looks without an end.
    """
    first = min(1 - params.confidence, params.total_error)
    return first if looks == 0 else (params.total_error - first) * (1 - _DECAY) * _DECAY ** (looks - 1)


def families_for(level: float) -> int:
    """Return the fewest families of which a swap test can reach a level: with F families no p is below 1 / 2^F."""
    return math.ceil(math.log2(1 / level)) if level > 0 else 0


@dataclass(frozen=True)
class Comparison:
    """Pixels of two models on the same photos, by family: each (F, C, 3) int64 as `pixels_of` returns them.

    Truth pixels of classes that one of the models cannot know are left out, as if they were ignored.
    """

    challenger: np.ndarray
    champion: np.ndarray

    @classmethod
    def of(cls, challenger: Evaluation, champion: Evaluation, known: np.ndarray) -> "Comparison":
        """Compare evaluations of the same photos; `known` is (C,) bool: the classes that both models know."""
        both = []
        for evaluation in (challenger, champion):
            judged = evaluation.confusions * known[:, None]
            both.append(by_family(pixels_of(judged), evaluation.families))
        return cls(*both)

    @property
    def families(self) -> int:
        """Count the families."""
        return len(self.challenger)

    def mious(self) -> tuple[float, float]:
        """Return the challenger's and the champion's mIoU over the known classes in the truth; NaN without any."""
        present = self.challenger[..., 1].sum(0) > 0
        if not present.any():
            return math.nan, math.nan
        challenger, champion = (iou_of_pixels(pixels.sum(0)[present]) for pixels in (self.challenger, self.champion))
        return float(challenger.mean()), float(champion.mean())

    def gain(self) -> float:
        """Return the challenger's mIoU less the champion's."""
        return float(gain_of_pixels(self.challenger.sum(0), self.champion.sum(0)))

    def p_value(self, level: float) -> float:
        """Return the chance of so large a gain when neither model is better: the larger p value of two tests.

        Both keep the level by themselves. The swap test assumes nothing, but with few families only a gain in all of
        them would pass it: Student's t stands alone there.
        """
        if self.families < 2 or not math.isfinite(self.gain()):
            return 1.0
        return max(self.share_p(), self.swap_p(level) if self.families >= families_for(level / _STEPS) else 0.0)

    def swap_p(self, level: float = 0.05) -> float:
        """Return the one-sided p value of the swap test: families swap models, and the pooled gain is taken anew.

        Exact: all 2^F ways are tried with at most 12 families. With more, 9,999 random ones or 20 / level, and the
        observed one counts with them (Phipson and Smyth, "Permutation p-values should never be zero", 2010); fewer when
        it is certain already that p exceeds the level. After Fisher, "The design of experiments" (1935), section 21;
        for families Romano, "On the behavior of randomization tests without a group invariance assumption", JASA 85
        (1990).
        """
        observed, exact = self.gain(), self.families <= _MOST_EXACT
        wanted = _swaps_for(level)
        reached = tried = 0
        for swaps in self._swaps(wanted):
            gains = gain_of_pixels(*self._swapped(swaps))
            reached += int(np.count_nonzero(gains >= observed - _TIE))
            tried += len(swaps)
            if not exact and reached > level * (wanted + 1):
                break
        return reached / tried if exact else (reached + 1) / (tried + 1)

    def share_p(self) -> float:
        """Return the one-sided p value of Student's t over what each family contributes to the gain.

        It is conservative however unequal the families are, at levels up to 4 %: Ibragimov and Müller, "t-statistic
        based correlation and heterogeneity robust inference", J. Business & Economic Statistics 28 (2010).
        """
        shares = self.shares()
        error = shares.std(ddof=1) / math.sqrt(len(shares))
        if error == 0:
            return 0.0 if shares.mean() > 0 else 1.0
        return float(stats.t.sf(shares.mean() / error, len(shares) - 1))

    def shares(self) -> np.ndarray:
        """Return what each family contributes to the gain to first order, (F,) float64.

        Around the mean of both models' pixels, which no swap changes, so that under the null hypothesis a contribution
        is as likely as its negative: with the intersection i and the union u, d(i / u) = (di − du · i / u) / u.
        """
        tp, true, predicted = np.moveaxis((self.challenger + self.champion).sum(0) / 2, -1, 0)
        present = true > 0
        union = np.where(present, true + predicted - tp, 1.0)
        change = (self.challenger - self.champion).astype(float)
        of_tp, of_union = change[..., 0], change[..., 2] - change[..., 0]
        of_class = np.where(present, (of_tp - of_union * tp / union) / union, 0.0)
        return np.asarray(of_class.sum(-1) / present.sum())

    def standard_error(self) -> float:
        """Return the gain's standard error by leaving out one family at a time; infinite with fewer than two."""
        if self.families < 2:
            return math.inf
        return float(_jackknife(self._left_out(gain_of_pixels), self.gain()))

    def gain_interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the gain: cluster jackknife with Student's t of F − 1 degrees of freedom.

        CV3 of MacKinnon, Nielsen and Webb, "Fast and reliable jackknife and bootstrap methods for cluster-robust
        inference", J. Applied Econometrics 38 (2023).
        """
        return self._around(self.gain(), self.standard_error())

    def class_intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the 95 % intervals of each class's change of IoU: (C,) low and (C,) high; NaN where not known."""
        low, high = np.full((2, self.challenger.shape[1]), np.nan)
        if self.families > 1:
            change = _changes(self.challenger.sum(0), self.champion.sum(0))
            errors = _jackknife(self._left_out(_changes), change)
            low, high = self._around(change, errors)
        return low, high

    def detectable_gain(self, level: float) -> float:
        """Return the smallest true gain that is found with a power of 80 % at this level, from the standard error.

        Bloom, "Minimum detectable effects", Evaluation Review 19 (1995): (t of the level + t of the power) · standard
        error. Infinite with too few families for the swap test, as their standard error may be small by luck, and when
        both models predict the same.
        """
        error = self.standard_error()
        if level <= 0 or self.families < max(2, families_for(level)) or error == 0:
            return math.inf
        freedom = self.families - 1
        return float((stats.t.isf(level, freedom) + stats.t.ppf(POWER, freedom)) * error)

    def _swaps(self, wanted: int) -> Iterator[np.ndarray]:
        """Yield which families swap models, (rows, F) bool: all ways, or as many random ones, some at a time."""
        if self.families <= _MOST_EXACT:
            yield np.array(list(itertools.product([False, True], repeat=self.families)))
            return
        random = np.random.default_rng(_SEED)
        for start in range(0, wanted, _AT_ONCE):
            yield random.random((min(_AT_ONCE, wanted - start), self.families)) < 0.5

    def _swapped(self, swaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add up both models' pixels over families, some of which swap models: (rows, C, 3) each."""
        moved = (self.champion - self.challenger).reshape(self.families, -1).astype(float)
        change = (swaps.astype(float) @ moved).reshape(-1, *self.challenger.shape[1:])
        return self.challenger.sum(0) + change, self.champion.sum(0) - change

    def _left_out(self, statistic: Statistic) -> np.ndarray:
        """Return a statistic without each of the families: (F, ...)."""
        return np.asarray(statistic(self.challenger.sum(0) - self.challenger, self.champion.sum(0) - self.champion))

    def _around(self, estimate: Number, error: Number) -> tuple[Number, Number]:
        reach = stats.t.isf((1 - CONFIDENCE) / 2, max(1, self.families - 1)) * error
        return estimate - reach, estimate + reach


def _swaps_for(level: float) -> int:
    return min(_MOST_SWAPS, max(_FEWEST_SWAPS, math.ceil(_SWAPS_PER_LEVEL / max(level, 1 / _MOST_SWAPS))))


def _changes(challenger: np.ndarray, champion: np.ndarray) -> np.ndarray:
    """Return the change of each class's IoU, (..., C); NaN for classes that the truth lacks."""
    return np.where(challenger[..., 1] > 0, iou_of_pixels(challenger) - iou_of_pixels(champion), np.nan)


def _jackknife(left_out: np.ndarray, estimate: np.ndarray | float) -> np.ndarray:
    """Return the standard error of an estimate, from what it is without each of the F families."""
    families = len(left_out)
    return np.asarray(np.sqrt((families - 1) / families * ((left_out - estimate) ** 2).sum(0)))
