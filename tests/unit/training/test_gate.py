"""The gate: who becomes champion, the reason people read, and how often it errs."""

import itertools
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

from benchmarks._answers import DrawnTestSplit
from benchmarks._answers import evaluation_of as evaluation_of_families
from benchmarks.gate import anchoring, gate_of, masks_of, share_of_histories, share_promoted, usual_gate
from pipelines.params import Params, PromoteParams, load_params
from pipelines.settings import PROJECT_ROOT
from pipelines.training.confusion import pixels_of
from pipelines.training.decision import Decision, Steps
from pipelines.training.floor import Floor
from pipelines.training.gate import decide as decide_in
from pipelines.training.gate import known_to
from pipelines.training.metrics import Evaluation, gain_of_pixels
from pipelines.training.significance import Comparison, level_of_look

NAMES = ["background", "coat", "dress", "hat"]
RULES = PromoteParams(min_gain=0.0, confidence=0.975, max_class_drop=0.1, min_class_photos=5)
SAVES = Floor(12.0, 4.0, 20.0, 6.0)
decide = partial(decide_in, names=NAMES, params=RULES, floor=SAVES)


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(PROJECT_ROOT / "params.yaml")


def evaluation_of(confusions: np.ndarray) -> Evaluation:
    """Each photo is a family."""
    return evaluation_of_families(confusions, [f"show {number}" for number in range(len(confusions))])


def measured(*iou: float, photos: tuple[int, ...] = (10, 10, 10, 10)) -> Evaluation:
    """A result with these IoUs on every photo, background first; a class is on as many photos as `photos` says.

    Of 1000 pixels per class the missed ones went to a class of junk.
    """
    confusions = np.zeros((max(photos), len(NAMES) + 1, len(NAMES) + 1), np.int64)
    for channel, share in enumerate(iou):
        confusions[: photos[channel], channel, channel] = round(1000 * share)
        confusions[: photos[channel], channel, -1] = 1000 - round(1000 * share)
    return evaluation_of(confusions)


def with_junk() -> list[str]:
    return [*NAMES, "junk"]


def judge(challenger: Evaluation, champion: Evaluation | None, **options: object) -> Decision:
    return decide(challenger, champion, **{"names": with_junk(), **options})


def test_the_metrics_of_these_tests_are_what_they_say() -> None:
    np.testing.assert_allclose(measured(0.9, 0.6, 0.5).confusion.iou()[:3], [0.9, 0.6, 0.5])


def test_a_better_model_becomes_champion() -> None:
    decision = judge(measured(0.9, 0.7), measured(0.9, 0.6))

    assert decision.promote
    better = "better: test mIoU 0.800 against the champion's 0.750"
    assert decision.reason == f"{better}; not measured (under 5 photos): dress, hat, junk"
    assert (decision.photos, decision.families, decision.looks, decision.alpha) == (10, 10, 0, pytest.approx(0.025))
    assert decision.p == 2**-10, "every family swapping models would be needed to undo it"


@pytest.mark.parametrize("iou", [0.6, 0.5])
def test_an_equal_or_worse_model_does_not(iou: float) -> None:
    decision = judge(measured(0.9, iou), measured(0.9, 0.6))

    assert not decision.promote
    assert decision.reason.startswith("no gain: ")
    assert decision.challenger_miou == pytest.approx((0.9 + iou) / 2)
    assert decision.champion_miou == pytest.approx(0.75)


@pytest.mark.parametrize(("min_gain", "promoted"), [(0.04, True), (0.06, False)])
def test_the_gain_must_exceed_the_margin(min_gain: float, promoted: bool) -> None:
    rules = RULES.model_copy(update={"min_gain": min_gain})

    assert judge(measured(0.9, 0.7), measured(0.9, 0.6), params=rules).promote is promoted


def test_a_class_that_fell_stops_a_better_model_and_is_named() -> None:
    decision = judge(measured(0.95, 0.95, 0.45), measured(0.7, 0.7, 0.6))

    assert not decision.promote
    assert "but IoU fell by more than 0.1: dress −0.15" in decision.reason
    assert "coat" not in decision.reason


def test_a_small_drop_is_accepted() -> None:
    assert judge(measured(0.95, 0.95, 0.51), measured(0.7, 0.7, 0.6)).promote


@pytest.mark.parametrize(("spread", "verdict"), [(0.05, "fell"), (0.25, "kept")])
def test_a_drop_that_chance_could_make_is_none(spread: float, verdict: str) -> None:
    """Dresses lose 0.15 on average: on all photos alike, or a lot on some and nothing on others."""
    champion = measured(0.7, 0.7, 0.6).confusions
    challenger = measured(0.95, 0.95, 0.45).confusions
    shift = (1000 * spread * np.where(np.arange(10) % 2, 1, -1)).astype(int)
    challenger[:, 2, 2] += shift
    challenger[:, 2, -1] -= shift

    decision = judge(evaluation_of(challenger), evaluation_of(champion))

    assert decision.classes[2].verdict == verdict
    assert decision.promote is (verdict == "kept")


