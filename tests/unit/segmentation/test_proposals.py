"""Which regions are shown: those that save time, by chances that travel with the model."""

import json
import math
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from pipelines.dataset.files import PROPOSALS
from pipelines.errors import ModelError
from pipelines.params import EffortParams
from pipelines.segmentation.model import ModelCard, load_model
from pipelines.segmentation.postprocess import only_regions
from pipelines.segmentation.proposals import (
    FEATURES,
    PROPOSALS_FILE,
    Chances,
    Logistic,
    Proposals,
    RegionDescription,
    Seconds,
    describe_regions,
    load_proposals,
)

SECONDS = Seconds(look=6, accept=1, correct=9, delete=1.5, draw=22)
COAT = RegionDescription("coat", 3, 0.9, (1.0, 2.0, -3.0, 0.5))


def always(chance: float) -> Logistic:
    return Logistic(math.log(chance / (1 - chance)), (0.0,) * len(FEATURES), {})


def proposals(accepted: float, correctable: float, saved: float = 12.5) -> Proposals:
    return Proposals(SECONDS, always(accepted), always(correctable), 100, 20, saved)


@pytest.fixture
def coat_and_dress(tiny_card: ModelCard) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of 16×8 pixels, their upper half coat at 0.9 and their lower half dress at 0.6, and their mask."""
    probabilities = np.zeros((3, 16, 8), np.float32)
    probabilities[:, :8] = np.array([0.08, 0.9, 0.02])[:, None, None]
    probabilities[:, 8:] = np.array([0.1, 0.3, 0.6])[:, None, None]
    return probabilities, tiny_card.index_of_channel[probabilities.argmax(axis=0)]


def test_a_region_is_described_by_what_the_network_says_of_it(
    coat_and_dress: tuple[np.ndarray, np.ndarray], tiny_card: ModelCard
) -> None:
    coat, dress = describe_regions(*coat_and_dress, tiny_card)

    def logit(chance: float) -> float:
        return math.log(chance / (1 - chance))

    assert ((coat.label, coat.label_id), (dress.label, dress.label_id)) == (("coat", 3), ("dress", 7))
    assert (coat.score, dress.score) == (pytest.approx(0.9), pytest.approx(0.6))
    # 64 pixels at 0.9 against these and 64 at 0.3 outside; and 24 edges against the 32 of a square of 64.
    wanted = (logit(0.9), logit(57.6 / (64 + 19.2)), math.log(0.5), math.log(32**2 / (16 * 64)))
    assert coat.features == pytest.approx(wanted, abs=1e-5)
    assert dict(zip(FEATURES, dress.features, strict=True))["overlap"] == pytest.approx(
        logit(38.4 / (64 + 1.28)), abs=1e-5
    )


def test_speckle_is_ragged_and_a_square_is_not(tiny_card: ModelCard) -> None:
    probabilities, square = np.full((3, 32, 32), 1 / 3, np.float32), np.zeros((32, 32), np.uint8)
    square[8:24, 8:24] = 3
    speckle = square.copy()
    speckle[8:24:2, 8:24:2] = 0
    place = FEATURES.index("raggedness")

    [of_square], [of_speckle] = (describe_regions(probabilities, mask, tiny_card) for mask in (square, speckle))

    assert of_square.features[place] == pytest.approx(0)
    assert of_speckle.features[place] > 1


@pytest.mark.parametrize("times", [1, 7])
def test_a_photo_of_any_size_gives_the_same_description(
    coat_and_dress: tuple[np.ndarray, np.ndarray], tiny_card: ModelCard, times: int
) -> None:
    probabilities, mask = coat_and_dress
    large = np.kron(mask, np.ones((times, times), np.uint8))

    assert describe_regions(probabilities, large, tiny_card) == describe_regions(probabilities, mask, tiny_card)


def test_a_region_that_the_networks_size_has_no_pixel_for_is_described_as_well(tiny_card: ModelCard) -> None:
    probabilities, mask = np.full((3, 8, 8), 0.25, np.float32), np.full((800, 800), 3, np.uint8)
    probabilities[1] = 0.5
    mask[401:404, 401:404] = 7

    coat, dress = describe_regions(probabilities, mask, tiny_card)

    assert (coat.score, dress.score) == (pytest.approx(0.5), pytest.approx(0.25))
    assert np.isfinite([coat.features, dress.features]).all()


def test_certain_and_empty_masks_have_finite_descriptions(tiny_card: ModelCard) -> None:
    certain = np.zeros((3, 8, 8), np.float32)
    certain[1] = 1

    [coat] = describe_regions(certain, np.full((8, 8), 3, np.uint8), tiny_card)

    assert np.isfinite(coat.features).all()
    assert describe_regions(certain, np.zeros((8, 8), np.uint8), tiny_card) == []


def test_chances_add_up_and_what_is_accepted_is_worth_correcting() -> None:
    assert proposals(0.2, 0.7).chances(COAT) == Chances(*(pytest.approx(chance) for chance in (0.2, 0.5, 0.3)))
    assert proposals(0.7, 0.2).chances(COAT) == Chances(*(pytest.approx(chance) for chance in (0.2, 0, 0.8)))


def test_a_logistic_model_adds_features_and_the_labels_own_intercept() -> None:
    model = Logistic(-1.0, (1.0, 0.5, 0.0, -2.0), {"coat": 0.5})
    logit = -1 + 1 + 1 - 1 + 0.5

    assert model.chance(COAT) == pytest.approx(1 / (1 + math.exp(-logit)))
    assert model.chance(replace(COAT, label="hat")) == pytest.approx(1 / (1 + math.exp(0.5 - logit)))


@pytest.mark.parametrize("logit", [-1e9, 1e9])
def test_chances_are_numbers_however_sure_a_model_is(logit: float) -> None:
    assert 0 <= Logistic(logit, (0.0,) * len(FEATURES), {}).chance(COAT) <= 1


def test_what_a_region_saves_is_what_people_are_expected_to_do_with_it() -> None:
    saving = proposals(0.2, 0.7).saving(Chances(0.2, 0.5, 0.3))

    assert saving == pytest.approx(0.2 * (22 - 1) + 0.5 * (22 - 9) - 0.3 * 1.5)


def test_a_region_is_shown_when_it_saves_time_and_not_otherwise() -> None:
    breaks_even = 1.5 / (22 - 9 + 1.5)  # chance of being worth correcting, when none is accepted

    assert proposals(1e-9, breaks_even + 0.01).pays(COAT)
    assert not proposals(1e-9, breaks_even - 0.01).pays(COAT)


@pytest.mark.parametrize("saved", [0.0, -0.1])
def test_nothing_is_shown_of_a_model_that_saved_nothing(saved: float) -> None:
    assert not proposals(0.5, 0.9, saved).pays(COAT)


def test_seconds_come_from_the_parameters() -> None:
    assert Seconds.from_params(EffortParams()) == SECONDS


def test_the_file_holds_everything() -> None:
    model = Logistic(-0.25, (1.0, 2.5, -0.5, 0.125), {"coat": 0.1, "other tops": -0.3})
    known = Proposals(SECONDS, model, replace(model, intercept=1.5), 321, 60, 12.25)

    assert Proposals.from_json(known.as_json()) == known


@pytest.mark.parametrize(
    "change",
    [{"seconds": {"look": 1}}, {"acceptable": None}, {"surprise": 1}, {"regions": "many"}, {"features": ["certainty"]}],
    ids=lambda change: next(iter(change)),
)
def test_a_file_with_wrong_fields_is_refused(change: dict[str, Any]) -> None:
    fields = json.loads(proposals(0.2, 0.7).as_json()) | change

    with pytest.raises(ModelError, match="download or train the model again"):
        Proposals.from_json(json.dumps(fields))


def test_numbers_that_are_not_finite_are_refused() -> None:
    text = json.dumps(json.loads(proposals(0.2, 0.7).as_json()) | {"seconds": {"look": 6, "draw": float("nan")}})

    with pytest.raises(ModelError):
        Proposals.from_json(text)


@pytest.fixture
def folder(model_that_sees_coats: Path, tmp_path: Path) -> Path:
    """A model folder whose network calls every pixel a coat, without knowing what that is worth."""
    return Path(copytree(model_that_sees_coats, tmp_path / "model"))


PHOTO = np.zeros((50, 40, 3), np.uint8)


def test_a_model_without_the_file_proposes_every_region(folder: Path) -> None:
    assert load_proposals(folder) is None
    assert [region.label for region in load_model(folder).predict(PHOTO).regions] == ["coat"]


def test_a_region_that_pays_is_proposed_with_its_chance_of_being_accepted(folder: Path) -> None:
    before = load_model(folder).predict(PHOTO)
    (folder / PROPOSALS_FILE).write_text(proposals(0.25, 0.75).as_json())

    prediction = load_model(folder).predict(PHOTO)

    [coat] = prediction.regions
    assert (coat.label, coat.label_id, coat.score) == ("coat", 3, pytest.approx(0.25))
    assert np.array_equal(prediction.mask, before.mask)
    assert prediction.score == before.score, "the queue goes on by how certain the network is"


def test_a_region_that_does_not_pay_is_not_proposed_and_the_photo_keeps_its_score(folder: Path) -> None:
    before = load_model(folder).predict(PHOTO)
    (folder / PROPOSALS_FILE).write_text(proposals(0.01, 0.02).as_json())
    model = load_model(folder)

    prediction = model.predict(PHOTO)

    assert (prediction.regions, prediction.mask.any(), prediction.score) == ((), False, before.score)
    assert (model.index_mask(PHOTO) == 3).all(), "what is judged is all that the network sees"


def test_only_the_regions_that_pay_stay_in_the_mask(
    coat_and_dress: tuple[np.ndarray, np.ndarray], tiny_card: ModelCard
) -> None:
    probabilities, mask = coat_and_dress
    never = Logistic(0.0, (0.0,) * len(FEATURES), {"dress": -9.0})

    shown = Proposals(SECONDS, never, never, 100, 20, 5.0).worth_showing(probabilities, mask, tiny_card)

    assert [region.label for region in shown] == ["coat"]
    assert np.array_equal(only_regions(mask, shown), np.where(mask == 3, mask, 0))


@pytest.mark.parametrize("text", ["", "[]", "{}", "\ufeffno"], ids=repr)
def test_a_damaged_file_is_named(folder: Path, text: str) -> None:
    (folder / PROPOSALS_FILE).write_text(text, encoding="utf-8")

    with pytest.raises(ModelError, match=rf"{PROPOSALS_FILE} cannot be loaded"):
        load_model(folder)


def test_a_file_of_other_features_is_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = replace(proposals(0.01, 0.02), features=(*FEATURES[:-1], "colour"))
    (folder / PROPOSALS_FILE).write_text(other.as_json())

    assert load_proposals(folder) is None
    assert "until the model is evaluated again" in caplog.text


def test_stages_and_services_mean_the_same_file() -> None:
    assert PROPOSALS.name == PROPOSALS_FILE
