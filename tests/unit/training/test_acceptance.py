"""What people would do with regions: chances are calibrated on families never seen, and what pays never costs time."""

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest

from pipelines.params import IGNORE, EffortParams
from pipelines.segmentation.proposals import FEATURES, RegionDescription, Seconds
from pipelines.training.acceptance import (
    COLUMNS,
    calibration_error,
    chances_of,
    cross_fitted,
    estimate_seconds,
    fit_proposals,
    region_rows,
    region_table,
    savings_by_photo,
)

EFFORT = EffortParams()
SECONDS = Seconds.from_params(EFFORT)
LABELS = ("coat", "dress", "hat", "skirt")


def regions(photos: int, seed: int, *, level: float = 0.0) -> pd.DataFrame:
    """Make regions whose IoU depends on their features, their label and their photo; `level` is how good they are."""
    random, rows = np.random.default_rng(seed), []
    for photo in range(photos):
        of_photo = random.normal(0, 0.05)
        for label in random.choice(LABELS, 4, replace=False):
            features = random.normal(0, 1, len(FEATURES))
            bonus = {"coat": 0.1, "hat": -0.15}.get(label, 0)
            iou = 0.55 + level + 0.2 * features[1] - 0.05 * features[3] + bonus + of_photo + random.normal(0, 0.12)
            rows.append([f"photo-{photo}", f"family-{photo // 2}", label, 0.5, *features, float(np.clip(iou, 0, 1))])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def accepted(table: pd.DataFrame) -> np.ndarray:
    return (table["iou"] >= EFFORT.accept_iou).to_numpy()


def test_a_row_per_region_holds_its_iou_with_the_garment_of_that_label() -> None:
    predicted, truth = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    predicted[:5], truth[:4] = 3, 3
    predicted[8:] = 7
    described = [RegionDescription(name, value, 0.8, (1, 2, 3, 4)) for name, value in (("coat", 3), ("dress", 7))]

    table = region_table(region_rows("a", "f", described, predicted, truth))

    assert table.columns.tolist() == list(COLUMNS)
    assert table["iou"].tolist() == [0.8, 0.0]
    assert table.loc[0, ["photo", "family", "label", "score", *FEATURES]].tolist() == [
        "a",
        "f",
        "coat",
        0.8,
        1,
        2,
        3,
        4,
    ]


def test_pixels_that_nobody_can_name_count_for_nothing() -> None:
    predicted, truth = np.full((10, 10), 3, np.uint8), np.full((10, 10), IGNORE, np.uint8)
    truth[:5] = 3
    described = [RegionDescription("coat", 3, 0.8, (0,) * len(FEATURES))]

    [row] = region_rows("a", "f", described, predicted, truth)
    [hidden] = region_rows("a", "f", described, predicted, np.full((10, 10), IGNORE, np.uint8))

    assert (row["iou"], hidden["iou"]) == (1.0, 0.0)


def test_a_model_that_sees_nothing_gives_a_table_without_rows() -> None:
    table = region_table([])

    assert table.columns.tolist() == list(COLUMNS)
    assert cross_fitted(table, SECONDS, EFFORT).columns.tolist() == [*COLUMNS, "accepted", "corrected", "deleted"]
    assert savings_by_photo(cross_fitted(table, SECONDS, EFFORT), ["a", "b"], SECONDS, EFFORT).tolist() == [0, 0]


def test_chances_are_calibrated_on_photos_never_seen() -> None:
    seen, unseen = regions(150, 0), regions(400, 1)

    chances = chances_of(unseen, fit_proposals(seen, SECONDS, EFFORT))

    assert chances.sum(axis=1) == pytest.approx(1)
    assert (chances >= 0).all()
    assert calibration_error(chances[:, 0], accepted(unseen)) <= 0.05
    assert calibration_error(1 - chances[:, 2], unseen["iou"] >= EFFORT.correct_iou) <= 0.05
    assert np.std(chances[:, 0]) > 0.1, "they tell regions apart"


def test_a_label_gets_its_own_chances_with_support_and_the_wholes_without() -> None:
    table = regions(300, 2)
    fitted = fit_proposals(table, SECONDS, EFFORT)

    labels = fitted.acceptable.labels
    assert labels["coat"] > 0.3 > labels["dress"] > labels["hat"]
    once = fit_proposals(pd.concat([table, table.head(1).assign(label="tailleur")]), SECONDS, EFFORT)
    assert abs(once.acceptable.labels["tailleur"]) < 0.5 * min(labels["coat"], -labels["hat"])
    unknown = RegionDescription("jumpsuit", 10, 0.5, (0.0,) * len(FEATURES))
    assert fitted.acceptable.chance(unknown) == pytest.approx(1 / (1 + np.exp(-fitted.acceptable.intercept)))


@pytest.mark.parametrize(
    ("level", "shown"), [(-1, False), (1, True)], ids=["every region is deleted", "every region is accepted"]
)
def test_regions_that_all_end_in_one_way_are_shown_or_not(level: float, *, shown: bool) -> None:
    table = regions(10, 3, level=level)
    description = RegionDescription("coat", 3, 0.5, (0.0,) * len(FEATURES))

    assert fit_proposals(table, SECONDS, EFFORT).pays(description) == shown


