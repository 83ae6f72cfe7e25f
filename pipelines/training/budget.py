"""How many optimizer steps a training does, and where on its learning-rate schedule each of them stands.

A training is its planned steps. `max_minutes` is a safety net: when the steps that are left do not fit into what is
left of the minutes, the schedule is planned anew, step by step, so that the learning rate still comes down to 0 in
time; when they fit again, because the machine has become free, all of them are planned again.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

_WARM_UP = 0.15  # share of the training in which the learning rate rises
_FIRST_STEPS = 1  # are slow: memory is laid out, kernels are chosen
_KNOWN_FROM = 4  # measured steps from which on their time is known
_LAST, _RECENT = 5, 25  # steps whose median time counts: the slower one, so that load that has just come is noticed
_SLOW_SHARE = 0.9  # of the recent steps were faster than what is reserved for: nothing can be saved after the last one
_COMING_DOWN = 8  # steps, at least, from the start of a schedule to its end


def lr_scale(progress: float) -> float:
    """Return the share of the peak learning rate at a progress of 0..1: a linear rise, then half a cosine to 0."""
    if progress < _WARM_UP:
        return max(0.01, progress / _WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))


class Schedule:
    """Steps done, and the `progress` (0..1) of the learning rate, which each step moves on by its share of the rest.

    `seconds` is the budget, 0 for none, of which `spent` are gone already. `validations` are spread over the progress,
    each of which takes about `validating` forward passes of a training batch, as far as none was measured; `closing`
    forward passes follow the last step. Without a budget nothing here depends on the clock.
    """

    def __init__(
        self,
        planned: int,
        seconds: float = 0,
        *,
        spent: float = 0,
        validations: int = 0,
        validating: float = 0,
        closing: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.planned, self.seconds, self.validations = planned, seconds, validations
        self.done, self.progress, self.ended_by = 0, 0.0, "schedule"
        self._end = planned  # earlier when validation gets no better
        self._validating, self._closing = validating, closing
        self._clock, self._begun = clock, clock() - spent
        self._slow_steps = _FIRST_STEPS
        self._steps: deque[float] = deque(maxlen=_RECENT)
        self._forwards: deque[float] = deque(maxlen=_RECENT)
        self._validations: list[float] = []  # what each took, in forward passes
        self._saving_s, self._measured = 0.0, 0

    @property
    def is_over(self) -> bool:
        """Return whether the learning rate has come down to 0."""
        return self.progress >= 1

    @property
    def spent(self) -> float:
        """Return the seconds since the training began, those before it was interrupted included."""
        return self._clock() - self._begun

    @property
    def step_s(self) -> float | None:
        """Return the seconds that a step takes at present, with its share of saving; None while that is not known."""
        if len(self._steps) < _KNOWN_FROM:
            return None
        return _pace(self._steps) + self._saving_s / self._measured

    def left(self) -> int:
        """Return how many steps are still to be done: all of them unless the minutes are too few.

        It is never so small that the learning rate would have to fall faster than in a schedule of eight steps.
        """
        missing = self._end - self.done
        if not self.seconds:
            return missing
        usable = self.seconds - self.spent
        fit = missing if usable > 0 else 0
        if self.step_s is not None:
            # One step is kept in reserve, and the last few are planned for slow ones: load may come again.
            slow = _slow(self._steps)
            usable -= self._reserved() + slow
            fit = math.floor(usable / (self.step_s if usable > _LAST * slow else max(self.step_s, slow)))
        return min(missing, max(fit, self._coming_down()))

    def step_done(self, left: int, seconds: float, forward: float) -> None:
        """Move on by one of `left` steps; it took `seconds`, its forward pass `forward` of them."""
        self.progress = 1.0 if left <= 1 else self.progress + (1 - self.progress) / left
        self.done += 1
        if self.is_over and self.done < self._end:
            self.ended_by = "minutes"
        if self._slow_steps:
            self._slow_steps -= 1
        else:
            self._steps.append(seconds)
            self._forwards.append(forward)
            self._measured += 1

    def passed(self, points: int) -> int:
        """Count how many of so many points, evenly spread over the progress, are passed."""
        return math.floor(self.progress * points + 1e-9)

    def validated(self, seconds: float) -> None:
        """Note what a validation took."""
        if self._forwards:
            self._validations.append(seconds / _pace(self._forwards))
            self._validating = median(self._validations)

    def saved(self, seconds: float) -> None:
        """Note what writing a checkpoint took."""
        self._saving_s += seconds

    def come_down(self) -> None:
        """End as soon as the learning rate can come down, because validation gets no better."""
        if not self.is_over and self.ended_by != "patience":
            self._end, self.ended_by = self.done + min(self.left(), self._coming_down()), "patience"

    def state(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        kept = {name: getattr(self, name) for name in ("done", "progress", "ended_by")}
        return kept | {"end": self._end, "spent": self.spent}

    def resume(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave; what is spent here already counts as well."""
        self.done, self.progress, self.ended_by = state["done"], state["progress"], state["ended_by"]
        self._end = state["end"]
        self._begun -= state["spent"]

    def _coming_down(self) -> int:
        return math.ceil(_COMING_DOWN * (1 - self.progress) - 1e-9)

    def _reserved(self) -> float:
        """Return the seconds that validations, and what follows the last step, take where most steps were faster."""
        validations = self.validations - self.passed(self.validations)
        return (validations * self._validating + self._closing) * _slow(self._forwards)


def _pace(seconds: deque[float]) -> float:
    """Return the median of the last few measurements or that of all, whichever is slower: load may just have come."""
    recent = list(seconds)
    return max(median(recent[-_LAST:]), median(recent))


def _slow(seconds: deque[float]) -> float:
    """Return a measurement than which most are faster."""
    return sorted(seconds)[math.floor(_SLOW_SHARE * (len(seconds) - 1))]
