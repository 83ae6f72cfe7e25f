"""How far labelling is, how fast it goes, how even the team's work is, and what of the catalogue is thin.

Tasks of Label Studio say what is done and left. The manifest of the newest dataset version says when: a photo counts on
the day (UTC) of its newest annotation. Work at a weekend counts for the Friday before; the present day is not complete,
so that it counts in the table of weeks only.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from scipy import stats

from pipelines.records import Task
from pipelines.reports.effort.photos import NO_TIME
from pipelines.reports.effort.regression import Interval

FEWEST_DAYS = 10  # working days since the first labelled photo, below which nothing is predicted
WINDOW_DAYS = 40  # newest working days that a pace is computed from
RECENT_DAYS = 20  # … and that of one person
FEWEST_PEOPLE = 4  # below it, quartiles would show single people
FEWEST_TIMED = 5  # photos of a person, for a median of seconds
HORIZON_DAYS = 1305  # working days of five years; a later end is not told
RESAMPLES = 2000
NO_VALUE = "not in the catalogue"
_WEEKS = 8
_RUN = 5  # working days that are drawn together
_DAY_S = 86_400
_BOUNDS = (0.025, 0.975)  # of a 95 % interval


@dataclass(frozen=True)
class Counts:
    """Tasks by their state, each in one of the three."""

    done: int
    skipped: int
    left: int


@dataclass(frozen=True)
class Week:
    """Photos labelled in the week that begins on a Monday."""

    monday: date
    photos: int


@dataclass(frozen=True)
class Forecast:
    """Pace and end of labelling, from the photos of so many working `days`.

    `end` is the median, `earliest` and `latest` are the bounds of its 95 % interval; None is later than the horizon.
    All are None when there is a `reason`, `per_week` (photos per working week) only when the pace is not known either.
    """

    days: int
    per_week: Interval | None = None
    end: date | None = None
    earliest: date | None = None
    latest: date | None = None
    reason: str = ""


@dataclass(frozen=True)
class Value:
    """One value of a catalogue column: labelled photos, and all of them."""

    name: str
    done: int
    photos: int

    @property
    def share(self) -> float:
        """Return the labelled share, 0..1."""
        return self.done / self.photos


@dataclass(frozen=True)
class OwnNumbers:
    """Work of one person, shown to nobody else.

    `per_day` is the mean over the newest working days since the person's first photo, None before one is complete;
    `seconds` is the median of `timed` photos, None with too few.
    """

    person: str
    photos: int
    weeks: tuple[Week, ...]
    per_day: float | None
    seconds: float | None
    timed: int


@dataclass(frozen=True)
class Quartiles:
    """Quartiles over so many people."""

    people: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Team:
    """Distribution over people of photos per working day and of median seconds per photo; None: too few people."""

    people: int
    per_day: Quartiles | None
    seconds: Quartiles | None


def count_states(tasks: Sequence[Task]) -> Counts:
    """Count done, skipped and open photos; a photo that somebody labelled and somebody else skipped is done."""
    done = sum(is_done(task) for task in tasks)
    left = sum(task.annotation_count == 0 for task in tasks)
    return Counts(done, len(tasks) - done - left, left)


def is_done(task: Task) -> bool:
    """Return whether somebody labelled a photo; a skip is no label."""
    return task.annotation_count > task.skipped_count


def worked_on(photos: pd.DataFrame) -> pd.DataFrame:
    """Return those of `effort.photos.labelled_photos` that a person spent time on; imported masks alone are no work."""
    return photos[(photos["left_out"] != NO_TIME) & np.isfinite(photos["at"])]


def weekly_photos(at: "pd.Series[float]", today: date) -> tuple[Week, ...]:
    """Return the photos of the last weeks, the present one at the end; `at` is in seconds since 1970."""
    weeks = _week_number((at.to_numpy(float) // _DAY_S).astype(int))
    current = int(_week_number(np.array([(today - date(1970, 1, 1)).days]))[0])
    counts = Counter(weeks.tolist())
    numbers = range(current - _WEEKS + 1, current + 1)
    return tuple(Week(date.fromordinal(date(1969, 12, 29).toordinal() + 7 * n), counts[n]) for n in numbers)


def daily_photos(at: "pd.Series[float]", today: date) -> np.ndarray:
    """Return the photos of each working day before `today`, (N,) int, beginning with the first that has any.

    N is at most WINDOW_DAYS, and 0 before a working day is complete. `at` is in seconds since 1970.
    """
    calendar = (at.to_numpy(float) // _DAY_S).astype(int).astype("datetime64[D]")
    days, until = np.busday_offset(calendar, 0, roll="backward"), _next_working_day(today)
    days = days[days < until]
    if not len(days):
        return np.zeros(0, int)
    first = max(days.min(), np.busday_offset(until, -WINDOW_DAYS))
    places = np.busday_count(first, days[days >= first])
    return np.bincount(places, minlength=int(np.busday_count(first, until)))


def forecast(daily: np.ndarray, left: int, today: date) -> Forecast:
    """Predict when `left` photos are done by a bootstrap over working days, (N,) int as of `daily_photos`.

    Days are drawn in runs of five, because those of a week resemble each other (circular block bootstrap: Politis and
    Romano, 1992). Each of the resamples is a possible pace; runs drawn from it are a possible future. A resample has
    fewer days than there are, so that paces vary by Student's t for so few runs. The interval therefore covers what is
    not known of the pace, and chance, but not that work goes on in another way.
    """
    days = len(daily)
    if days < FEWEST_DAYS:
        return Forecast(days, reason=f"not enough yet: {days} of the {FEWEST_DAYS} working days that are needed")
    random = np.random.default_rng(0)
    runs = days / _RUN
    wider = runs / (runs - 1) * (stats.t.ppf(_BOUNDS[1], runs - 1) / stats.norm.ppf(_BOUNDS[1])) ** 2
    size = max(_RUN, round(days / wider))
    paces = daily[_runs(random, days, size)]
    low, high = np.quantile(paces.mean(1), _BOUNDS)
    per_week = Interval(*(5 * float(pace) for pace in (daily.mean(), low, high)))
    if not left:
        return Forecast(days, per_week, reason="no photo is left")
    if not daily.any():
        return Forecast(days, per_week, reason=f"nobody labelled a photo in the last {days} working days")
    done = np.take_along_axis(paces, _runs(random, size, HORIZON_DAYS), 1).cumsum(1)
    needed = np.quantile((done < left).sum(1), [0.5, *_BOUNDS], method="inverted_cdf")
    end, earliest, latest = (_day_after(today, int(count)) for count in needed)
    return Forecast(days, per_week, end, earliest, latest)


def coverage(tasks: Sequence[Task], columns: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Return, per catalogue column, the labelled share of each value, the smallest first; of equal ones the largest."""
    return {column: _values(tasks, column) for column in columns}