def test_a_class_on_few_photos_is_named_and_stops_nothing() -> None:
    photos = (10, 10, 10, 2)

    decision = judge(measured(0.95, 0.95, 0.95, 0.1, photos=photos), measured(0.5, 0.5, 0.5, 0.2, photos=photos))

    assert decision.promote
    assert decision.reason.endswith("; not measured (under 5 photos): hat, junk")


def test_a_class_that_no_test_photo_has_is_named_as_not_measured() -> None:
    decision = judge(measured(0.9, 0.7), measured(0.9, 0.6))

    assert decision.promote
    assert "| hat | 0 | – | – | – | – | not measured |" in decision.as_markdown()


def test_what_chance_could_do_is_no_gain() -> None:
    half = measured(0.9, 0.5).confusions
    luck = half.copy()
    luck[0] = measured(0.9, 0.9).confusions[0]  # better on one photo of ten

    decision = judge(evaluation_of(luck), evaluation_of(half))

    assert not decision.promote
    assert decision.reason.startswith("not beyond chance: test mIoU 0.720 against the champion's 0.700 (p = 0.5, at mo")
    assert decision.gain is not None and decision.detectable_gain is not None
    assert decision.gain[1] < 0 < decision.gain[0] < decision.gain[2]
    assert decision.gain[0] < decision.detectable_gain


def test_other_photos_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="different photos"):
        judge(measured(0.9, 0.5), measured(0.9, 0.5, photos=(9, 9, 9, 9)))


def test_the_table_shows_what_was_weighed() -> None:
    photos = (10, 10, 10, 2)
    decision = judge(
        measured(0.95, 0.95, 0.45, 0.4, photos=photos), measured(0.7, 0.7, 0.6, 0.5, photos=photos), looks=2,
        anchored=12, seen=2, steps=Steps(160, 160),
    )  # fmt: skip
    table = decision.as_markdown()

    assert table.startswith("**Not promoted**: test mIoU")
    assert "| dress | 10 | 0.600 | 0.450 | -0.150 | -0.150 … -0.150 | fell |" in table
    assert "| hat | 2 | 0.500 | 0.400 | -0.100 | – | not measured |" in table
    assert "| coat | 10 | 0.700 | 0.950 | +0.250 | +0.250 … +0.250 | rose |" in table
    assert "10 of 10 families; 12 left out because a model drew part of them; 2 left out because one of the" in table
    assert "| earlier looks at this test split | 2 |" in table
    assert "its masks save 12.0 s per photo (90% sure of +6.0 s): enough" in table
    assert "160 of 160 steps" in table


def test_all_of_it_becomes_json() -> None:
    decision = judge(measured(0.9, 0.7), measured(0.9, 0.6), steps=Steps(160, 160))

    stored = json.loads(decision.as_json())

    assert stored["promote"] is True
    assert stored["gain"][0] == pytest.approx(0.05)
    assert stored["floor"]["seconds"] == 12
    assert stored["steps"] == {"done": 160, "planned": 160, "ended_by": "schedule"}
    assert stored["classes"][3] == {
        "name": "hat", "photos": 0, "challenger_iou": None, "champion_iou": None, "verdict": "not measured",
        "low": None, "high": None,
    }  # fmt: skip


def test_a_first_model_that_saves_time_becomes_champion() -> None:
    decision = judge(measured(0.5, 0.1), None)

    assert (decision.promote, decision.champion_miou, decision.p) == (True, None, None)
    assert decision.reason == "first model: test mIoU 0.200; its masks save 12.0 s per photo (90% sure of +6.0 s)"
    assert json.loads(decision.as_json())["gain"] is None


@pytest.mark.parametrize("champion", [None, measured(0.9, 0.5)])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"floor": Floor(-3.0)}, "its masks cost 3.0 s per photo"),
        ({"floor": Floor(3.0, -4.0, 9.0, -1.0)}, "its masks save 3.0 s per photo (90% sure of -1.0 s)"),
        ({"floor": None}, "the time that its masks save is not known"),
        ({"agreement": 0.828}, "as served it agrees with 32 bits on 82.8% of the pixels only"),
        ({"steps": Steps(6, 160, "minutes"), "number": 3}, "cut short after 6 of 160 steps; `maskloop promote 3`"),
    ],
)
def test_nothing_is_promoted_whatever_it_gains(
    champion: Evaluation | None, options: dict[str, object], reason: str
) -> None:
    challenger = measured(0.9, 0.8)
    assert judge(challenger, champion).promote

    decision = judge(challenger, champion, **options)

    assert not decision.promote
    assert reason in decision.reason


