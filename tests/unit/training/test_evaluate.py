"""Evaluation at the photos' own size, over the labels that are in force."""

import json
import logging
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import MANIFEST, METRICS, MODEL, PROPOSALS, REPORT
from pipelines.dataset.records import encode_mask
from pipelines.params import IGNORE, Params
from pipelines.segmentation.model import ClothingModel, load_model
from pipelines.segmentation.proposals import Proposals
from pipelines.training import evaluate as stage
from pipelines.training.evaluate import evaluate, evaluate_model

HERE = Dataset(Path())
Sides = dict[str, list[str]]


@pytest.fixture
def coats_everywhere(model_that_sees_coats: Path) -> ClothingModel:
    return load_model(model_that_sees_coats)


def coat_share(sha256: str) -> float:
    return float(((HERE.read_image(sha256), HERE.read_mask(sha256))[1] == 3).mean())


def test_every_pixel_of_the_photos_counts(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    found = evaluate_model(coats_everywhere, HERE, workspace["test"], {"coat": 3, "dress": 7})

    confusion = found.confusion
    assert confusion.matrix.sum() == found.certainty[..., 0].sum() == 3 * 48 * 40
    assert found.certainty[..., 2].sum() == np.diag(confusion.matrix).sum()
    assert found.garment_certainty[..., 0].sum() == found.certainty[..., 0].sum(), "every pixel is called a coat"
    assert confusion.matrix[:, [0, 2]].sum() == 0
    assert confusion.photos.tolist()[:2] == [3, 3]
    assert found.photos == tuple(workspace["test"])


def test_photos_are_scored_one_by_one(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    found = evaluate_model(coats_everywhere, HERE, workspace["test"], {"coat": 3, "dress": 7})

    for sha256, miou in found.miou_of_photo.items():
        classes = len({0, 3} | set((HERE.read_image(sha256), HERE.read_mask(sha256))[1].ravel()))
        assert miou == pytest.approx(coat_share(sha256) / classes)


def test_families_are_those_of_the_manifest_unless_others_are_given(
    workspace: Sides, coats_everywhere: ClothingModel
) -> None:
    table = pd.read_parquet(MANIFEST)
    table.assign(family=["show"] * len(table)).to_parquet(MANIFEST)
    photos, labels = workspace["test"], {"coat": 3, "dress": 7}

    assert evaluate_model(coats_everywhere, HERE, photos, labels).families == ("show",) * 3
    assert evaluate_model(coats_everywhere, HERE, photos, labels, families=list("abb")).families == ("a", "b", "b")


def test_ignored_pixels_are_left_out_of_everything(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    """What was a mistake is nothing any more once nobody can name it."""
    for sha256 in workspace["test"]:
        mask = np.where((HERE.read_image(sha256), HERE.read_mask(sha256))[1] == 3, 3, IGNORE).astype(np.uint8)
        HERE.masks.write_shard(sha256[:2], HERE.masks.read_shard(sha256[:2]) | {sha256: encode_mask(mask)})

    found = evaluate_model(coats_everywhere, HERE, workspace["test"], {"coat": 3, "dress": 7})

    judged = found.confusion.matrix
    assert judged.sum() == judged[1, 1] == found.certainty[..., 0].sum() == found.garment_certainty[..., 2].sum()
    assert found.confusion.miou() == 1
    assert found.edges.sum() == 0, "no outline runs along what is unknown"
    assert found.regions["iou"].tolist() == [1, 1, 1]


def test_a_model_is_judged_on_no_photo_as_well(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    found = evaluate_model(coats_everywhere, HERE, [], {"coat": 3, "dress": 7})

    assert (found.photos, found.confusions.shape, found.agreement) == ((), (0, 3, 3), 1)
    assert "iou" in found.regions.columns


def test_regions_are_described_with_their_iou(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    found = evaluate_model(coats_everywhere, HERE, workspace["test"], {"coat": 3, "dress": 7})

    assert found.regions["photo"].tolist() == workspace["test"]
    assert set(found.regions["label"]) == {"coat"}
    np.testing.assert_allclose(found.regions["iou"], [coat_share(sha256) for sha256 in workspace["test"]])


def test_the_precision_it_is_served_in_is_compared_pixel_by_pixel(
    workspace: Sides, coats_everywhere: ClothingModel
) -> None:
    def coarse(batch: np.ndarray) -> np.ndarray:
        chances = np.zeros((1, 3, 32, 32), np.float32)
        chances[:, 1], chances[:, 2, :8] = 0.6, 0.9  # in its upper quarter it says dress
        return chances

    other = ClothingModel(coarse, coats_everywhere.card)
    labels = {"coat": 3, "dress": 7}

    assert evaluate_model(coats_everywhere, HERE, workspace["test"], labels).agreement == 1
    assert evaluate_model(coats_everywhere, HERE, workspace["test"], labels, served=coats_everywhere).agreement == 1
    agreement = evaluate_model(coats_everywhere, HERE, workspace["test"], labels, served=other).agreement
    assert agreement == pytest.approx(0.75, abs=0.03)


def test_a_label_that_the_model_lacks_counts_as_missed(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    confusion = evaluate_model(coats_everywhere, HERE, workspace["test"], {"dress": 7, "hat": 9}).confusion

    assert confusion.matrix[:, 0].sum() == confusion.matrix.sum(), "coats are background to these labels"
    assert confusion.iou()[1] == 0


def test_the_stage_leaves_figures_and_pictures(
    workspace: Sides, model_that_sees_coats: Path, two_labels: Params
) -> None:
    copytree(model_that_sees_coats, MODEL)
    REPORT.mkdir()
    (REPORT / "of-the-run-before.jpg").touch()

    evaluate(HERE, two_labels)

    figures = json.loads(METRICS.read_text())
    assert (figures["photos"], figures["clean_photos"], figures["families"]) == (3, 3, 3)
    assert set(figures["per_class"]) == {"background", "coat", "dress"}
    assert figures["per_class"]["background"]["iou"] == 0
    names = sorted(path.name.split("-miou")[0] for path in REPORT.iterdir())
    overlays = ["overlay-00", "overlay-01", "overlay-02"]
    assert names == ["calibration.png", "classes.csv", "confusion.png", *overlays, "slices.csv"]
    classes = pd.read_csv(REPORT / "classes.csv", index_col="label")
    assert list(classes.index) == ["background", "coat", "dress"]
    assert classes.loc["coat", "iou"] == figures["per_class"]["coat"]["iou"]
    assert figures["miou_low"] <= figures["miou"] <= figures["miou_high"]
    assert figures["served_agreement"] == 1
    assert figures["seconds_saved_low"] <= figures["seconds_saved"] <= figures["seconds_saved_high"]
    assert 0 <= figures["acceptance_error"] <= 1
    assert all(isinstance(value, int | float) for name, value in figures.items() if name != "per_class")


def test_the_stage_fits_which_regions_are_shown(
    workspace: Sides, model_that_sees_coats: Path, two_labels: Params
) -> None:
    copytree(model_that_sees_coats, MODEL)

    evaluate(HERE, two_labels)

    proposals = Proposals.from_json(PROPOSALS.read_text(encoding="utf-8"))
    assert (proposals.regions, proposals.photos) == (5, 5), "of the test side and of the validation side"


def mark_blind(blind: list[str]) -> None:
    table = pd.read_parquet(MANIFEST)
    table.assign(blind=table["sha256"].isin(blind)).to_parquet(MANIFEST)


def test_only_photos_that_no_model_drew_on_are_judged(
    workspace: Sides, model_that_sees_coats: Path, two_labels: Params
) -> None:
    copytree(model_that_sees_coats, MODEL)
    mark_blind(workspace["test"][:2])

    evaluate(HERE, two_labels)

    figures = json.loads(METRICS.read_text())
    assert (figures["photos"], figures["clean_photos"]) == (2, 2)
    assert len(list(REPORT.glob("overlay-*.jpg"))) == 2
    assert "seconds_saved_low" not in figures, "two families are no reason for an interval"


def test_without_such_photos_it_says_so_and_takes_all(
    workspace: Sides, model_that_sees_coats: Path, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    copytree(model_that_sees_coats, MODEL)
    mark_blind([])

    with caplog.at_level(logging.WARNING):
        evaluate(HERE, two_labels)

    figures = json.loads(METRICS.read_text())
    assert (figures["photos"], figures["clean_photos"]) == (3, 0)
    assert "models drew parts of the masks of all 3 test photos" in caplog.text


@pytest.mark.parametrize("other_precision", [False, True])
def test_figures_are_computed_in_32_bits(
    workspace: Sides, model_that_sees_coats: Path, two_labels: Params, monkeypatch: pytest.MonkeyPatch,
    other_precision: bool,
) -> None:  # fmt: skip
    copytree(model_that_sees_coats, MODEL)
    asked: list[bool] = []

    def load(folder: Path, *, reduced_precision: bool, **options: Any) -> ClothingModel:
        asked.append(reduced_precision)
        return load_model(folder, reduced_precision=False, **options)

    monkeypatch.setattr(stage, "load_model", load)
    monkeypatch.setattr(stage, "multiplies_bfloat16", lambda: other_precision)

    evaluate(HERE, two_labels)

    assert asked == ([False, True] if other_precision else [False])


def test_figures_are_given_by_catalogue_data(workspace: Sides, model_that_sees_coats: Path, two_labels: Params) -> None:
    copytree(model_that_sees_coats, MODEL)
    table = pd.read_parquet(MANIFEST)
    table["meta_season"] = ["fall" if number % 2 else None for number in range(len(table))]
    table.to_parquet(MANIFEST)

    evaluate(HERE, two_labels)

    slices = pd.read_csv(REPORT / "slices.csv")
    assert set(slices["value"]) == {"fall", "–"}
    assert slices["photos"].sum() == 3
    assert set(slices["slice"]) == {"season"}, "columns that the catalogue lacks are left out"
    np.testing.assert_allclose(slices["miou"] - slices["reference"], slices["difference"], atol=2e-4)
