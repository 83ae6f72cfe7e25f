"""The page of progress: each of its numbers on small tables, and the page itself."""

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.errors import DataError
from pipelines.labelstudio_site.maskloop_report import OWN_NUMBERS, person_path
from pipelines.params import Params
from pipelines.records import ImageRef, Task
from pipelines.reports.effort.photos import labelled_photos
from pipelines.reports.progress import (
    FEWEST_DAYS,
    HORIZON_DAYS,
    NO_VALUE,
    Counts,
    OwnNumbers,
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
from pipelines.reports.progress_page import as_html, as_json, measure_progress, numbers_of, queue_of, write_progress
from pipelines.reports.progress_saving import TOO_FEW, bootstrap_share, bootstrap_sum, saved_time

WEDNESDAY = date(2026, 3, 11)
NOW = datetime(2026, 3, 11, 9, 30, tzinfo=UTC)


def task(number: int, annotations: int = 0, skips: int = 0, **metadata: str) -> Task:
    image = ImageRef(f"gs://archive/{number}.jpg", 1, f"{number:064x}", 4, 6)
    return Task(number, image, metadata, annotation_count=annotations, skipped_count=skips)


def moments(*days: str) -> "pd.Series[float]":
    """Return noon of these days in seconds since 1970."""
    return pd.Series([datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp() for day in days], dtype=float)


def manifest_of(
    days: list[str], people: list[str], seconds: list[float] | None = None, versions: list[str] | None = None,
    pixels: list[dict[str, list[int]]] | None = None, **columns: Any,
) -> pd.DataFrame:  # fmt: skip
    """Return a manifest with a row per day; each photo is a family of its own."""
    count = len(days)
    return pd.DataFrame({
        "sha256": [f"{place:064x}" for place in range(count)], "family": [f"family {place}" for place in range(count)],
        "split": ["train"] * count, "updated_at": [f"{day}T12:00:00+00:00" for day in days],
        "annotators": [[person] for person in people], "annotations": [[str(place)] for place in range(count)],
        "lead_time_s": seconds or [60.0] * count, "prediction_version": versions or [""] * count,
        "prelabel_pixels": [json.dumps(proposal) if proposal else "" for proposal in pixels or [{}] * count],
    } | columns)  # fmt: skip


def photos_of(manifest: pd.DataFrame, params: Params) -> pd.DataFrame:
    return labelled_photos(manifest, params.effort.longest_s, 0.1, 0.2)


class TestCounts:
    def test_each_task_is_done_skipped_or_left(self) -> None:
        tasks = [task(1, 1), task(2, 2, 1), task(3, 1, 1), task(4), task(5)]
        assert count_states(tasks) == Counts(done=2, skipped=1, left=2)

    def test_nothing_is_nothing(self) -> None:
        assert count_states([]) == Counts(0, 0, 0)


class TestPace:
    def test_weeks_begin_on_monday_and_include_the_present_one(self) -> None:
        weeks = weekly_photos(moments("2026-03-08", "2026-03-09", "2026-03-11", "2025-01-01"), WEDNESDAY)
        assert len(weeks) == 8
        assert weeks[-2:] == (Week(date(2026, 3, 2), 1), Week(date(2026, 3, 9), 2))
        assert sum(week.photos for week in weeks) == 3

    def test_days_begin_with_the_first_photo_and_end_yesterday(self) -> None:
        at = moments("2026-03-05", "2026-03-05", "2026-03-10", "2026-03-11")
        assert daily_photos(at, WEDNESDAY).tolist() == [2, 0, 0, 1]  # Thursday, Friday, Monday, Tuesday

    def test_a_weekend_counts_for_the_friday_before(self) -> None:
        at = moments("2026-03-05", "2026-03-07", "2026-03-08")
        assert daily_photos(at, WEDNESDAY).tolist() == [1, 2, 0, 0]
        assert daily_photos(at, date(2026, 3, 8)).tolist() == [1, 2]

    def test_only_the_newest_forty_days_count(self) -> None:
        days = daily_photos(moments("2025-06-02", "2026-03-10"), WEDNESDAY)
        assert (len(days), days.sum(), days[-1]) == (40, 1, 1)

    def test_imported_masks_alone_are_no_work(self, two_labels: Params) -> None:
        manifest = manifest_of(["2026-03-10"] * 3, ["ada"] * 3, [30.0, 0.0, 40.0], imported=[False, True, True])
        assert worked_on(photos_of(manifest, two_labels)).index.tolist() == [0, 2]


class TestForecast:
    def test_an_even_pace_gives_an_exact_day(self) -> None:
        end = forecast(np.full(10, 4), 20, WEDNESDAY)  # five days: Wednesday to Tuesday
        assert (end.end, end.earliest, end.latest) == (date(2026, 3, 17),) * 3
        assert end.per_week and (end.per_week.value, end.per_week.low, end.per_week.high) == (20, 20, 20)

    def test_an_uneven_pace_gives_an_interval_around_the_mean(self) -> None:
        end = forecast(np.array(([0] * 5 + [8] * 5) * 4), 400, WEDNESDAY)  # a hundred working days, give or take
        assert end.earliest and end.end and end.latest
        assert end.earliest < date(2026, 7, 1) < end.end < date(2026, 9, 1) < end.latest
        assert end.per_week and end.per_week.low < 20 == end.per_week.value < end.per_week.high

    def test_it_takes_ten_working_days(self) -> None:
        assert forecast(np.full(9, 4), 20, WEDNESDAY).reason.startswith("not enough yet: 9 of the 10 working days")
        assert forecast(np.full(FEWEST_DAYS, 4), 20, WEDNESDAY).reason == ""

    def test_what_ends_after_years_is_not_told(self) -> None:
        end = forecast(np.full(10, 1), HORIZON_DAYS + 1, WEDNESDAY)
        assert (end.end, end.earliest, end.latest, end.reason) == (None, None, None, "")

    def test_no_work_and_nothing_left_are_words(self) -> None:
        idle = forecast(np.zeros(12, int), 20, WEDNESDAY)
        assert idle.reason == "nobody labelled a photo in the last 12 working days"
        assert forecast(np.full(12, 1), 0, WEDNESDAY).reason == "no photo is left"

    def test_the_interval_covers_the_day_that_comes(self) -> None:
        random, covered = np.random.default_rng(1), 0
        for _ in range(60):
            daily, future = random.poisson(6, 40), random.poisson(6, 200).cumsum()
            end = forecast(daily, 300, WEDNESDAY)
            came = np.busday_offset(WEDNESDAY, int((future < 300).sum())).item()
            assert end.earliest and end.latest
            covered += end.earliest <= came <= end.latest
        assert covered >= 51  # of 57 expected; fewer have a chance of 1 %


class TestCoverage:
    def test_the_smallest_shares_come_first(self) -> None:
        tasks = [
            task(1, 1, season="winter"), task(2, season="winter"), task(3, season="summer"), task(4, 1),
            *(task(number, season="spring") for number in (5, 6)),
        ]  # fmt: skip
        assert coverage(tasks, ["season"]) == {
            "season": (Value("spring", 0, 2), Value("summer", 0, 1), Value("winter", 1, 2), Value(NO_VALUE, 1, 1))
        }


class TestSavedTime:
    @pytest.fixture
    def manifest(self) -> pd.DataFrame:
        """Four photos with masks and one without: coats accepted, corrected and deleted, two dresses accepted."""
        accepted, corrected, deleted = [100, 100, 95], [100, 100, 80], [100, 100, 20]
        pixels = [{"": [9, 9, 9], "coat": accepted, "dress": accepted}, {"coat": corrected, "dress": accepted},
                  {"coat": deleted, "dress": [0, 50, 0]}, {"": [5, 5, 5]}, {}]  # fmt: skip
        return manifest_of(
            ["2026-03-09"] * 4 + ["2026-03-10"], ["ada"] * 5, versions=["clothing:v1"] * 4 + [""], pixels=pixels
        )

    @pytest.fixture
    def constants(self, two_labels: Params, monkeypatch: pytest.MonkeyPatch) -> Params:
        """Seconds of params.yaml as they are, whatever few times say: accept 1, correct 9, delete 1.5, draw 22."""
        from pipelines.reports import progress_saving
        from pipelines.segmentation.proposals import Seconds

        monkeypatch.setattr(progress_saving, "estimate_seconds", lambda _, effort: Seconds.from_params(effort))
        return two_labels

    def test_each_label_by_what_became_of_its_masks(self, manifest: pd.DataFrame, constants: Params) -> None:
        coat, dress = saved_time(manifest, photos_of(manifest, constants), constants).labels
        assert (coat.label, coat.accepted, coat.corrected, coat.deleted) == ("coat", 1, 1, 1)
        assert coat.minutes and coat.minutes.value == pytest.approx((21 + 13 - 1.5) / 60)
        assert coat.minutes.low < coat.minutes.value < coat.minutes.high
        assert (dress.label, dress.accepted, dress.minutes, dress.reason) == ("dress", 2, None, TOO_FEW)

    def test_a_version_without_controls_has_the_minutes_of_the_model(
        self, manifest: pd.DataFrame, constants: Params
    ) -> None:
        saved = saved_time(manifest, photos_of(manifest, constants), constants)
        [row] = saved.versions
        assert (row.version, row.photos, row.is_measured) == ("clothing:v1", 4, False)
        assert row.minutes and row.minutes.value == pytest.approx((42 + 34 - 1.5 + 0) / 60)
        assert "too few blind photos" in row.reason
        assert replace(saved.in_all, version="clothing:v1", reason=row.reason) == row

    def test_the_next_hundred_are_as_the_photos_of_the_version(self, manifest: pd.DataFrame, constants: Params) -> None:
        following = saved_time(manifest, photos_of(manifest, constants), constants, "clothing:v2").next_photos
        assert (following.version, following.share) == ("clothing:v1", 1.0)  # nobody has used v2 yet
        assert following.minutes and following.minutes.value == pytest.approx(100 * (42 + 34 - 1.5) / 4 / 60)

    def test_a_paused_model_saves_nothing(self, manifest: pd.DataFrame, constants: Params) -> None:
        following = saved_time(
            manifest, photos_of(manifest, constants), constants, "clothing:v1", "it costs time"
        ).next_photos
        assert following.minutes is None and "paused" in following.reason

    def test_what_is_measured_counts_instead(self, three_models: pd.DataFrame, two_labels: Params) -> None:
        from pipelines.reports.effort import measure_effort

        saved = saved_time(three_models, photos_of(three_models, two_labels), two_labels, "clothing:v2")
        effort = measure_effort(three_models, two_labels)
        assert all(row.is_measured for row in saved.versions) and len(saved.versions) == 3
        for row in saved.versions:
            hours = effort.by_model[row.version].saving.hours
            assert row.minutes and hours and row.minutes == hours.times(60)
        per_photo = effort.by_model["clothing:v2"].saving.per_photo
        assert saved.next_photos.share == pytest.approx(2 / 3, abs=0.05)
        assert saved.next_photos.minutes and per_photo
        assert saved.next_photos.minutes.value == pytest.approx(100 * saved.next_photos.share * per_photo.value / 60)

    def test_before_any_masks_it_says_so(self, two_labels: Params) -> None:
        saved = saved_time(pd.DataFrame(), photos_of(pd.DataFrame(), two_labels), two_labels)
        assert (saved.versions, saved.labels) == ((), ())
        assert saved.next_photos.reason == "people have used no masks yet"

    def test_intervals_resample_families(self) -> None:
        assert bootstrap_sum(np.array([1.0, 2.0, 3.0, 4.0]), np.array(["a", "a", "b", "b"])) is None
        same = bootstrap_sum(np.full(6, 2.0), np.array(list("abcabc")))
        assert same and (same.value, same.low, same.high) == (12, 12, 12)
        share = bootstrap_share(np.array([1, 1, 1]), np.array([4, 2, 4]), np.array(list("abc")))
        assert share and share.value == 0.3 and 0.25 <= share.low < 0.3 < share.high <= 0.5
        assert bootstrap_share(np.zeros(3), np.zeros(3), np.array(list("abc"))) is None


class TestPeople:
    def test_own_numbers(self, two_labels: Params) -> None:
        days = ["2026-03-05", "2026-03-05", "2026-03-06", "2026-03-10", "2026-03-10", "2026-03-10"]
        manifest = manifest_of(days, ["ada"] * 5 + ["bob"], [50.0, 60.0, 70.0, 80.0, 90.0, 10.0])
        numbers = own_numbers(worked_on(photos_of(manifest, two_labels)), WEDNESDAY)
        ada, bob = numbers["ada"], numbers["bob"]
        assert (ada.photos, ada.per_day, ada.seconds, ada.timed) == (5, 5 / 4, 70, 5)
        assert (bob.photos, bob.per_day, bob.seconds, bob.timed) == (1, 1, None, 1)
        assert [week.photos for week in ada.weeks[-2:]] == [3, 2]

    def test_the_team_is_quartiles_of_four_people_or_more(self) -> None:
        people = {
            str(pace): OwnNumbers(str(pace), 9, (), float(pace), 10.0 * pace, 9) for pace in (1, 2, 3, 4)
        }  # fmt: skip
        team = team_of(people)
        assert team.per_day and (team.per_day.low, team.per_day.median, team.per_day.high) == (1.75, 2.5, 3.25)
        assert team.seconds and team.seconds.median == 25
        del people["4"]
        assert (team_of(people).people, team_of(people).per_day, team_of(people).seconds) == (3, None, None)

    def test_who_did_nothing_recently_is_left_out_of_the_pace(self) -> None:
        paces = {"a": 1.0, "b": 2.0, "c": 0.0, "d": None}
        people = {name: OwnNumbers(name, 9, (), pace, None, 0) for name, pace in paces.items()}
        assert team_of(people).per_day is None

    def test_an_address_without_photos_is_an_error_with_the_remedy(self) -> None:
        ada = OwnNumbers("Ada@example.org", 1, (), None, None, 0)
        assert numbers_of({ada.person: ada}, "ada@EXAMPLE.org ", "dataset-0003") is ada
        with pytest.raises(DataError, match=r"bob@example\.org.*maskloop sync"):
            numbers_of({ada.person: ada}, "bob@example.org", "dataset-0003")


def test_the_queue_compares_photos_chosen_in_both_ways(two_labels: Params) -> None:
    manifest = manifest_of(
        ["2026-03-09"] * 40, ["ada"] * 40, versions=["clothing:v1"] * 40, regions_untouched=[1] * 40,
        regions_changed=[1] * 40, regions_deleted=[2] * 40,
    )  # fmt: skip
    by_chance = queue_of(photos_of(manifest, two_labels), two_labels)
    assert (by_chance.random_photos, by_chance.uncertain_photos, by_chance.uncertain_kept) == (40, 0, None)
    prelabel = two_labels.prelabel.model_copy(update={"strategy": "uncertainty"})
    by_uncertainty = two_labels.model_copy(update={"prelabel": prelabel})
    photos = photos_of(manifest, by_uncertainty)
    queue = queue_of(photos, by_uncertainty)
    assert queue.random_photos == photos["is_random"].sum() > 2
    assert queue.uncertain_photos + queue.random_photos == 40
    assert queue.uncertain_kept and queue.random_kept
    assert queue.uncertain_kept.value == queue.random_kept.value == 0.25
    assert "20% by chance" in queue.strategy


class TestPage:
    @pytest.fixture
    def team(self) -> pd.DataFrame:
        """Twelve working days in which five people label a photo each."""
        days = [date(2026, 2, 23) + timedelta(days=shift) for shift in range(16)]
        working = [day.isoformat() for day in days if day.weekday() < 5]
        people = [f"{name}@example.org" for name in ("ada", "bob", "cyd", "dee", "eve")]
        return manifest_of([day for day in working for _ in people], people * len(working))

    def test_it_names_nobody_escapes_the_catalogue_and_fetches_nothing(
        self, team: pd.DataFrame, two_labels: Params
    ) -> None:
        tasks = [task(1, 1, season="<script>alert(1)</script>"), task(2, season='a" onload="b')]
        progress, _ = measure_progress(
            tasks, team, two_labels, NOW, dataset="dataset-0003", drawing={"clicks by": "<b>sam</b>"}
        )
        page = as_html(progress)
        assert "@example.org" not in page and "@example.org" not in as_json(progress).decode()
        assert "<script" not in page and "<b>sam" not in page and 'onload="' not in page
        assert "&lt;script&gt;" in page
        assert not re.search(r"https?:|@import|url\(", page)
        assert OWN_NUMBERS in page
        assert "12 newest complete working days" in page and "11 March 2026" in page

    def test_json_holds_the_same_numbers(self, team: pd.DataFrame, two_labels: Params) -> None:
        progress, _ = measure_progress([task(1, 1, season="winter"), task(2)], team, two_labels, NOW)
        fields = json.loads(as_json(progress))
        assert fields["counts"] == {"done": 1, "skipped": 0, "left": 1}
        assert fields["forecast"]["per_week"]["value"] == 25
        assert fields["forecast"]["end"] == "2026-03-11"
        assert fields["team"]["per_day"]["median"] == 1
        assert fields["coverage"]["season"][0] == {"name": NO_VALUE, "done": 0, "photos": 1}

    def test_a_page_of_nothing_can_be_written(self, two_labels: Params) -> None:
        progress, people = measure_progress([], pd.DataFrame(), two_labels, NOW)
        assert people == {}
        assert "not enough yet: 0 of the 10 working days" in as_html(progress)
        json.loads(as_json(progress))

    def test_files_are_written_per_person_and_go_with_them(
        self, team: pd.DataFrame, two_labels: Params, tmp_path: Path
    ) -> None:
        progress, people = measure_progress([task(1)], team, two_labels, NOW)
        write_progress(tmp_path, progress, people)
        ada = person_path(tmp_path, "ADA@example.org")
        assert json.loads(ada.read_bytes())["photos"] == 12
        assert ada.stat().st_mode & 0o077 == 0
        assert "ada" not in ada.name
        assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json", "people"}

        del people["ada@example.org"]
        write_progress(tmp_path, progress, people)
        assert len(list((tmp_path / "people").iterdir())) == 4 and not ada.exists()

    def test_own_numbers_stand_in_the_page_of_that_person_only(self, team: pd.DataFrame, two_labels: Params) -> None:
        progress, people = measure_progress([task(1)], team, two_labels, NOW)
        page = as_html(progress, people["ada@example.org"])
        assert "ada@example.org" in page and "bob@example.org" not in page
        assert "median seconds per photo, of 12 timed photos</td><td>60</td>" in page
        assert json.loads(as_json(progress, people["ada@example.org"]))["own"]["photos"] == 12