@pytest.mark.parametrize("count", [0, 1, 3, 19])
def test_few_regions_give_their_share(count: int) -> None:
    table = regions(10, 4).head(count)

    fitted = fit_proposals(table, SECONDS, EFFORT)

    good = int(accepted(table).sum())
    chances = fitted.chances(RegionDescription("coat", 3, 0.5, (9.0,) * len(FEATURES)))
    assert chances.accepted == pytest.approx((good + 1 / 3) / (count + 1))
    assert (fitted.regions, fitted.photos) == (count, table["photo"].nunique())


def test_a_feature_that_never_changes_tells_nothing() -> None:
    fitted = fit_proposals(regions(50, 5).assign(area=-2.0), SECONDS, EFFORT)

    assert fitted.acceptable.slopes[FEATURES.index("area")] == pytest.approx(0, abs=1e-6)


def test_a_feature_that_separates_perfectly_keeps_finite_weights() -> None:
    table = regions(100, 6)
    table["overlap"] = table["iou"]

    chances = chances_of(table, fit_proposals(table, SECONDS, EFFORT))

    assert np.isfinite(chances).all()
    assert chances[accepted(table), 0].min() > chances[table["iou"] < 0.7, 0].max()


def test_chances_come_from_models_that_never_saw_the_family() -> None:
    table = regions(60, 7)
    own = table["family"] == "family-4"
    changed = table.assign(iou=np.where(own, 1 - table["iou"], table["iou"]))

    before, after = (cross_fitted(rows, SECONDS, EFFORT) for rows in (table, changed))

    names = ["accepted", "corrected", "deleted"]
    assert np.array_equal(before.loc[own, names], after.loc[own, names])
    assert not np.array_equal(before.loc[~own, names], after.loc[~own, names])
    pd.testing.assert_frame_equal(before.drop(columns=names), table)


def test_of_a_single_family_nothing_is_known() -> None:
    fitted = cross_fitted(regions(2, 8).assign(family="only"), SECONDS, EFFORT)

    assert fitted[["accepted", "corrected", "deleted"]].to_numpy() == pytest.approx(1 / 3)


def test_what_is_shown_follows_from_chances_and_what_it_saves_from_the_iou() -> None:
    chances = {"accepted": [0.5, 0.5, 0.5, 0.0], "corrected": [0.3, 0.3, 0.3, 0.0], "deleted": [0.2, 0.2, 0.2, 1.0]}
    table = pd.DataFrame({"photo": ["a", "a", "b", "c"], "iou": [0.85, 0.4, 0.39, 0.9], **chances})

    saved = savings_by_photo(table, ["b", "a", "c", "d"], SECONDS, EFFORT)

    assert saved.tolist() == [-1.5, (22 - 1) + (22 - 9), 0, 0]


def test_showing_what_pays_saves_more_than_showing_everything() -> None:
    fitted = cross_fitted(regions(300, 9, level=-0.3), SECONDS, EFFORT)
    photos = fitted["photo"].unique().tolist()
    everything = fitted.assign(accepted=1.0, corrected=0.0, deleted=0.0)

    pays, all_shown = (savings_by_photo(rows, photos, SECONDS, EFFORT).mean() for rows in (fitted, everything))

    assert pays > max(0, all_shown)


def test_a_model_whose_regions_save_nothing_shows_none() -> None:
    fitted = cross_fitted(regions(40, 10, level=-1), SECONDS, EFFORT)

    assert savings_by_photo(fitted, fitted["photo"].unique().tolist(), SECONDS, EFFORT).tolist() == [0] * 40


def test_what_showing_saved_by_chances_of_other_families_is_kept_with_the_chances() -> None:
    table = regions(100, 11)
    fitted = cross_fitted(table, SECONDS, EFFORT)

    saved = savings_by_photo(fitted, fitted["photo"].unique().tolist(), SECONDS, EFFORT).mean()

    assert fit_proposals(table, SECONDS, EFFORT).saved_per_photo == pytest.approx(saved)
    assert saved > 0


def test_of_a_model_whose_good_regions_nobody_can_tell_nothing_is_shown() -> None:
    table = regions(40, 12, level=-1)
    noise = np.random.default_rng(0).random(len(table)) < 0.02
    fitted = fit_proposals(table.assign(iou=np.where(noise, 0.5, table["iou"])), SECONDS, EFFORT)

    assert fitted.saved_per_photo <= 0
    everything = [("hat", 0.9, (9.0, 9.0, 9.0, -9.0)), ("coat", 0.9, (0.0, 0.0, 0.0, 0.0))]
    assert not any(fitted.pays(RegionDescription(label, 3, *said)) for label, *said in everything)


def test_the_calibration_error_is_how_far_chances_are_off_on_average() -> None:
    chances = np.array([0.05] * 10 + [0.95] * 10)

    assert calibration_error(chances, np.array([False] * 10 + [True] * 10)) == pytest.approx(0.05)
    assert calibration_error(chances, np.array([True] * 10 + [True] * 10)) == pytest.approx(0.5)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0
    assert calibration_error(np.zeros(0), np.zeros(0, bool)) == 0


