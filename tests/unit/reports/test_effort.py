"""Time saved by masks, from manifests with known pixels and seconds and from simulated people with known savings."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import PoissonRegressor

from benchmarks.effort import by_pace_of_regions, errors_of, simulate_archive
from pipelines.params import Params, load_params
from pipelines.prelabel.strategies import chance_of
from pipelines.reports.effort import Saving, costs_time, effort_of, measure_effort
from pipelines.reports.effort.photos import BREAK, FAR_OUT, IMPORTED, NO_TIME, SEVERAL, labelled_photos
from pipelines.reports.effort.regression import fit, from_logarithms, half_width
from pipelines.reports.effort.saving import estimate_savings
from pipelines.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(PROJECT_ROOT / "params.yaml")


def photo(version: str, seconds: float | None, untouched: int = 0, changed: int = 0, manual: int = 0, deleted: int = 0,
          pixels: dict[str, tuple[int, int, int]] | None = None) -> dict[str, Any]:  # fmt: skip
    return {
        "prediction_version": version, "lead_time_s": seconds, "regions_untouched": untouched,
        "regions_changed": changed, "regions_manual": manual, "regions_deleted": deleted,
        "prelabel_pixels": json.dumps(pixels) if pixels else "",
    }  # fmt: skip


def exact_archive(saved_share: float = 0.5, practised: int = 0) -> pd.DataFrame:
    """Three people label 120 photos of 40 families, a third of them blind; masks save a share of every photo's time.

    Each of them has practised on so many photos before. Nothing is left to chance: seconds are a person's pace, times a
    power of practice, times a power of garments.
    """
    place = np.arange(120)
    family, person = place // 3, place % 3
    garments, done = 1 + place * 7 % 5, place // 3
    alone = np.array([30.0, 50.0, 20.0])[person] * (1 + done + practised) ** -0.4 * (1 + garments) ** 0.8
    blind = family % 3 == 0
    return pd.DataFrame({
        "sha256": [f"{number:064x}" for number in place], "family": [f"family {number}" for number in family],
        "split": np.where(blind, "test", "train"), "blind": blind,
        "prediction_version": np.where(blind, "", "clothing:v1"),
        "lead_time_s": np.where(blind, alone, alone * (1 - saved_share)),
        "annotators": [[f"labeler-{number}"] for number in person], "annotations": [[f"{number}"] for number in place],
        "updated_at": [f"2026-01-{1 + number // 24:02}T{number % 24:02}:00:00+00:00" for number in place],
        "label_pixels": [json.dumps({f"garment {n}": 9 for n in range(count)}) for count in garments],
    })  # fmt: skip


def of_v1(manifest: pd.DataFrame, params: Params) -> Saving:
    return measure_effort(manifest, params).by_model["clothing:v1"].saving


# Usage of masks


def test_regions_are_counted_by_what_became_of_them_and_models_stand_in_order(params: Params) -> None:
    table = pd.DataFrame([
        photo("clothing:v10", 8, untouched=1),
        photo("clothing:v9", 10, untouched=2, changed=1, manual=1, deleted=1),
        photo("clothing:v9", 20, untouched=3),
        photo("", 90, manual=3),
    ])  # fmt: skip

    by_model = measure_effort(table, params).by_model

    assert list(by_model) == ["", "clothing:v9", "clothing:v10"]
    nine = by_model["clothing:v9"]
    assert (nine.photos, nine.untouched, nine.corrected, nine.drawn, nine.deleted) == (2, 5, 1, 1, 1)
    assert nine.shares == {"untouched": 5 / 8, "corrected": 1 / 8, "drawn": 1 / 8, "deleted": 1 / 8}
    assert nine.untouched_share == 5 / 7  # of what was submitted
    assert nine.seconds == 15


def test_iou_is_taken_over_the_pixels_of_all_photos_and_the_labels_that_were_submitted(params: Params) -> None:
    table = pd.DataFrame([
        photo("clothing:v1", 1, pixels={"": (60, 50, 50), "coat": (40, 50, 40)}),
        photo("clothing:v1", 1, pixels={"": (90, 100, 90), "coat": (0, 0, 0), "hat": (10, 0, 0)}),
    ])  # fmt: skip

    effort = measure_effort(table, params).by_model["clothing:v1"]

    assert effort.iou == pytest.approx({"": 140 / 160, "coat": 40 / 50})  # nobody submitted a hat
    assert effort.miou == pytest.approx((140 / 160 + 0.8) / 2)


def test_manifests_of_earlier_versions_can_be_read(params: Params) -> None:
    table = pd.DataFrame([photo("clothing:v1", 3, untouched=1)]).drop(columns=["regions_deleted", "prelabel_pixels"])

    effort = measure_effort(table, params).by_model["clothing:v1"]

    assert (effort.deleted, effort.iou) == (0, {})
    assert np.isnan(effort.miou)


@pytest.mark.parametrize("columns", [[], ["sha256"], ["prediction_version"], list(exact_archive().columns)])
def test_an_empty_manifest_has_no_effort(columns: list[str], params: Params) -> None:
    nothing = pd.DataFrame(columns=columns)

    report = measure_effort(nothing, params)

    assert (report.by_model, report.learning, report.in_all.photos) == ({}, None, 0)
    assert (effort_of(nothing).photos, effort_of(nothing).untouched_share) == (0, 0)
    assert np.isnan(effort_of(nothing).seconds)


def test_any_column_of_a_manifest_may_be_missing(params: Params) -> None:
    table = exact_archive()
    for column in table.columns:
        measure_effort(table.drop(columns=column), params)
    assert of_v1(table.drop(columns="split"), params) == of_v1(table, params)
    no_time = measure_effort(table.drop(columns="updated_at"), params).by_model["clothing:v1"].saving
    assert no_time.reason == "too few blind photos to tell: timed photos without masks at its time: 0, families: 0"


def test_photos_of_a_round_are_taken_together() -> None:
    effort = effort_of(pd.DataFrame([photo("clothing:v1", 3, untouched=1), photo("", 9, manual=1)]))

    assert (effort.photos, effort.untouched_share, effort.seconds) == (2, 0.5, 6)
    assert (effort.seconds_with_masks, effort.seconds_without_masks) == (3, 9)


def test_metrics_have_names_for_mlflow(params: Params) -> None:
    effort = effort_of(pd.DataFrame([photo("clothing:v1", 3, untouched=1, pixels={"": (5, 5, 5), "coat": (2, 2, 1)})]))

    assert effort.as_metrics() == pytest.approx({
        "labelers/photos": 1, "labelers/photos_without_masks": 0, "labelers/seconds_per_photo": 3,
        "labelers/median_seconds_per_photo": 3, "labelers/untouched_share": 1,
        "labelers/corrected_share": 0, "labelers/drawn_share": 0, "labelers/deleted_share": 0,
        "labelers/prelabel_miou": (1 + 1 / 3) / 2, "labelers/iou/background": 1, "labelers/iou/coat": 1 / 3,
    })  # fmt: skip

    saved = measure_effort(exact_archive(), params).by_model["clothing:v1"].as_metrics()
    assert saved["labelers/photos_without_masks"] == 36  # of 42: the first and the last family are of another time
    for name in ("seconds_saved_per_photo", "hours_saved"):
        value, low, high = (saved[f"labelers/{name}{end}"] for end in ("", "_low", "_high"))
        assert low <= value <= high
    assert saved["labelers/hours_saved"] == pytest.approx(78 * saved["labelers/seconds_saved_per_photo"] / 3600)


# Time saved


@pytest.mark.parametrize("share", [0.5, 0.0, -0.4])
def test_where_nothing_is_left_to_chance_the_saving_is_exact(share: float, params: Params) -> None:
    table = exact_archive(share)
    took = table.loc[~table["blind"], "lead_time_s"].mean()

    saving = of_v1(table, params)

    assert saving.per_photo is not None and saving.hours is not None
    assert saving.per_photo.value == pytest.approx(took / (1 - share) - took, abs=1e-3)
    assert saving.per_photo.high - saving.per_photo.low < 0.01
    assert saving.hours.value == pytest.approx(78 * saving.per_photo.value / 3600)


def test_the_interval_covers_the_truth_in_simulated_archives(params: Params) -> None:
    by_version, in_all = [], []
    for seed in range(50):
        for name, truth, interval in errors_of(simulate_archive(seed), params):
            covered = interval.low <= truth <= interval.high
            (in_all if name == "in all" else by_version).append((covered, interval.value - truth))

    assert len(by_version) > 100 and len(in_all) > 45
    for results in (by_version, in_all):
        covered, error = np.array(results, float).T
        assert covered.mean() >= 0.9
        assert abs(error.mean()) < 2.5 * error.std() / np.sqrt(len(error))
    assert abs(np.mean([error for _, error in by_version])) < 4  # seconds of photos that take some 70


def test_practice_does_not_count_as_time_saved(params: Params) -> None:
    """Masks that save nothing, and people who become much quicker: only the pace of earlier days would say they do."""
    before = exact_archive(0.0).assign(prediction_version="", blind=True, split="train")
    before = before.assign(updated_at=before["updated_at"].str.replace("2026-01", "2025-12"))
    table = exact_archive(0.0, practised=40)
    table["regions_manual"] = before["regions_manual"] = [len(json.loads(text)) for text in table["label_pixels"]]
    together = pd.concat([before, table], ignore_index=True)

    saving = of_v1(together, params)

    assert saving.per_photo is not None
    assert abs(saving.per_photo.value) < 1e-3
    assert by_pace_of_regions(together)["clothing:v1"] > 5  # seconds that nobody saved


def test_what_practice_did_is_told_beside_the_saving(params: Params) -> None:
    learning = measure_effort(exact_archive(), params).learning

    assert learning is not None
    (first, _), (last, _) = learning.curve[0], learning.curve[-1]
    assert (first, last) == (5, 39)
    assert learning.change.value == pytest.approx((40 / 6) ** -0.4, abs=1e-3)


def test_a_version_that_proposes_nothing_on_hard_photos_is_not_flattered(params: Params) -> None:
    errors = [
        (interval.value - truth, interval.low <= truth <= interval.high)
        for seed in range(30)
        for name, truth, interval in errors_of(simulate_archive(seed, 400, good=(0.5, 0.5), silent_share=0.4), params)
        if name != "in all"
    ]
    error, covered = np.array(errors, float).T
    assert abs(error.mean()) < 2.5 * error.std() / np.sqrt(len(error))
    assert covered.mean() >= 0.9


def test_single_photos_of_all_families_may_be_the_controls(params: Params) -> None:
    """As when the test split has stopped growing: a hash below `prelabel.control_share` decides."""
    prelabel = params.prelabel.model_copy(update={"control_share": 0.2})
    shared = params.model_copy(update={"prelabel": prelabel})
    covered = [
        interval.low <= truth <= interval.high
        for seed in range(30)
        for name, truth, interval in errors_of(simulate_archive(seed, 400, blind_share=0.2, by_photo=True), shared)
        if name != "in all"
    ]
    assert len(covered) > 60
    assert np.mean(covered) >= 0.9


# Arms of the comparison


def test_controls_are_random_blind_photos_of_the_same_time(params: Params) -> None:
    table = exact_archive()
    long_before = table[:30].assign(prediction_version="", blind=True, split="test", updated_at="2025-01-01T00:00:00Z")
    nothing_proposed = table[60:66].assign(prediction_version="", blind=True, split="train")

    photos = labelled_photos(pd.concat([table, long_before, nothing_proposed]), 1800)

    compared = photos.index[photos["is_control"] & (photos["period"] == "clothing:v1")]
    first_and_last_family = {0, 1, 2, 117, 118, 119}  # labelled before the first and after the last photo with masks
    assert set(compared) == set(np.flatnonzero(table["blind"])) - first_and_last_family
    assert (photos.loc[150:, "period"] == "clothing:v1").all()


def test_a_photo_that_was_opened_again_does_not_draw_later_controls_to_its_version() -> None:
    first = exact_archive()
    second = exact_archive().assign(
        prediction_version=lambda table: table["prediction_version"].str.replace("v1", "v2"),
        updated_at=lambda table: table["updated_at"].str.replace("2026-01", "2026-02"),
    )
    first.loc[first.index[~first["blind"]][0], "updated_at"] = "2026-02-03T12:30:00+00:00"

    photos = labelled_photos(pd.concat([first, second]), 1800)

    of_second = photos.loc[len(first) :, "period"]
    assert (of_second == "clothing:v1").sum() <= 2
    assert (photos.loc[: len(first) - 1, "period"] != "clothing:v2").all()


def test_once_the_test_split_is_full_the_share_of_controls_counts_and_no_other_training_photo() -> None:
    table = exact_archive().assign(split="train", test_full=True)

    photos = labelled_photos(table, 1800, control_share=0.5)

    chosen = np.array([chance_of("control", sha256) < 0.5 for sha256 in table["sha256"]])
    assert photos["is_control"].tolist() == (table["blind"] & chosen).tolist()
    assert not labelled_photos(table.assign(test_full=False), 1800, control_share=0.5)["is_control"].any()


@pytest.mark.parametrize(("families", "told"), [(2, False), (3, True)])
def test_too_few_families_without_masks_give_a_reason_instead_of_an_estimate(
    families: int, told: bool, params: Params
) -> None:
    table = exact_archive()
    blind = sorted(set(table.loc[table["blind"], "family"]) - {"family 0"}, key=lambda name: int(name.split()[1]))
    table = table[~table["blind"] | table["family"].isin(blind[:families])]

    effort = measure_effort(table, params).by_model["clothing:v1"]

    assert (effort.saving.per_photo is not None) == told
    assert ("labelers/hours_saved" in effort.as_metrics()) == told
    lacking = "too few blind photos to tell: timed photos without masks at its time: 6, families: 2"
    assert effort.saving.reason == ("" if told else lacking)


def test_versions_from_before_splits_were_blind_have_no_estimate(params: Params) -> None:
    table = exact_archive()
    shown = table["blind"] & (table.index % 4 > 0)
    table.loc[shown, ["prediction_version", "blind"]] = ["clothing:v1", False]

    saving = of_v1(table, params)

    assert saving.per_photo is None
    assert saving.reason.startswith("too few blind photos to tell: at its time most photos of the splits test and val")


# Which times count


def test_times_that_measure_no_work_are_left_out_and_counted() -> None:
    table = exact_archive().assign(imported=False)
    table.loc[0, "lead_time_s"] = 0
    table.loc[1, "lead_time_s"] = np.nan
    table.loc[2, "imported"] = True
    table.at[3, "annotations"] = ["a", "b"]
    table.loc[4, "lead_time_s"] = 1801
    table.loc[5, "lead_time_s"] = 1799  # where some 60 s are usual

    photos = labelled_photos(table, 1800)

    assert photos.loc[:5, "left_out"].tolist() == [NO_TIME, NO_TIME, IMPORTED, SEVERAL, BREAK, FAR_OUT]
    assert (photos.loc[6:, "left_out"] == "").all()
    assert effort_of(table).left_out == {NO_TIME: 2, IMPORTED: 1, SEVERAL: 1, BREAK: 1, FAR_OUT: 1}


def test_imported_photos_change_nothing_but_the_count(params: Params) -> None:
    table = exact_archive()
    imported = table[table["blind"]].assign(lead_time_s=0.0, annotators=pd.Series([["owner"]] * len(table)))
    imported["sha256"] = [f"imported {number}" for number in range(len(imported))]
    together = pd.concat([table, imported, imported, imported], ignore_index=True)

    assert of_v1(together, params).per_photo == of_v1(table, params).per_photo
    assert measure_effort(together, params).left_out == {NO_TIME: 3 * len(imported)}


def test_a_break_moves_the_estimate_by_little(params: Params) -> None:
    table = exact_archive()
    expected = of_v1(table, params).per_photo
    table.loc[table.index[~table["blind"]][[3, 30, 50]], "lead_time_s"] = [700.0, 1500.0, 5000.0]

    saving = of_v1(table, params)

    assert saving.with_masks == 75
    assert saving.per_photo is not None and expected is not None
    assert saving.per_photo.value == pytest.approx(expected.value, rel=0.05)


def test_quick_photos_are_no_errors_and_one_fence_holds_for_both_arms() -> None:
    """Masks that take away nine tenths of the time: neither the quick photos nor the slow ones are far out."""
    photos = labelled_photos(exact_archive(0.9), 1800)

    assert (photos["left_out"] == "").all()


# Masks that cost time


def test_masks_that_surely_cost_time_are_named(params: Params) -> None:
    costly = measure_effort(exact_archive(-0.4), params).by_model["clothing:v1"]

    assert costs_time(costly).startswith("its masks cost people ")
    assert "s per photo (95 % interval " in costs_time(costly)
    assert costs_time(measure_effort(exact_archive(0.4), params).by_model["clothing:v1"]) == ""
    assert costs_time(measure_effort(exact_archive(-0.4)[:9], params).by_model["clothing:v1"]) == ""


def test_photos_that_chance_chose_must_not_say_the_contrary(params: Params) -> None:
    """Photos on which a model is unsure take longer; that they come first must not make its masks look bad."""
    table = exact_archive(0.1)
    random = np.array([chance_of("random", sha256) < params.prelabel.random_share for sha256 in table["sha256"]])
    table["lead_time_s"] *= np.where(random | table["blind"], 1.0, 1.5)

    effort = measure_effort(table, params).by_model["clothing:v1"]

    assert effort.saving.per_photo is not None and effort.by_chance.per_photo is not None
    assert effort.saving.per_photo.high < 0 < effort.by_chance.per_photo.low
    assert costs_time(effort) == ""


# The arithmetic


def test_the_regression_is_scikit_learns() -> None:
    photos = labelled_photos(simulate_archive(1).manifest, 1800)
    counted = photos[photos["left_out"] == ""]
    inputs = np.column_stack([np.ones(len(counted)), np.log1p(counted["done"]), np.log1p(counted["garments"])])
    seconds = counted["seconds"].to_numpy()

    regression = fit(inputs, 3, seconds, counted["family"].to_numpy(str))

    peer = PoissonRegressor(alpha=0, fit_intercept=False, max_iter=1000, tol=1e-10).fit(inputs, seconds)
    assert regression.weights == pytest.approx(peer.coef_, abs=1e-4)
    families = counted["family"].to_numpy(str)
    for cluster, family in list(enumerate(np.unique(families)))[:10]:
        rest = families != family
        again = fit(inputs[rest], 3, seconds[rest], families[rest]).weights
        assert regression.without[cluster] == pytest.approx(again, abs=1e-2)
    sums = regression.expected([np.ones(len(counted))])[0]
    assert sums[0] == pytest.approx(seconds.sum())  # so it is with a constant among the inputs


def test_the_interval_of_single_photos_is_welchs() -> None:
    rng = np.random.default_rng(3)
    few, many = rng.normal(50, 9, 7), rng.normal(40, 4, 30)
    moves = np.concatenate([(few.mean() - few) / 6, (many - many.mean()) / 29])
    sizes = [np.repeat([1, 0], [7, 30]), np.repeat([0, 1], [7, 30])]

    peer = stats.ttest_ind(few, many, equal_var=False).confidence_interval(0.95)

    assert half_width(moves, sizes) == pytest.approx((peer.high - peer.low) / 2)
    assert from_logarithms(np.concatenate([[np.log(2)], np.log(2) + moves * 0]), sizes).high == pytest.approx(2)


def test_many_families_are_put_together(monkeypatch: pytest.MonkeyPatch, params: Params) -> None:
    photos = labelled_photos(simulate_archive(5, 600).manifest, 1800)
    whole = estimate_savings(photos).in_all.per_photo
    monkeypatch.setattr("pipelines.reports.effort.regression._MOST_CLUSTERS", 60)

    fewer = estimate_savings(photos).in_all.per_photo

    assert whole is not None and fewer is not None
    assert fewer.value == pytest.approx(whole.value)
    assert fewer.high - fewer.low == pytest.approx(whole.high - whole.low, rel=0.4)

    monkeypatch.setattr("pipelines.reports.effort.regression._MOST_CLUSTERS", 1)
    assert estimate_savings(photos).in_all.reason == "too few blind photos to tell: of no version enough"
