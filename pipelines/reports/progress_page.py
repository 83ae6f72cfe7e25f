"""The page that the person in charge opens on Monday, the same numbers as JSON, and a file per person.

The page and the JSON beside it are for everybody and name nobody. A person's own numbers are in a file that is named by
a hash of the address; Label Studio's server shows them to that person alone (`labelstudio_site/maskloop_report.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import orjson
import pandas as pd

from pipelines.dataset.published import Published
from pipelines.errors import DataError, MaskloopError
from pipelines.fs import write_atomically
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.labelstudio_site.maskloop_report import OWN_NUMBERS, PAGE, PEOPLE, person_path, with_own_numbers
from pipelines.local_stack.status import who_draws
from pipelines.params import Params, load_params
from pipelines.prelabel.blind import pause_reason
from pipelines.prelabel.pipeline import serving_model
from pipelines.prelabel.strategies import describe
from pipelines.records import Task
from pipelines.reports.effort.photos import labelled_photos
from pipelines.reports.effort.regression import Interval
from pipelines.reports.html import render
from pipelines.reports.progress import (
    FEWEST_DAYS,
    FEWEST_PEOPLE,
    FEWEST_TIMED,
    HORIZON_DAYS,
    RECENT_DAYS,
    WINDOW_DAYS,
    Counts,
    Forecast,
    OwnNumbers,
    Team,
    Value,
    Week,
    count_states,
    coverage,
    daily_photos,
    forecast,
    own_numbers,
    team_of,
    weekly_photos,
    worked_on,
)
from pipelines.reports.progress_saving import NEXT, SavedTime, bootstrap_share, saved_time
from pipelines.settings import Settings

REPORTS = "reports"  # folder in the folder for state
_TEMPLATE = Path(__file__).with_name("progress.html.j2")
_YEARS = HORIZON_DAYS // 261
_LISTED = 25  # values of a catalogue column on the page; JSON has all


@dataclass(frozen=True)
class Queue:
    """Which photos come next, and what became of the proposed regions on photos chosen in either way.

    Shares, 0..1, are of proposed regions that people left as they were; None with too few photos.
    """

    strategy: str
    uncertain_photos: int
    uncertain_kept: Interval | None
    random_photos: int
    random_kept: Interval | None


@dataclass(frozen=True)
class Progress:
    """All numbers of the page that everybody may see; `dataset` is empty before a version is published."""

    written_at: datetime
    dataset: str
    counts: Counts
    weeks: tuple[Week, ...]
    forecast: Forecast
    saved: SavedTime
    team: Team
    coverage: Mapping[str, tuple[Value, ...]]
    who_draws: Mapping[str, str]
    queue: Queue


def measure_progress(
    tasks: list[Task], manifest: pd.DataFrame, params: Params, now: datetime, *, dataset: str = "",
    drawing: Mapping[str, str] | None = None, serving: tuple[str, str] = ("", ""),
) -> tuple[Progress, dict[str, OwnNumbers]]:  # fmt: skip
    """Return the numbers for everybody, and those of each person by address.

    `manifest` is that of the newest version, without rows and columns before there is one. `serving` is the version
    that draws masks, and why it is paused; `drawing` says who draws masks and answers clicks.
    """
    shares = params.prelabel.control_share, params.prelabel.random_share
    photos, today = labelled_photos(manifest, params.effort.longest_s, *shares), now.date()
    worked, counts = worked_on(photos), count_states(tasks)
    people = own_numbers(worked, today)
    progress = Progress(
        now, dataset, counts, weekly_photos(worked["at"], today),
        forecast(daily_photos(worked["at"], today), counts.left, today),
        saved_time(manifest, photos, params, *serving), team_of(people), coverage(tasks, params.evaluate.slices),
        drawing or {}, queue_of(photos, params),
    )  # fmt: skip
    return progress, people


def queue_of(photos: pd.DataFrame, params: Params) -> Queue:
    """Return the queue's strategy, and how people used masks on photos that it chose by uncertainty and at random."""
    with_masks = photos[photos["version"] != ""]
    by_chance = with_masks["is_random"] | (params.prelabel.by_chance == 1)
    uncertain, random = with_masks[~by_chance], with_masks[by_chance]
    return Queue(describe(params.prelabel), len(uncertain), _kept(uncertain), len(random), _kept(random))