def test_a_training_that_its_validation_ended_is_whole() -> None:
    assert judge(measured(0.9, 0.8), None, steps=Steps(90, 160, "patience")).promote
    assert Steps.from_json({"done_steps": 6, "planned_steps": 160, "ended_by": "minutes"}).cut_short


def test_without_photos_nothing_is_known() -> None:
    nothing = measured(0.9, 0.8).on([])

    for champion in (None, nothing):
        decision = judge(nothing, champion)
        assert not decision.promote
        assert "no test photo is left" in decision.reason
        assert "–" in decision.as_markdown() or champion is None


def test_a_label_that_the_champion_cannot_know_is_no_gain() -> None:
    """The challenger finds hats, of which the champion never heard: that is worth having, and no proof of skill."""
    champion, challenger = measured(0.9, 0.6, 0.6, 0.0), measured(0.9, 0.6, 0.6, 0.8)

    assert judge(challenger, champion).promote
    decision = judge(challenger, champion, known={"coat", "dress"})

    assert decision.gain is not None
    assert (decision.promote, decision.gain[0]) == (False, 0)
    assert decision.reason.startswith("no gain: ")
    assert "not compared (one of the models cannot know them): hat" in decision.reason
    assert decision.classes[3].verdict == "not compared"


def test_pixels_of_a_label_that_one_model_cannot_know_count_for_nothing() -> None:
    """The champion calls hats coats; whether that is wrong cannot be asked of it."""
    champion, challenger = measured(0.9, 0.6, 0.6, 0.8).confusions, measured(0.9, 0.6, 0.6, 0.8)
    champion[:, 3, 1], champion[:, 3, 3] = champion[:, 3, 3], 0

    decision = judge(challenger, evaluation_of(champion), known={"coat", "dress"})

    assert decision.gain == (0, 0, 0)
    assert decision.classes[1].champion_iou == pytest.approx(0.6)


def test_labels_are_known_by_their_pixel_values() -> None:
    renamed, older = {"trousers": 1, "coat": 3, "hat": 5}, {"pants": 1, "coat": 3}

    assert known_to([renamed, older], {"trousers": 1, "coat": 3, "hat": 5, "scarf": 6}) == {"trousers", "coat"}


