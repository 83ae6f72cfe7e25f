"""Evaluation at the photos' own size, over the labels that are in force."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest

from pipelines.dataset.files import MANIFEST, METRICS, MODEL, REPORT
from pipelines.params import Params
from pipelines.segmentation.clothing import ClothingModel, load_model
from pipelines.training.data import read_photo
from pipelines.training.evaluate import evaluate, evaluate_model

Sides = dict[str, list[str]]


@pytest.fixture
def coats_everywhere(model_that_sees_coats: Path) -> ClothingModel:
    return load_model(model_that_sees_coats)


def coat_share(sha256: str) -> float:
    return float((read_photo(sha256)[1] == 3).mean())


def test_every_pixel_of_the_photos_counts(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    found = evaluate_model(coats_everywhere, workspace["test"], {"coat": 3, "dress": 7})

    confusion = found.confusion
    assert confusion.matrix.sum() == found.certainty[..., 0].sum() == 3 * 48 * 40
    assert found.certainty[..., 2].sum() == np.diag(confusion.matrix).sum()
    assert confusion.matrix[:, [0, 2]].sum() == 0
    assert confusion.photos.tolist()[:2] == [3, 3]
    assert found.photos == tuple(workspace["test"])


def test_photos_are_scored_one_by_one(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    found = evaluate_model(coats_everywhere, workspace["test"], {"coat": 3, "dress": 7})

    for sha256, miou in found.miou_of_photo.items():
        classes = len({0, 3} | set(read_photo(sha256)[1].ravel()))
        assert miou == pytest.approx(coat_share(sha256) / classes)


def test_a_label_that_the_model_lacks_counts_as_missed(workspace: Sides, coats_everywhere: ClothingModel) -> None:
    confusion = evaluate_model(coats_everywhere, workspace["test"], {"dress": 7, "hat": 9}).confusion

    assert confusion.matrix[:, 0].sum() == confusion.matrix.sum(), "coats are background to these labels"
    assert confusion.iou()[1] == 0


def test_the_stage_leaves_figures_and_pictures(
    workspace: Sides, model_that_sees_coats: Path, two_labels: Params
) -> None:
    copytree(model_that_sees_coats, MODEL)
    REPORT.mkdir()
    (REPORT / "of-the-run-before.jpg").touch()

    evaluate(two_labels)

    figures = json.loads(METRICS.read_text())
    assert (figures["photos"], set(figures["per_class"])) == (3, {"background", "coat", "dress"})
    assert figures["per_class"]["background"]["iou"] == 0
    names = sorted(path.name.split("-miou")[0] for path in REPORT.iterdir())
    overlays = ["overlay-00", "overlay-01", "overlay-02"]
    assert names == ["calibration.png", "classes.csv", "confusion.png", *overlays, "slices.csv"]
    classes = pd.read_csv(REPORT / "classes.csv", index_col="label")
    assert list(classes.index) == ["background", "coat", "dress"]
    assert classes.loc["coat", "iou"] == figures["per_class"]["coat"]["iou"]
    assert figures["miou_low"] <= figures["miou"] <= figures["miou_high"]


def test_figures_are_given_by_catalogue_data(workspace: Sides, model_that_sees_coats: Path, two_labels: Params) -> None:
    copytree(model_that_sees_coats, MODEL)
    table = pd.read_parquet(MANIFEST)
    table["meta_season"] = ["fall" if number % 2 else None for number in range(len(table))]
    table.to_parquet(MANIFEST)

    evaluate(two_labels)

    slices = pd.read_csv(REPORT / "slices.csv")
    assert set(slices["value"]) == {"fall", "–"}
    assert slices["photos"].sum() == 3
    assert set(slices["slice"]) == {"season"}, "columns that the catalogue lacks are left out"