def _kept(photos: pd.DataFrame) -> Interval | None:
    proposed = photos[["untouched", "changed", "deleted"]].sum(axis=1).to_numpy()
    return bootstrap_share(photos["untouched"].to_numpy(), proposed, photos["family"].to_numpy(str))


def read_progress(settings: Settings, now: datetime | None = None) -> tuple[Progress, dict[str, OwnNumbers]]:
    """Return the numbers as Label Studio, the newest dataset version and the model services say them now.

    Before a version is published, its part is empty; what a service does not say is words instead.
    """
    labels, params, published = connect(settings), load_params(settings.params_path), Published.of(settings)
    tags = published.tags()
    dataset = tags[-1] if tags else ""
    try:
        version, known = serving_model(settings)
        serving = (version, pause_reason(settings, version)) if known else ("", "")
    except MaskloopError:
        serving = ("", "")  # `who_draws` says why
    return measure_progress(
        list(list_tasks(labels, find_project(labels, params))),
        published.manifest(dataset) if dataset else pd.DataFrame(),
        params, now or datetime.now(UTC), dataset=dataset, drawing=who_draws(settings), serving=serving,
    )  # fmt: skip


def update_page(settings: Settings) -> Path:
    """Write the page and what belongs to it into the folder for state; return the page's path."""
    folder = settings.var / REPORTS
    write_progress(folder, *read_progress(settings))
    return folder / PAGE


def numbers_of(people: Mapping[str, OwnNumbers], address: str, dataset: str) -> OwnNumbers:
    """Return the numbers of the person with an address; raise DataError when there are none."""
    for person, numbers in people.items():
        if person.lower() == address.strip().lower():
            return numbers
    raise DataError(
        f"no photo of {dataset or 'a dataset version'} was labelled by {address}; check the address in Label Studio "
        "(Organization), and run `maskloop sync` if the work is new"
    )


def as_html(progress: Progress, own: OwnNumbers | None = None) -> str:
    """Return the page; with the numbers of a person if given, else with the place where Label Studio puts them."""
    page = render(
        _TEMPLATE, progress=progress, own_numbers=OWN_NUMBERS, interval=_interval, day=_day, percent=_percent,
        next_count=NEXT, listed=_LISTED, fewest_days=FEWEST_DAYS, fewest_people=FEWEST_PEOPLE,
        fewest_timed=FEWEST_TIMED, window_days=WINDOW_DAYS, recent_days=RECENT_DAYS,
    )  # fmt: skip
    return with_own_numbers(page, json.loads(as_json(own))) if own else page


def as_json(numbers: Progress | OwnNumbers, own: OwnNumbers | None = None) -> bytes:
    """Return the numbers as JSON, dates in ISO 8601, with a line break at the end; `own` numbers as a key if given."""
    fields = numbers if own is None else {**vars(numbers), "own": own}
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write_progress(folder: Path, progress: Progress, people: Mapping[str, OwnNumbers]) -> None:
    """Write report.html and report.json into a folder, and a file per person, which no other account can read.

    Files of people who are no longer in the dataset are removed.
    """
    write_atomically((folder / PAGE).with_suffix(".json"), as_json(progress))
    write_atomically(folder / PAGE, as_html(progress).encode())
    current = set()
    for address, numbers in people.items():
        path = person_path(folder, address)
        write_atomically(path, as_json(numbers), mode=0o600)
        current.add(path.name)
    for path in (folder / PEOPLE).glob("*.json"):
        if path.name not in current:
            path.unlink(missing_ok=True)


def _interval(interval: Interval | None, reason: str = "", places: int = 0, factor: float = 1) -> str:
    """Return an estimate with its interval, or why there is none."""
    if interval is None:
        return reason or "not enough yet"
    value, low, high = (
        f"{factor * bound:,.{places}f}".replace("-", "−") for bound in (interval.value, interval.low, interval.high)
    )
    return f"{value} ({low} … {high})"


def _day(day: date | None) -> str:
    return f"{day.day} {day:%B %Y}" if day else f"later than in {_YEARS} years"


def _percent(share: float) -> str:
    return f"{share:.0%}"
