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

Splits = dict[str, list[str]]


@pytest.fixture(scope="module")
def coats_everywhere(model_that_sees_coats: Path) -> ClothingModel:
    return load_model(model_that_sees_coats)


def coat_share(dataset: Dataset, sha256: str) -> float:
    return float((dataset.read_mask(sha256) == 3).mean())


def test_every_pixel_of_the_photos_counts(dataset: Dataset, splits: Splits, coats_everywhere: ClothingModel) -> None:
    evaluation = evaluate_model(coats_everywhere, dataset, splits["test"], {"coat": 3, "dress": 7})

    confusion = evaluation.confusion
    assert confusion.matrix.sum() == evaluation.confidence_bins[..., 0].sum() == 3 * 48 * 40
    assert evaluation.confidence_bins[..., 2].sum() == np.diag(confusion.matrix).sum()
    assert evaluation.garment_confidence_bins[..., 0].sum() == evaluation.confidence_bins[..., 0].sum(), (
        "every pixel is called a coat"
    )
    assert confusion.matrix[:, [0, 2]].sum() == 0
    assert confusion.photos.tolist()[:2] == [3, 3]
    assert evaluation.photos == tuple(splits["test"])


def test_photos_are_scored_one_by_one(dataset: Dataset, splits: Splits, coats_everywhere: ClothingModel) -> None:
    evaluation = evaluate_model(coats_everywhere, dataset, splits["test"], {"coat": 3, "dress": 7})

    for sha256, miou in evaluation.miou_of_photo.items():
        classes = len({0, 3} | set(dataset.read_mask(sha256).ravel()))
        assert miou == pytest.approx(coat_share(dataset, sha256) / classes)


def test_families_are_those_of_the_manifest_unless_others_are_given(
    dataset: Dataset, splits: Splits, coats_everywhere: ClothingModel
) -> None:
    table = dataset.manifest()
    dataset.write_table(MANIFEST, table.assign(family=["show"] * len(table)))
    photos, labels = splits["test"], {"coat": 3, "dress": 7}

    assert evaluate_model(coats_everywhere, dataset, photos, labels).families == ("show",) * 3
    assert evaluate_model(coats_everywhere, dataset, photos, labels, families=list("abb")).families == ("a", "b", "b")


def test_ignored_pixels_are_left_out_of_everything(
    dataset: Dataset, splits: Splits, coats_everywhere: ClothingModel
) -> None:
    """What was a mistake is nothing any more once nobody can name it."""
    for sha256 in splits["test"]:
        mask = np.where(dataset.read_mask(sha256) == 3, 3, IGNORE).astype(np.uint8)
        dataset.masks.write_shard(sha256[:2], dataset.masks.read_shard(sha256[:2]) | {sha256: encode_mask(mask)})

    evaluation = evaluate_model(coats_everywhere, dataset, splits["test"], {"coat": 3, "dress": 7})

    judged = evaluation.confusion.matrix
    assert (
        judged.sum()
        == judged[1, 1]
        == evaluation.confidence_bins[..., 0].sum()
        == evaluation.garment_confidence_bins[..., 2].sum()
    )
    assert evaluation.confusion.miou() == 1
    assert evaluation.edges.sum() == 0, "no outline runs along what is unknown"
    assert evaluation.regions["iou"].tolist() == [1, 1, 1]


def test_a_model_is_judged_on_no_photo_as_well(dataset: Dataset, coats_everywhere: ClothingModel) -> None:
    evaluation = evaluate_model(coats_everywhere, dataset, [], {"coat": 3, "dress": 7})

    assert (evaluation.photos, evaluation.confusions.shape, evaluation.agreement) == ((), (0, 3, 3), 1)
    assert "iou" in evaluation.regions.columns


def test_regions_are_described_with_their_iou(
    dataset: Dataset, splits: Splits, coats_everywhere: ClothingModel
) -> None:
    evaluation = evaluate_model(coats_everywhere, dataset, splits["test"], {"coat": 3, "dress": 7})

    assert evaluation.regions["photo"].tolist() == splits["test"]
    assert set(evaluation.regions["label"]) == {"coat"}
    np.testing.assert_allclose(evaluation.regions["iou"], [coat_share(dataset, sha256) for sha256 in splits["test"]])


def test_the_precision_it_is_served_in_is_compared_pixel_by_pixel(
    dataset: Dataset, splits: Splits, coats_everywhere: ClothingModel
) -> None:
    def coarse(batch: np.ndarray) -> np.ndarray:
        chances = np.zeros((1, 3, 32, 32), np.float32)
        chances[:, 1], chances[:, 2, :8] = 0.6, 0.9  # in its upper quarter it says dress
        return chances

    other = ClothingModel(coarse, coats_everywhere.card)
    labels = {"coat": 3, "dress": 7}

    assert evaluate_model(coats_everywhere, dataset, splits["test"], labels).agreement == 1
    assert evaluate_model(coats_everywhere, dataset, splits["test"], labels, served=coats_everywhere).agreement == 1
    agreement = evaluate_model(coats_everywhere, dataset, splits["test"], labels, served=other).agreement
    assert agreement == pytest.approx(0.75, abs=0.03)


