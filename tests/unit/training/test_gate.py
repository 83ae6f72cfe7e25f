"""The gate: who becomes champion, and the reason people read."""

import numpy as np
import pytest

from pipelines.params import PromoteParams
from pipelines.training.figures import BINS, Evaluation
from pipelines.training.gate import Decision
from pipelines.training.gate import decide as decide_in

NAMES = ["background", "coat", "dress", "hat"]
RULES = PromoteParams(min_gain=0.0, confidence=0.975, max_class_drop=0.1, min_class_photos=5)
ROUNDS = 400


def evaluation_of(confusions: np.ndarray) -> Evaluation:
    photos = tuple(f"photo {number}" for number in range(len(confusions)))
    edges = np.zeros((*confusions.shape[:2], 4), np.int64)
    return Evaluation(photos, confusions, edges, np.zeros((len(confusions), BINS, 3)))


def measured(*iou: float, photos: tuple[int, ...] = (10, 10, 10, 10)) -> Evaluation:
    """A result with these IoUs on every photo, background first; a class is on as many photos as `photos` says.

    Of 1000 pixels per class the missed ones went to a class of junk.
    """
    confusions = np.zeros((max(photos), len(NAMES) + 1, len(NAMES) + 1), np.int64)
    for channel, share in enumerate(iou):
        confusions[: photos[channel], channel, channel] = round(1000 * share)
        confusions[: photos[channel], channel, -1] = 1000 - round(1000 * share)
    return evaluation_of(confusions)


def decide(challenger: Evaluation, champion: Evaluation | None, names: list[str], rules: PromoteParams) -> Decision:
    return decide_in(challenger, champion, names, rules, ROUNDS)


def test_the_figures_of_these_tests_are_what_they_say() -> None:
    np.testing.assert_allclose(measured(0.9, 0.6, 0.5).confusion.iou()[:3], [0.9, 0.6, 0.5])


def test_the_first_model_becomes_champion() -> None:
    decision = decide(measured(0.5, 0.1), None, NAMES, RULES)

    assert (decision.promote, decision.champion_miou) == (True, None)
    assert decision.reason == "first model: test mIoU 0.300"


def test_a_better_model_becomes_champion() -> None:
    decision = decide(measured(0.9, 0.7), measured(0.9, 0.6), NAMES, RULES)

    assert decision.promote
    better = "better: test mIoU 0.800 against the champion's 0.750"
    assert decision.reason == f"{better}; not measured (under 5 photos): dress, hat"


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


def test_a_class_that_no_test_photo_has_is_named_as_not_measured() -> None:
    decision = decide(measured(0.9, 0.7), measured(0.9, 0.6), NAMES, RULES)

    assert decision.promote
    assert "not measured (under 5 photos): " in decision.reason
    assert "hat" in decision.reason
    assert "| hat | 0 | – | – | – | not measured |" in decision.as_markdown()


def test_what_other_photos_could_turn_round_is_no_gain() -> None:
    half = measured(0.9, 0.5).confusions
    luck = half.copy()
    luck[0] = measured(0.9, 0.9).confusions[0]  # better on one photo of ten

    decision = decide(evaluation_of(luck), evaluation_of(half), NAMES, RULES)

    assert not decision.promote
    assert decision.reason.startswith("not beyond noise: test mIoU 0.720 against the champion's 0.700")
    assert decision.gain is not None
    assert decision.gain[1] == 0 < decision.gain[0] < decision.gain[2]


def test_other_photos_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="different photos"):
        decide(measured(0.9, 0.5), measured(0.9, 0.5, photos=(9, 9, 9, 9)), NAMES, RULES)


def test_the_table_shows_what_was_weighed() -> None:
    photos = (10, 10, 10, 2)
    decision = decide(
        measured(0.95, 0.95, 0.45, 0.4, photos=photos), measured(0.7, 0.7, 0.6, 0.5, photos=photos), NAMES, RULES
    )
    table = decision.as_markdown()

    assert table.startswith("**Not promoted**: test mIoU")
    assert "| dress | 10 | 0.600 | 0.450 | -0.150 | fell |" in table
    assert "| hat | 2 | 0.500 | 0.400 | -0.100 | not measured |" in table
    assert "| coat | 10 | 0.700 | 0.950 | +0.250 | kept |" in table


def simulated(
    chance: np.random.Generator, quality: np.ndarray, shown: np.ndarray, sizes: np.ndarray, gain: float
) -> Evaluation:
    """Answers of a model whose IoU on each photo and class scatters round `quality` + `gain`."""
    photos, classes = quality.shape
    share = np.clip(quality + gain + chance.normal(0, 0.08, quality.shape), 0, 1) * shown
    confusions = np.zeros((photos, classes, classes), np.int64)
    hit = (share * sizes).astype(np.int64)
    confusions[:, np.arange(classes), np.arange(classes)] = hit
    missed = (sizes * shown).astype(np.int64) - hit
    confusions[:, 1:, 0] = missed[:, 1:]  # what is missed of a garment is taken for background
    return evaluation_of(confusions)


@pytest.mark.parametrize(("gain", "least", "most"), [(0.0, 0, 9), (0.03, 181, 200)])
def test_of_two_hundred_challengers(gain: float, least: int, most: int) -> None:
    """Equal but for noise: under 5 % are promoted; three points better: over 90 %."""
    chance = np.random.default_rng(42)
    names = ["background", *(f"garment {number}" for number in range(19))]
    frequency = np.r_[1, np.geomspace(0.8, 0.05, 19)]
    promoted = 0
    for _ in range(200):
        shown = chance.random((140, 20)) < frequency
        shown[:, 0] = True
        quality = np.clip(chance.normal(0.55, 0.2, shown.shape), 0.05, 0.95)  # how hard each is, for every model
        sizes = chance.lognormal(9, 0.7, shown.shape)
        sizes[:, 0] = 300_000
        quality[:, 0] = 0.97
        champion = simulated(chance, quality, shown, sizes, 0)
        promoted += decide(simulated(chance, quality, shown, sizes, gain), champion, names, RULES).promote
    assert least <= promoted <= most