def people(photos: int, seconds: Seconds, seed: int, *, noise: float = 0.15) -> pd.DataFrame:
    """Make the manifest of people who take these seconds, a third of the time with no masks, sometimes with a break."""
    random = np.random.default_rng(seed)
    garments, blind = random.integers(1, 7, photos), random.random(photos) < 1 / 3
    untouched = np.where(blind, 0, random.binomial(garments, 0.4))
    changed = np.where(blind, 0, random.binomial(garments - untouched, 0.5))
    deleted = np.where(blind, 0, random.poisson(3, photos))
    manual = garments - untouched - changed
    counts = np.column_stack([np.ones(photos), untouched, changed, deleted, manual])
    times = counts @ astuple(seconds) * np.exp(random.normal(0, noise, photos))
    times = np.where(random.random(photos) < 0.03, times + random.uniform(200, 5000, photos), times)
    return pd.DataFrame({
        "lead_time_s": times, "prediction_version": np.where(blind, "", "clothing:v1"), "regions_untouched": untouched,
        "regions_changed": changed, "regions_deleted": deleted, "regions_manual": manual,
        "annotations": [["uuid"]] * photos,
    })  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "truth", [Seconds(9, 1.6, 14, 2.4, 32), Seconds(4, 0.8, 6, 1.0, 14), Seconds(8, 1.2, 9, 1.8, 20)], ids=str
)
def test_people_who_take_other_seconds_are_recovered(truth: Seconds, seed: int) -> None:
    estimate = estimate_seconds(people(400, truth, seed), EFFORT)

    assert astuple(estimate)[2:] == pytest.approx(astuple(truth)[2:], rel=0.15)
    # Looking and accepting come with every photo and are told apart least: what counts is their sum.
    assert estimate.look + 2 * estimate.accept == pytest.approx(truth.look + 2 * truth.accept, rel=0.15)


def test_few_photos_change_almost_nothing() -> None:
    slow = Seconds(*(1.5 * value for value in astuple(SECONDS)))

    assert astuple(estimate_seconds(people(5, slow, 0), EFFORT)) == pytest.approx(astuple(SECONDS), rel=0.1)


def test_without_times_the_parameters_hold() -> None:
    for nobody in (
        people(0, SECONDS, 0),
        pd.DataFrame({"sha256": ["a"]}),
        people(50, SECONDS, 0).assign(lead_time_s=0),
    ):
        assert astuple(estimate_seconds(nobody, EFFORT)) == pytest.approx(astuple(SECONDS))


def test_what_people_never_did_keeps_its_proportion_to_the_rest() -> None:
    by_hand = people(400, Seconds(9, 1, 9, 1.5, 33), 1)
    by_hand = by_hand[by_hand["prediction_version"] == ""]

    estimate = estimate_seconds(by_hand, EFFORT)

    assert estimate.draw == pytest.approx(33, rel=0.1)
    assert estimate.correct / SECONDS.correct == pytest.approx(1.5, rel=0.15)


def test_breaks_imports_and_work_of_several_people_do_not_count() -> None:
    table = people(400, SECONDS, 2)
    usual = estimate_seconds(table, EFFORT)
    imported = table.head(100).assign(lead_time_s=0.0)
    together = table.head(100).assign(lead_time_s=1000.0, annotations=[["one", "other"]] * 100)
    breaks = table.head(100).assign(lead_time_s=EFFORT.longest_s + 1)
    old = table[table["prediction_version"] != ""].assign(lead_time_s=1000.0, regions_deleted=np.nan)

    assert estimate_seconds(pd.concat([table, imported, together, breaks, old]), EFFORT) == usual


def test_far_out_times_move_little() -> None:
    table = people(200, SECONDS, 3)
    table.loc[:9, "lead_time_s"] = 1700.0

    estimate = estimate_seconds(table, EFFORT)

    assert estimate.draw == pytest.approx(SECONDS.draw, rel=0.1)
    assert estimate.correct == pytest.approx(SECONDS.correct, rel=0.15)


def test_no_seconds_leave_all_reason() -> None:
    hurried = people(1000, SECONDS, 4).assign(lead_time_s=0.1)

    estimate = estimate_seconds(hurried, EFFORT)

    assert astuple(estimate) == pytest.approx([value / 4 for value in astuple(SECONDS)])


def test_things_that_cost_nothing_by_the_parameters_are_allowed() -> None:
    free = EffortParams(look=0, accept=0, correct=0, delete=0)

    assert np.isfinite(astuple(estimate_seconds(people(100, SECONDS, 5), free))).all()
    only_accepted = pd.DataFrame({"lead_time_s": [3.0], "prediction_version": ["v"], "regions_untouched": [2.0]})
    assert np.isfinite(astuple(estimate_seconds(only_accepted.assign(
        regions_changed=0, regions_deleted=0, regions_manual=0), free))).all()  # fmt: skip