def test_few_families_are_said_to_be_few() -> None:
    half, luck = measured(0.9, 0.5).confusions, measured(0.9, 0.5).confusions
    luck[0] = measured(0.9, 0.9).confusions[0]
    families = [str(number // 4) for number in range(10)]

    decision = judge(evaluation_of_families(luck, families), evaluation_of_families(half, families))

    assert decision.families == 3
    assert "not known with 3 families (needs 6); here all must agree on a large gain" in decision.reason
    assert decision.detectable_gain == np.inf


def test_when_all_errors_are_spent_nothing_is_promoted() -> None:
    rules = RULES.model_copy(update={"total_error": 0.025})

    assert judge(measured(0.9, 0.7), measured(0.9, 0.6), params=rules).promote, "the first look may have all of it"
    decision = judge(measured(0.9, 0.7), measured(0.9, 0.6), params=rules, looks=1)

    assert not decision.promote
    assert "none: promote.total_error is spent on this test split" in decision.reason


@pytest.mark.parametrize(("confidence", "total_error"), [(0.975, 0.05), (0.99, 0.05), (0.9, 0.3)])
def test_levels_of_all_looks_add_up_to_the_total_error(confidence: float, total_error: float) -> None:
    rules = RULES.model_copy(update={"confidence": confidence, "total_error": total_error})

    levels = [level_of_look(looks, rules) for looks in range(200)]

    assert levels[0] == pytest.approx(1 - confidence)
    assert all(later < earlier for earlier, later in itertools.pairwise(levels[1:]))
    assert sum(levels) == pytest.approx(total_error)


def test_the_swap_test_is_that_of_scipy() -> None:
    drawn = DrawnTestSplit(30, 8, seed=3)
    comparison = Comparison.of(drawn.answers(0.4), drawn.answers(), np.ones(20, bool))

    def gain(swapped: np.ndarray, axis: int) -> np.ndarray:
        """Return the gain when each family's models come from either of the two lists."""
        signs = np.moveaxis(swapped, axis, -1)
        challenger = np.where(signs[..., None, None] > 0, comparison.challenger, comparison.champion).sum(-3)
        champion = np.where(signs[..., None, None] > 0, comparison.champion, comparison.challenger).sum(-3)
        return gain_of_pixels(challenger, champion)

    expected = stats.permutation_test(
        (np.ones(8),), gain, permutation_type="samples", alternative="greater", n_resamples=np.inf, axis=-1
    )

    assert comparison.swap_p() == pytest.approx(expected.pvalue)
    assert comparison.gain() == pytest.approx(expected.statistic)


def test_random_swaps_come_near_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = DrawnTestSplit(40, 11, seed=5)
    comparison = Comparison.of(drawn.answers(0.2), drawn.answers(), np.ones(20, bool))
    exact = comparison.swap_p()
    monkeypatch.setattr("pipelines.training.significance._MOST_EXACT", 5)

    assert comparison.swap_p(level=0.999) == pytest.approx(exact, abs=0.02)


def test_shares_of_families_add_up_to_the_gain_and_change_signs_with_the_models() -> None:
    drawn = DrawnTestSplit(30, 6, seed=4)
    better, other = drawn.answers(0.1), drawn.answers()
    comparison, back = (Comparison.of(*pair, np.ones(20, bool)) for pair in ((better, other), (other, better)))

    assert comparison.shares().sum() == pytest.approx(comparison.gain(), rel=0.15), "to first order"
    np.testing.assert_allclose(comparison.shares(), -back.shares())
    expected = stats.ttest_1samp(comparison.shares(), 0, alternative="greater")
    assert comparison.share_p() == pytest.approx(expected.pvalue)


def test_the_interval_is_the_jackknife_of_families() -> None:
    drawn = DrawnTestSplit(40, 9, seed=6)
    challenger, champion = drawn.answers(0.3), drawn.answers()
    comparison = Comparison.of(challenger, champion, np.ones(20, bool))
    left_out = []
    for family in set(challenger.families):
        rest = [name for name, of in zip(challenger.photos, challenger.families, strict=True) if of != family]
        pixels = (pixels_of(evaluation.on(rest).confusion.matrix) for evaluation in (challenger, champion))
        left_out.append(float(gain_of_pixels(*pixels)))
    error = np.sqrt(8 / 9 * np.sum((np.array(left_out) - comparison.gain()) ** 2))

    low, high = comparison.gain_interval()

    assert comparison.standard_error() == pytest.approx(error)
    assert high - comparison.gain() == pytest.approx(stats.t.ppf(0.975, 8) * error)
    assert comparison.gain() - low == pytest.approx(high - comparison.gain())


def test_one_family_proves_nothing() -> None:
    challenger, champion = (replace(measured(0.9, iou), families=("show",) * 10) for iou in (0.9, 0.3))

    decision = judge(challenger, champion)

    assert (decision.promote, decision.p) == (False, 1)
    assert decision.detectable_gain == np.inf
    assert "gains detected four times in five: not known with 1 family (needs 6)" in decision.reason


@pytest.mark.parametrize(("photos", "families"), [(12, 3), (30, 5), (30, 10)])
def test_equal_models_are_promoted_as_rarely_as_the_level_says(params: Params, photos: int, families: int) -> None:
    """One in forty at most; resamples of photos, which are no independent evidence, promote several times as many."""
    trials = 150

    promoted = share_promoted(photos, families, 0, gate_of(params), trials)

    assert promoted <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / trials)
    assert share_promoted(photos, families, 0, usual_gate, 40) > 0.06


def test_twenty_looks_at_one_test_split_seldom_promote_an_equal_model(params: Params) -> None:
    histories = 25

    promoted = share_of_histories(30, 10, gate_of(params), 20, histories)

    assert promoted <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / histories)
    assert share_of_histories(30, 10, usual_gate, 20, 15) > 0.2


def test_a_better_model_is_found_where_the_test_split_can_detect_it(params: Params) -> None:
    splits = [DrawnTestSplit(60, 15, seed, own=0.1) for seed in range(60)]
    decisions = [
        decide_in(drawn.answers(0.35), drawn.answers(), [f"class {n}" for n in range(20)], params.promote, floor=SAVES)
        for drawn in splits
    ]
    detectable = np.median([decision.detectable_gain for decision in decisions])
    gains = [decision.gain[0] for decision in decisions if decision.gain]

    assert np.mean(gains) > detectable, "the case is one that this test split can detect"
    assert np.mean([decision.promote for decision in decisions]) > 0.8


def test_truth_that_the_champion_drew_hides_a_better_model(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """On masks that people drew by themselves it is found; where they were shown the champion's it looks worse."""
    monkeypatch.setattr("benchmarks.gate._TEST_PHOTOS", 40)
    _, masks = masks_of(params, 44)

    blind, anchored, _, _ = anchoring(masks, 6, params, 8)
    equal, _, _, _ = anchoring(masks, 0, params, 8)

    assert blind >= 0.85
    assert anchored == 0
    assert equal <= 1 / 8
