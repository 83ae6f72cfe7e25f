"""Simulated rounds on drawn photos: sizes, orders, what people would take, and going on after an end."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.errors import ConfigurationError
from pipelines.exchange.masked_photos import MaskedPhotos, masked_photos
from pipelines.params import Params
from pipelines.segmentation.proposals import PROPOSALS_FILE
from pipelines.simulation import rounds
from pipelines.simulation.results import as_table, draw_curve, gains_table
from pipelines.simulation.rounds import Step, against_chance, as_curve, chosen_orders, for_simulation, simulate


@pytest.fixture
def photos(tmp_path: Path, two_labels: Params) -> MaskedPhotos:
    """Thirty photos of a red coat at different places, one of which is damaged, with their masks."""
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "labels.csv").write_text("index,label\n0,\n1,coat\n")
    random = np.random.default_rng(1)
    for number in range(30):
        mask = np.zeros((48, 40), np.uint8)
        top, left = random.integers(0, 24, 2)
        mask[top : top + 20, left : left + 14] = 1
        photo = np.full((48, 40, 3), 200, np.uint8) - random.integers(0, 90, (48, 40, 3), np.uint8)
        photo[mask > 0] = (20, 20, 220)  # BGR
        cv2.imwrite(str(tmp_path / "photos" / f"{number:02d}.png"), photo)
        cv2.imwrite(str(tmp_path / "masks" / f"{number:02d}.png"), mask)
    damaged = tmp_path / "photos" / "07.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    return masked_photos(tmp_path / "photos", tmp_path / "masks", tmp_path / "labels.csv", two_labels)


@pytest.fixture
def small(two_labels: Params) -> Params:
    fields = {"encoder_weights": "none", "image_height": 32, "image_width": 32, "batch_size": 2}
    return two_labels.model_copy(update={"train": two_labels.train.model_copy(update=fields)})


def test_all_orders_start_alike_and_label_what_is_asked(
    photos: MaskedPhotos,
    small: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps = list(simulate(photos, small, tmp_path / "out", [2, 5], [0], steps=2))

    assert [(step.order, step.seed, len(step.labelled)) for step in steps] == [
        (order, 0, size) for order in ("chance", "uncertainty") for size in (2, 5)
    ]
    assert steps[0].labelled == steps[2].labelled
    assert steps[0].miou == steps[2].miou
    assert all(len(set(step.labelled)) == len(step.labelled) for step in steps)
    assert steps[1].labelled[:2] == steps[0].labelled
    assert steps[0].saved_share == 0  # nothing was proposed for the first batch
    assert "07.png is left out" in caplog.text

    monkeypatch.setattr(rounds, "train", lambda *_: pytest.fail("what was done is done"))
    assert list(simulate(photos, small, tmp_path / "out", [2, 5], [0], steps=2)) == steps

    curve = as_curve(steps)
    assert list(zip(curve["order"], curve["photos"], strict=True)) == [
        ("chance", 2), ("chance", 5), ("uncertainty", 2), ("uncertainty", 5)
    ]  # fmt: skip
    assert as_table(curve).row_count == 4
    [gain] = against_chance(steps)[lambda rows: rows["photos"] == 5].to_dict("records")
    assert gain["seconds"] == steps[3].seconds_per_photo - steps[1].seconds_per_photo
    assert np.isnan(gain["seconds_low"]), "one seed proves nothing"
    assert gains_table(against_chance(steps)).row_count == 2
    assert all(step.seconds <= step.by_hand for step in steps), "masks of such models do not pay, and none is shown"
    assert len(list((tmp_path / "out").rglob(PROPOSALS_FILE))) == 3, "each model's folder says what pays"
    draw_curve(curve, tmp_path / "curve.png")
    assert cv2.imread(str(tmp_path / "curve.png")) is not None


def test_more_photos_than_there_are_is_said(photos: MaskedPhotos, small: Params, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="photos are in the train split"):
        list(simulate(photos, small, tmp_path / "out", [500], [0], steps=1))


def test_orders_are_compared_in_pairs_of_a_seed_each() -> None:
    def step(order: str, seed: int, seconds: float) -> Step:
        return Step(order, seed, ("a", "b"), 2, 0.1 * seed, 2 * seconds, 200)

    easy, hard = 10.0, 90.0  # batches of two seeds
    steps = [
        step("chance", 1, easy), step("chance", 2, hard),
        step("uncertainty", 1, easy - 2), step("uncertainty", 2, hard - 1),
    ]  # fmt: skip

    [gain] = against_chance(steps).to_dict("records")

    assert (gain["seconds"], gain["miou"], gain["seeds"]) == (-1.5, 0, 2)
    assert gain["seconds_low"] == pytest.approx(-1.5 - 12.706 * 0.5, abs=0.01), "Student's t with one degree of freedom"
    assert gain["seconds_high"] == pytest.approx(-1.5 + 12.706 * 0.5, abs=0.01)


def test_trainings_are_small_whatever_the_number_of_photos_unless_encoders_are_to_learn(params: Params) -> None:
    small = for_simulation(params, 0, 0, 120, learning=False).train
    assert (small.image_height, small.image_width) == (params.train.image_height, params.train.image_width)
    options = small.for_photos(100_000)
    assert (options.frozen_stride, options.architecture, options.min_steps) == (32, params.train.few.architecture, 120)
    large = for_simulation(params, 96, 64, 120, learning=True).train
    assert (large.image_height, large.image_width) == (96, 64)
    assert large.for_photos(2) == large


def test_chance_is_always_compared_with_and_orders_are_known() -> None:
    assert chosen_orders("") == ("chance",)
    assert chosen_orders("uncertainty, chance") == ("chance", "uncertainty")
    with pytest.raises(ConfigurationError, match="no order 'newest'; choose among chance, uncertainty"):
        chosen_orders("newest")
