"""Agreement between people, from masks whose agreement is known."""

import krippendorff
import numpy as np
import pytest

from pipelines.params import IGNORE
from pipelines.quality.agreement import Drawings, measure_agreement

LABELS = {"coat": 3, "dress": 7}


def mask(coat: int, dress: int = 0) -> np.ndarray:
    """A coat over the first rows of a 10×10 photo, a dress over the next."""
    drawn = np.zeros((10, 10), np.uint8)
    drawn[:coat] = 3
    drawn[coat : coat + dress] = 7
    return drawn


def test_people_who_draw_the_same_agree_wholly() -> None:
    agreement = measure_agreement([Drawings({"a": mask(4), "b": mask(4)})], LABELS)

    assert (agreement.photos, agreement.alpha) == (1, 1.0)
    assert agreement.iou_of_label == {"coat": 1.0}  # nobody drew a dress
    assert agreement.iou_of_person == {"a": 1.0, "b": 1.0}


def test_iou_is_taken_between_people() -> None:
    agreement = measure_agreement(
        [Drawings({"a": mask(4, 2), "b": mask(5, 1)}), Drawings({"a": mask(2), "c": mask(2)})], LABELS
    )

    assert agreement.iou_of_label == pytest.approx({"coat": (40 + 20) / (50 + 20), "dress": 10 / 20})
    assert agreement.iou_of_person["c"] == 1.0
    assert agreement.iou_of_person["b"] < agreement.iou_of_person["a"] < 1


def test_photos_of_one_person_do_not_count() -> None:
    agreement = measure_agreement([Drawings({"a": mask(4)})], LABELS)

    assert agreement.photos == 0
    assert np.isnan(agreement.alpha)


def reference(values: np.ndarray) -> float:
    """Alpha of people's (P, N) values by another implementation; what somebody could not name is missing."""
    return krippendorff.alpha(
        reliability_data=np.where(values == IGNORE, np.nan, values.astype(float)), level_of_measurement="nominal"
    )


@pytest.mark.parametrize("people", [2, 3, 4])
@pytest.mark.parametrize("unnamed", [0.0, 0.2])
def test_alpha_is_that_of_the_reference(people: int, unnamed: float) -> None:
    random = np.random.default_rng(people)
    truth = random.choice([0, 3, 7], (12, 9), p=[0.6, 0.3, 0.1]).astype(np.uint8)
    drawn = {}
    for person in "abcd"[:people]:
        drawn[person] = np.where(random.random(truth.shape) < 0.2, 7, truth).astype(np.uint8)
        drawn[person][random.random(truth.shape) < unnamed] = IGNORE

    agreement = measure_agreement([Drawings(drawn)], LABELS)

    values = np.stack([values.ravel() for values in drawn.values()])
    somewhere = ((values > 0) & (values != IGNORE)).any(axis=0)
    assert agreement.alpha == pytest.approx(reference(values[:, somewhere]))
    assert agreement.alpha_all_pixels == pytest.approx(reference(values))


def test_people_who_never_agree_on_the_little_they_draw_do_not_agree() -> None:
    """A hundredth of the photo is drawn: on all pixels that passes for some agreement."""
    a, b = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    a[:1] = 3
    b[:1] = 7
    agreement = measure_agreement([Drawings({"a": a, "b": b})], LABELS)

    assert agreement.alpha <= 0
    assert agreement.alpha_all_pixels == pytest.approx(0.5, abs=0.01)
    assert agreement.iou_of_person == {"a": 0, "b": 0}


def test_alpha_of_nothing_but_chance_is_no_agreement() -> None:
    random = np.random.default_rng(5)
    a, b = (random.integers(0, 2, (200, 200)).astype(np.uint8) * 3 for _ in range(2))
    agreement = measure_agreement([Drawings({"a": a, "b": b})], LABELS)

    assert abs(agreement.alpha_all_pixels) < 0.02
    assert agreement.alpha < 0


def test_what_somebody_could_not_name_counts_nowhere() -> None:
    a, b = mask(4, 2), mask(5, 1)
    unnamed = b.copy()
    unnamed[4] = IGNORE  # the row that they call differently

    agreement = measure_agreement([Drawings({"a": a, "b": unnamed}, truth="a")], LABELS)

    assert agreement.alpha == 1.0
    assert agreement.iou_of_label == {"coat": 1.0, "dress": 1.0}
    assert agreement.iou_of_person == {"a": 1.0, "b": 1.0}
    assert agreement.gold_of_person == {"b": (1, 1.0)}


def test_nothing_drawn_is_no_agreement_either() -> None:
    agreement = measure_agreement([Drawings({"a": mask(0), "b": mask(0)})], LABELS)

    assert np.isnan(agreement.alpha)
    assert agreement.iou_of_label == {}


def test_people_are_scored_on_photos_whose_truth_somebody_else_set() -> None:
    agreement = measure_agreement(
        [
            Drawings({"expert": mask(4), "a": mask(4), "b": mask(2)}, truth="expert"),
            Drawings({"expert": mask(6), "b": mask(6)}, truth="expert"),
            Drawings({"a": mask(1), "b": mask(2)}),
        ],
        LABELS,
    )

    assert agreement.gold_of_person == {"a": (1, 1.0), "b": (2, (20 + 60) / (40 + 60))}
