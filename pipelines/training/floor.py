"""The floor of every promotion: do a model's masks save people time at all?

What people would do with the regions of each test photo follows from the truth (`acceptance.savings_by_photo`); the
chances that decide which regions are shown come from models that did not see the photo's family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.training.bootstrap import interval, resampled
from pipelines.training.metrics import CONFIDENCE, ENOUGH_FAMILIES

SURE = 0.9  # one-sided confidence that masks save time


@dataclass(frozen=True)
class Floor:
    """Seconds that a model's masks save on a photo, on average over test photos; below 0 they cost time.

    `low` and `high` hold 95 % of resamples of the photos' families, and 90 % of them lie above `sure`. Fewer than three
    families give none of the three.
    """

    seconds: float
    low: float | None = None
    high: float | None = None
    sure: float | None = None

    @property
    def passes(self) -> bool:
        """Return whether masks save time: with 90 % confidence, or by the estimate alone when families are few."""
        return (self.seconds if self.sure is None else self.sure) > 0

    def as_metrics(self) -> dict[str, float]:
        """Return what metrics.json holds of it: `seconds_saved` and, where known, its bounds."""
        bounds = {"low": self.low, "high": self.high, "sure": self.sure}
        return {"seconds_saved": round(self.seconds, 2)} | {
            f"seconds_saved_{name}": round(value, 2) for name, value in bounds.items() if value is not None
        }

    @classmethod
    def from_metrics(cls, values: Mapping[str, float]) -> "Floor | None":
        """Read what `as_metrics` returned; None when it is missing, as in evaluations of older versions."""
        if "seconds_saved" not in values:
            return None
        return cls(values["seconds_saved"], *(values.get(f"seconds_saved_{name}") for name in ("low", "high", "sure")))

    def __str__(self) -> str:
        """Return it as a clause that begins with "its masks"."""
        verb = "save" if self.seconds > 0 else "cost"
        sure = "" if self.sure is None else f" ({SURE:.0%} sure of {self.sure:+.1f} s)"
        return f"its masks {verb} {abs(self.seconds):.1f} s per photo{sure}"


def floor_of(seconds: np.ndarray, families: Sequence[str], rounds: int) -> Floor:
    """Average seconds saved by photo, (N,) float64 of at least one photo, with intervals over `rounds` resamples."""
    estimate = float(seconds.mean())
    if len(set(families)) < ENOUGH_FAMILIES:
        return Floor(estimate)
    sums = resampled(np.stack([seconds, np.ones(len(seconds))], axis=1), families, rounds)
    means = sums[:, 0] / sums[:, 1]
    return Floor(estimate, *interval(means, CONFIDENCE), float(np.quantile(means, 1 - SURE)))