def own_numbers(photos: pd.DataFrame, today: date) -> dict[str, OwnNumbers]:
    """Return each person's numbers; `photos` are those of `worked_on`."""
    numbers = {}
    for person, own in photos[photos["person"] != ""].groupby("person"):
        daily, timed = daily_photos(own["at"], today)[-RECENT_DAYS:], own.loc[own["left_out"] == "", "seconds"]
        numbers[str(person)] = OwnNumbers(
            str(person), len(own), weekly_photos(own["at"], today),
            float(daily.mean()) if len(daily) else None,
            float(timed.median()) if len(timed) >= FEWEST_TIMED else None, len(timed),
        )  # fmt: skip
    return numbers


def team_of(numbers: Mapping[str, OwnNumbers]) -> Team:
    """Return the team's distribution; who did nothing recently is left out of the pace."""
    paces = [own.per_day for own in numbers.values() if own.per_day]
    seconds = [own.seconds for own in numbers.values() if own.seconds is not None]
    return Team(len(numbers), _quartiles(paces), _quartiles(seconds))


def _runs(random: np.random.Generator, days: int, length: int) -> np.ndarray:
    """Return indices of `days` in runs of five that begin at random and continue at the start, (RESAMPLES, length)."""
    starts = random.integers(0, days, (RESAMPLES, -(-length // _RUN), 1))
    return np.asarray((starts + np.arange(_RUN)) % days).reshape(RESAMPLES, -1)[:, :length]


def _quartiles(values: Sequence[float]) -> Quartiles | None:
    if len(values) < FEWEST_PEOPLE:
        return None
    low, median, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return Quartiles(len(values), low, median, high)


def _values(tasks: Sequence[Task], column: str) -> tuple[Value, ...]:
    names = [task.metadata.get(column, "").strip() or NO_VALUE for task in tasks]
    photos = Counter(names)
    done = Counter(name for name, task in zip(names, tasks, strict=True) if is_done(task))
    values = [Value(name, done[name], count) for name, count in photos.items()]
    return tuple(sorted(values, key=lambda value: (value.share, -value.photos, value.name)))


def _week_number(days: np.ndarray) -> np.ndarray:
    """Return the weeks since Monday, 29 December 1969, of days since 1970, which began on a Thursday."""
    return np.asarray((days + 3) // 7)


def _next_working_day(today: date) -> np.datetime64:
    """Return `today`, or the Monday after a weekend."""
    return np.datetime64(np.busday_offset(np.datetime64(today, "D"), 0, roll="forward"))


def _day_after(today: date, working_days: int) -> date | None:
    """Return the day so many working days after the next one; None beyond the horizon."""
    if working_days >= HORIZON_DAYS:
        return None
    return date.fromisoformat(str(np.busday_offset(_next_working_day(today), working_days)))
