"""The gate: who becomes champion, and the reason people read."""

import numpy as np
import pytest

from pipelines.params import PromoteParams
from pipelines.training.gate import decide
from pipelines.training.metrics import Confusion

NAMES = ["background", "coat", "dress", "hat"]
RULES = PromoteParams(min_gain=0.0, max_class_drop=0.1, min_class_photos=5)


def measured(*iou: float, photos: tuple[int, ...] = (10, 10, 10, 10)) -> Confusion:
    """A result with these IoUs, background first: of 1000 pixels per class the missed ones went to a class of junk."""
    confusion = Confusion(len(NAMES) + 1)
    for channel, share in enumerate(iou):
        confusion.matrix[channel, channel] = round(1000 * share)
        confusion.matrix[channel, -1] = 1000 - round(1000 * share)
    confusion.photos[: len(iou)] = photos[: len(iou)]
    return confusion


def test_the_figures_of_these_tests_are_what_they_say() -> None:
    np.testing.assert_allclose(measured(0.9, 0.6, 0.5).iou()[:3], [0.9, 0.6, 0.5])


def test_the_first_model_becomes_champion() -> None:
    decision = decide(measured(0.5, 0.1), None, NAMES, RULES)

    assert (decision.promote, decision.champion_miou) == (True, None)
    assert decision.reason == "first model: test mIoU 0.300"


def test_a_better_model_becomes_champion() -> None:
    decision = decide(measured(0.9, 0.7), measured(0.9, 0.6), NAMES, RULES)

    assert decision.promote
    assert decision.reason == "better: test mIoU 0.800 against the champion's 0.750"


@pytest.mark.parametrize("ours", [0.6, 0.5])
def test_an_equal_or_worse_model_does_not(ours: float) -> None:
    decision = decide(measured(0.9, ours), measured(0.9, 0.6), NAMES, RULES)

    assert not decision.promote
    assert decision.reason.startswith("no gain: ")
    assert decision.challenger_miou == pytest.approx((0.9 + ours) / 2)
    assert decision.champion_miou == pytest.approx(0.75)


@pytest.mark.parametrize(("min_gain", "promoted"), [(0.04, True), (0.06, False)])
def test_the_gain_must_exceed_the_margin(min_gain: float, promoted: bool) -> None:
    rules = RULES.model_copy(update={"min_gain": min_gain})

    decision = decide(measured(0.9, 0.7), measured(0.9, 0.6), NAMES, rules)

    assert decision.promote is promoted


def test_a_class_that_fell_stops_a_better_model_and_is_named() -> None:
    decision = decide(measured(0.95, 0.95, 0.45), measured(0.7, 0.7, 0.6), NAMES, RULES)

    assert not decision.promote
    assert "but IoU fell by more than 0.1: dress −0.15" in decision.reason
    assert "coat" not in decision.reason


def test_a_small_drop_is_accepted() -> None:
    assert decide(measured(0.95, 0.95, 0.51), measured(0.7, 0.7, 0.6), NAMES, RULES).promote


def test_a_class_on_few_photos_is_named_and_stops_nothing() -> None:
    photos = (10, 10, 10, 2)

    decision = decide(
        measured(0.95, 0.95, 0.95, 0.1, photos=photos), measured(0.5, 0.5, 0.5, 0.5, photos=photos), NAMES, RULES
    )

    assert decision.promote
    assert decision.reason.endswith("; not measured (under 5 photos): hat")


def test_a_class_that_no_test_photo_has_is_not_mentioned() -> None:
    decision = decide(measured(0.9, 0.7), measured(0.9, 0.6), NAMES, RULES)

    assert "hat" not in decision.reason
    assert "not measured" not in decision.reason
