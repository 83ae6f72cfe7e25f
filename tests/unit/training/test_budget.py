"""The budget of minutes: simulated machines, whose steps take what a test says."""

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.training.budget import Schedule, lr_scale

Pace = Callable[[float], float]  # seconds that a step takes which begins at a time in seconds
FORWARD = 0.4  # of a step
VALIDATIONS, PASSES, CLOSING = 10, 3.0, 4  # passes of a validation, and after the last step


class Machine:
    """A clock that steps, validations and the end move on."""

    def __init__(self, pace: Pace, *, first: float = 1.0, jitter: float = 0.0) -> None:
        self.now, self._pace, self._first, self._jitter = 0.0, pace, first, jitter
        self._random = np.random.default_rng(3)

    def step_s(self) -> float:
        noise = 1 + self._jitter * self._random.uniform(-1, 1)
        first, self._first = self._first, 1.0
        return self._pace(self.now) * first * noise

    def train(self, planned: int, budget: float, prepared: float = 10.0) -> tuple[Schedule, list[float]]:
        """Train as `train` does; gives the schedule, and the learning rate of each step as a share of its peak."""
        self.now = prepared
        schedule = Schedule(
            planned, budget, spent=prepared, validations=VALIDATIONS, validating=1, closing=CLOSING,
            clock=lambda: self.now,
        )  # fmt: skip
        rates = []
        while not schedule.is_over:
            left, passed = schedule.left(), schedule.passed(VALIDATIONS)
            rates.append(lr_scale(schedule.progress))
            seconds = self.step_s()
            self.now += seconds
            schedule.step_done(left, seconds, FORWARD * seconds)
            if schedule.is_over:
                self.now += CLOSING * FORWARD * self._pace(self.now)
            if schedule.passed(VALIDATIONS) > passed:
                seconds = PASSES * FORWARD * self._pace(self.now)
                self.now += seconds
                schedule.validated(seconds)
        return schedule, rates


def most_steps(pace: Pace, budget: float, first: float = 1.0) -> int:
    """Count the steps that fit for somebody who knows in advance what each will take."""
    now, done = 10.0, 0
    while True:
        now += pace(now) * (first if done == 0 else 1)
        if now + (CLOSING + VALIDATIONS * PASSES) * FORWARD * pace(now) > budget:
            return done
        done += 1


SLOW: dict[str, tuple[Pace, float]] = {
    "steady": (lambda now: 4.0, 1.0),
    "a first step that lays out memory": (lambda now: 4.0, 12.0),
    "load that comes half-way": (lambda now: 2.0 if now < 300 else 6.0, 1.0),
    "load that leaves half-way": (lambda now: 12.0 if now < 300 else 4.0, 1.0),
    "load that comes and goes": (lambda now: 3.0 if now % 100 < 50 else 9.0, 1.0),
}


@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("name", SLOW)
def test_what_fits_into_the_minutes_is_done_and_the_rate_comes_down(name: str, jitter: float) -> None:
    pace, first = SLOW[name]
    machine = Machine(pace, first=first, jitter=jitter)

    schedule, rates = machine.train(planned=1000, budget=600)

    assert machine.now <= 600
    assert schedule.done >= 0.85 * most_steps(pace, 600, first)
    assert schedule.ended_by == "minutes"
    assert max(rates) > 0.9
    assert rates[-1] < 0.01


@pytest.mark.parametrize("planned", [160, 161, 3, 1])
def test_a_fast_machine_does_what_is_planned_step_by_step_as_without_a_budget(planned: int) -> None:
    def pace(_: float) -> float:
        return 1.5

    bounded, rates = Machine(pace, first=20, jitter=0.5).train(planned, budget=600)
    _, unbounded = Machine(pace).train(planned, budget=0)

    assert (bounded.done, bounded.planned, bounded.ended_by) == (planned, planned, "schedule")
    assert rates == unbounded


def test_when_load_leaves_in_time_all_planned_steps_are_done() -> None:
    schedule, rates = Machine(lambda now: 30.0 if now < 300 else 1.0).train(planned=100, budget=600)

    assert (schedule.done, schedule.ended_by) == (100, "schedule")
    assert rates[-1] < 0.01


def test_a_single_slow_step_changes_nothing() -> None:
    def pace(now: float) -> float:
        return 80.0 if 40 <= now < 41 else 1.0

    disturbed, rates = Machine(pace).train(planned=160, budget=400)
    _, undisturbed = Machine(lambda _: 1.0).train(planned=160, budget=400)

    assert disturbed.done == 160
    assert rates == undisturbed


@pytest.mark.parametrize("budget", [1e-6, 20, 60])
def test_the_rate_comes_down_however_short_the_minutes_are(budget: float) -> None:
    schedule, rates = Machine(lambda now: 10.0, first=3).train(planned=160, budget=budget)

    assert schedule.done < 20
    assert max(rates) > 0.5
    assert rates[-1] < 0.06


def test_load_that_comes_at_the_end_costs_a_few_steps_more_than_the_minutes() -> None:
    machine = Machine(lambda now: 2.0 if now < 585 else 20.0)

    schedule, rates = machine.train(planned=1000, budget=600)

    assert machine.now < 600 + 5 * 20
    assert schedule.ended_by == "minutes"
    assert rates[-1] < 0.01


def test_without_better_validation_the_rate_comes_down_at_once() -> None:
    schedule, rates = Schedule(100), []
    while not schedule.is_over:
        if schedule.done == 50:
            schedule.come_down()
        rates.append(lr_scale(schedule.progress))
        schedule.step_done(schedule.left(), 1.0, 0.4)

    assert (schedule.planned, schedule.done, schedule.ended_by) == (100, 54, "patience")
    assert rates[-1] < 0.06


def test_validations_are_spread_over_the_steps_that_are_done() -> None:
    now, at = [0.0], []
    schedule = Schedule(1000, 100, validations=10, clock=lambda: now[0])
    while not schedule.is_over:
        passed, left = schedule.passed(10), schedule.left()
        now[0] += 1.0
        schedule.step_done(left, 1.0, 0.4)
        if schedule.passed(10) > passed:
            at.append(schedule.done / 100)

    assert len(at) == 10
    assert at == sorted(at)
    assert max(np.diff([0, *at])) < 0.25


def test_saving_counts_as_a_part_of_each_step() -> None:
    schedule = Schedule(1000, 600, clock=lambda: 0.0)
    for _ in range(9):
        schedule.step_done(1000, 1.0, 0.4)
    schedule.saved(16.0)

    assert schedule.step_s == pytest.approx(3.0)


def test_a_resumed_schedule_goes_on_where_it_was_and_counts_the_time_before() -> None:
    now = [100.0]
    first = Schedule(160, 600, clock=lambda: now[0])
    for _ in range(40):
        first.step_done(first.left(), 1.0, 0.4)
    now[0] += 200
    state = first.state()

    now[0] = 5000.0
    second = Schedule(160, 600, spent=20, clock=lambda: now[0])
    second.resume(state)

    assert (second.done, second.progress, second.left()) == (40, first.progress, 120)
    assert second.spent == 220


def test_the_rate_rises_and_comes_down_to_nothing() -> None:
    rates = [lr_scale(step / 100) for step in range(101)]
    assert rates.index(max(rates)) == 15
    assert max(rates) == 1
    assert rates[-1] == pytest.approx(0)
