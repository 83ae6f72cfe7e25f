"""What a simulated labeler does with a pre-label: accept, correct, delete, or draw by hand, each with its origin."""

import numpy as np
import pytest

from pipelines.demo.labelers import correct
from pipelines.labelstudio.regions import compile_regions
from pipelines.labelstudio.render import region_json
from pipelines.params import IGNORE, EffortParams, Params
from pipelines.records import RegionMask

LOOK, ACCEPT, CORRECT, RELABEL, DELETE, DRAW = 6.0, 1.0, 9.0, 4.0, 1.5, 22.0  # seconds of params.yaml


@pytest.fixture
def coat_in_truth() -> np.ndarray:
    """A 30×20 truth whose rows 0 to 19 are coat (3)."""
    truth = np.zeros((30, 20), np.uint8)
    truth[:20] = 3
    return truth


def proposal(label: str, rows: slice) -> dict:
    mask = np.zeros((30, 20), bool)
    mask[rows] = True
    return region_json(RegionMask(label, mask, 0.8), f"region-{label}")


def submitted(result: list[dict], params: Params) -> np.ndarray:
    return compile_regions(result, params.label_ids, 30, 20, params.compile.alpha_threshold).mask


def test_a_good_mask_is_accepted_untouched(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    good = proposal("coat", slice(0, 18))  # IoU 0.9
    result, seconds = correct([good], coat_in_truth, two_labels)
    assert result == [good]
    assert result[0]["origin"] == "prediction"
    assert seconds == LOOK + ACCEPT


def test_a_fair_mask_is_corrected_in_place(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    fair = proposal("coat", slice(0, 12))  # IoU 0.6
    [region], seconds = correct([fair], coat_in_truth, two_labels)
    assert (region["id"], region["origin"]) == (fair["id"], "prediction-changed")
    assert np.array_equal(submitted([region], two_labels), coat_in_truth)
    assert seconds == LOOK + CORRECT


def test_a_poor_mask_is_deleted_and_drawn_by_hand(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    poor = proposal("coat", slice(14, 30))  # IoU 0.2
    [region], seconds = correct([poor], coat_in_truth, two_labels)
    assert region["origin"] == "manual"
    assert region["id"] != poor["id"]
    assert np.array_equal(submitted([region], two_labels), coat_in_truth)
    assert seconds == LOOK + DELETE + DRAW


def test_a_good_outline_with_a_wrong_label_gets_the_right_one(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    good = proposal("dress", slice(0, 18))  # IoU 0.9 with the coat
    [region], seconds = correct([good], coat_in_truth, two_labels)
    assert (region["id"], region["origin"]) == (good["id"], "prediction-changed")
    assert region["value"] == {**good["value"], "brushlabels": ["coat"]}
    assert seconds == LOOK + RELABEL


def test_a_fair_outline_with_a_wrong_label_is_corrected_as_well(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    fair = proposal("dress", slice(0, 12))  # IoU 0.6 with the coat
    [region], seconds = correct([fair], coat_in_truth, two_labels)
    assert (region["id"], region["origin"]) == (fair["id"], "prediction-changed")
    assert np.array_equal(submitted([region], two_labels), coat_in_truth)
    assert seconds == LOOK + RELABEL + CORRECT


def test_of_two_masks_of_one_garment_that_with_its_label_stays(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    wrong, right = proposal("dress", slice(0, 19)), proposal("coat", slice(0, 12))
    [region], seconds = correct([wrong, right], coat_in_truth, two_labels)
    assert region["id"] == right["id"]
    assert seconds == LOOK + CORRECT + DELETE


def test_two_masks_with_exchanged_labels_get_each_others(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    coat_in_truth[20:] = 7
    result, seconds = correct(
        [proposal("dress", slice(0, 20)), proposal("coat", slice(20, 30))], coat_in_truth, two_labels
    )
    assert np.array_equal(submitted(result, two_labels), coat_in_truth)
    assert seconds == LOOK + 2 * RELABEL


def test_a_garment_that_is_not_there_is_deleted(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    result, seconds = correct([proposal("dress", slice(20, 30))], np.zeros_like(coat_in_truth), two_labels)
    assert (result, seconds) == ([], LOOK + DELETE)


def test_a_photo_without_pre_label_is_drawn_by_hand(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    coat_in_truth[25:] = 7
    result, seconds = correct([], coat_in_truth, two_labels)
    assert [region["origin"] for region in result] == ["manual", "manual"]
    assert np.array_equal(submitted(result, two_labels), coat_in_truth)
    assert seconds == LOOK + 2 * DRAW


def test_an_empty_photo_takes_a_look(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    assert correct([], np.zeros_like(coat_in_truth), two_labels) == ([], LOOK)


@pytest.mark.parametrize(
    ("rows", "origin"), [(17, "prediction"), (16, "prediction-changed"), (8, "prediction-changed"), (7, "manual")]
)
def test_the_thresholds_decide(coat_in_truth: np.ndarray, two_labels: Params, rows: int, origin: str) -> None:
    assert (two_labels.effort.accept_iou, two_labels.effort.correct_iou) == (0.85, 0.4)
    [region], _ = correct([proposal("coat", slice(0, rows))], coat_in_truth, two_labels)
    assert region["origin"] == origin


def test_hand_drawn_regions_carry_no_score(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    [region], _ = correct([], coat_in_truth, two_labels)
    assert "score" not in region


@pytest.mark.parametrize(
    ("rows", "origin", "seconds"), [(14, "prediction", 3), (13, "prediction-changed", 5), (7, "manual", 15)]
)
def test_seconds_and_thresholds_are_those_of_the_parameters(
    coat_in_truth: np.ndarray, two_labels: Params, rows: int, origin: str, seconds: float
) -> None:
    effort = EffortParams(look=1, accept=2, correct=4, delete=6, draw=8, accept_iou=0.7, correct_iou=0.5)
    params = two_labels.model_copy(update={"effort": effort})

    [region], taken = correct([proposal("coat", slice(0, rows))], coat_in_truth, params)

    assert (region["origin"], taken) == (origin, seconds)


def test_a_slow_person_does_the_same_in_more_time(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    fair = [proposal("coat", slice(0, 12))]
    result, seconds = correct(fair, coat_in_truth, two_labels)

    assert correct(fair, coat_in_truth, two_labels, pace=1.5) == (result, 1.5 * seconds)


def test_unclear_pixels_count_neither_for_nor_against_a_region(coat_in_truth: np.ndarray, two_labels: Params) -> None:
    coat_in_truth[20:] = IGNORE
    whole = proposal("coat", slice(0, 30))  # IoU 0.67 if the ignored rows counted

    [region], seconds = correct([whole], coat_in_truth, two_labels)

    assert (region["origin"], seconds) == ("prediction", LOOK + ACCEPT)