def test_a_label_that_the_model_lacks_counts_as_missed(
    dataset: Dataset, splits: Splits, coats_everywhere: ClothingModel
) -> None:
    confusion = evaluate_model(coats_everywhere, dataset, splits["test"], {"dress": 7, "hat": 9}).confusion

    assert confusion.matrix[:, 0].sum() == confusion.matrix.sum(), "coats are background to these labels"
    assert confusion.iou()[1] == 0


def test_the_stage_writes_metrics_and_plots(dataset: Dataset, model_that_sees_coats: Path, two_labels: Params) -> None:
    copytree(model_that_sees_coats, dataset.path(MODEL))
    dataset.path(REPORT).mkdir()
    (dataset.path(REPORT) / "of-the-run-before.jpg").touch()

    evaluate(dataset, two_labels)

    metrics = json.loads(dataset.path(METRICS).read_text())
    assert (metrics["photos"], metrics["clean_photos"], metrics["families"]) == (3, 3, 3)
    assert set(metrics["per_class"]) == {"background", "coat", "dress"}
    assert metrics["per_class"]["background"]["iou"] == 0
    names = sorted(path.name.split("-miou")[0] for path in dataset.path(REPORT).iterdir())
    overlays = ["overlay-00", "overlay-01", "overlay-02"]
    assert names == ["calibration.png", "classes.csv", "confusion.png", *overlays, "slices.csv"]
    classes = pd.read_csv(dataset.path(REPORT) / "classes.csv", index_col="label")
    assert list(classes.index) == ["background", "coat", "dress"]
    assert classes.loc["coat", "iou"] == metrics["per_class"]["coat"]["iou"]
    assert metrics["miou_low"] <= metrics["miou"] <= metrics["miou_high"]
    assert metrics["served_agreement"] == 1
    assert metrics["seconds_saved_low"] <= metrics["seconds_saved"] <= metrics["seconds_saved_high"]
    assert 0 <= metrics["acceptance_error"] <= 1
    assert all(isinstance(value, int | float) for name, value in metrics.items() if name != "per_class")


def test_the_stage_fits_which_regions_are_shown(
    dataset: Dataset, model_that_sees_coats: Path, two_labels: Params
) -> None:
    copytree(model_that_sees_coats, dataset.path(MODEL))

    evaluate(dataset, two_labels)

    proposals = Proposals.from_json(dataset.path(PROPOSALS).read_text(encoding="utf-8"))
    assert (proposals.regions, proposals.photos) == (5, 5), "of the test and of the validation split"


def mark_blind(dataset: Dataset, blind: list[str]) -> None:
    table = dataset.manifest()
    dataset.write_table(MANIFEST, table.assign(blind=table["sha256"].isin(blind)))


def test_only_photos_that_no_model_drew_on_are_judged(
    dataset: Dataset, splits: Splits, model_that_sees_coats: Path, two_labels: Params
) -> None:
    copytree(model_that_sees_coats, dataset.path(MODEL))
    mark_blind(dataset, splits["test"][:2])

    evaluate(dataset, two_labels)

    metrics = json.loads(dataset.path(METRICS).read_text())
    assert (metrics["photos"], metrics["clean_photos"]) == (2, 2)
    assert len(list(dataset.path(REPORT).glob("overlay-*.jpg"))) == 2
    assert "seconds_saved_low" not in metrics, "two families are no reason for an interval"


def test_without_such_photos_it_says_so_and_takes_all(
    dataset: Dataset, model_that_sees_coats: Path, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    copytree(model_that_sees_coats, dataset.path(MODEL))
    mark_blind(dataset, [])

    with caplog.at_level(logging.WARNING):
        evaluate(dataset, two_labels)

    metrics = json.loads(dataset.path(METRICS).read_text())
    assert (metrics["photos"], metrics["clean_photos"]) == (3, 0)
    assert "models drew parts of the masks of all 3 test photos" in caplog.text


@pytest.mark.parametrize("other_precision", [False, True])
def test_metrics_are_computed_in_32_bits(
    dataset: Dataset, model_that_sees_coats: Path, two_labels: Params, monkeypatch: pytest.MonkeyPatch,
    other_precision: bool,
) -> None:  # fmt: skip
    copytree(model_that_sees_coats, dataset.path(MODEL))
    asked: list[bool] = []

    def load(folder: Path, *, reduced_precision: bool, **options: Any) -> ClothingModel:
        asked.append(reduced_precision)
        return load_model(folder, reduced_precision=False, **options)

    monkeypatch.setattr(stage, "load_model", load)
    monkeypatch.setattr(stage, "multiplies_bfloat16", lambda: other_precision)

    evaluate(dataset, two_labels)

    assert asked == ([False, True] if other_precision else [False])


def test_metrics_are_written_by_catalogue_data(
    dataset: Dataset, model_that_sees_coats: Path, two_labels: Params
) -> None:
    copytree(model_that_sees_coats, dataset.path(MODEL))
    table = dataset.manifest()
    table["meta_season"] = ["fall" if number % 2 else None for number in range(len(table))]
    dataset.write_table(MANIFEST, table)

    evaluate(dataset, two_labels)

    slices = pd.read_csv(dataset.path(REPORT) / "slices.csv")
    assert set(slices["value"]) == {"fall", "–"}
    assert slices["photos"].sum() == 3
    assert set(slices["slice"]) == {"season"}, "columns that the catalogue lacks are left out"
    np.testing.assert_allclose(slices["miou"] - slices["reference"], slices["difference"], atol=2e-4)
