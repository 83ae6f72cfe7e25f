"""Lineage from a photo to models and from a model to photos, as text and as JSON."""

import io
import json
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from pipelines.errors import DataError
from pipelines.records import ModelVersion
from pipelines.reports.lineage import Lineage, Link

COAT, HAT = "gs://archive/coat.jpg", "gs://archive/hat.jpg"


class TwoVersions:
    """Published versions: the second one has a photo more, and the first photo's annotation anew."""

    def tags(self) -> list[str]:
        return ["dataset-0001", "dataset-0002"]

    def revision(self, tag: str) -> str:
        return f"commit of {tag}"

    def summary(self, tag: str) -> str:
        return "+1 photos"

    def manifest(self, tag: str) -> pd.DataFrame:
        rows = [self.row(COAT, "a" if tag == "dataset-0001" else "b", "", "train")]
        if tag == "dataset-0002":
            rows.append(self.row(HAT, "c", "clothing:v1", "test"))
        return pd.DataFrame(rows)

    def row(self, uri: str, annotation: str, started_from: str, split: str) -> dict[str, Any]:
        return {
            "uri": uri, "generation": 7, "sha256": "ab" * 32, "annotations": [annotation],
            "annotators": ["ada@example.org"], "updated_at": "2026-01-01", "prediction_version": started_from,
            "split": split, "label_pixels": '{"coat": 160}',
        }  # fmt: skip


class TwoModels:
    """A registry: one model of each dataset, the second is champion."""

    name = "clothing"

    def __init__(self) -> None:
        self.models = [ModelVersion("clothing", n, f"run {n}", f"dataset-000{n}", 0.5, reason="better") for n in (1, 2)]

    def champion(self) -> ModelVersion | None:
        return self.models[1]

    def version(self, number: str) -> ModelVersion | None:
        return next((model for model in self.models if str(model.version) == number), None)

    def versions_trained_on(self, dataset: str) -> list[ModelVersion]:
        return [model for model in self.models if model.dataset == dataset]


@pytest.fixture
def lineage() -> Lineage:
    return Lineage(TwoVersions(), TwoModels())  # type: ignore[arg-type]  # they answer as the real ones do


def names(link: Link) -> list[Any]:
    return [link.name, *([names(child) for child in link.links])]


def test_a_photo_leads_to_every_version_that_holds_it_and_their_models(lineage: Lineage) -> None:
    link = lineage.of(COAT)

    assert names(link) == [COAT, ["dataset-0001", ["clothing:v1"]], ["dataset-0002", ["clothing:v2"]]]
    assert [link.facts["annotations"] for link in link.links] == ["a", "b"]
    assert link.links[0].facts["started from"] == "nothing: drawn by hand"
    assert link.links[0].facts["pixels"] == {"coat": 160}


def test_a_version_names_its_photos_people_splits_and_pre_labels(lineage: Lineage) -> None:
    link = lineage.of("dataset-0002")

    assert link.facts["splits"] == {"test": 1, "train": 1}
    assert link.facts["annotators"] == {"ada@example.org": 2}
    started, photos, model = link.links
    assert started.facts == {"drawn by hand": 1, "clothing:v1": 1}
    assert {uri: facts["annotations"] for uri, facts in photos.facts.items()} == {COAT: "b", HAT: "c"}
    assert (model.name, model.facts["champion"]) == ("clothing:v2", True)


@pytest.mark.parametrize(("address", "number"), [("models:/clothing@champion", 2), ("models:/clothing/1", 1)])
def test_a_model_leads_back_to_its_dataset(lineage: Lineage, address: str, number: int) -> None:
    link = lineage.of(address)

    assert (link.name, link.facts["run"]) == (f"clothing:v{number}", f"run {number}")
    assert link.links[0].name == f"dataset-000{number}"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("gs://archive/none.jpg", "no dataset version holds gs://archive/none.jpg"),
        ("dataset-0009", r"cannot be traced.*dataset-0001, dataset-0002"),
        ("models:/clothing/9", "MLflow has no models:/clothing/9"),
        ("models:/shoes@champion", "the model is named clothing"),
        ("models:/clothing@best", "one alias, champion"),
        ("skirt", "cannot be traced"),
    ],
)
def test_what_is_not_there_is_named(lineage: Lineage, what: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        lineage.of(what)


def test_it_is_drawn_as_a_tree_and_printed_as_json(lineage: Lineage) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(lineage.of("models:/clothing@champion").as_tree())
    link = json.loads(json.dumps(lineage.of(COAT).as_json()))

    assert "clothing:v2" in console.export_text()
    assert [link["links"][0]["name"] for link in link["links"]] == ["clothing:v1", "clothing:v2"]
