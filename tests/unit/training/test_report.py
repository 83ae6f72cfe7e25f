"""The report page: everything in one file, what people must see on it, and nothing that runs."""

import re
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, MODEL
from pipelines.params import Params
from pipelines.segmentation.model import load_model
from pipelines.training.decision import Steps
from pipelines.training.evaluate import evaluate, evaluate_model
from pipelines.training.floor import Floor
from pipelines.training.gate import decide
from pipelines.training.report import Candidate, choose, write_folder_page, write_page
from tests.unit.training.conftest import draw_dataset, splits_of

Splits = dict[str, list[str]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset that all tests here share: they only add a page."""
    return draw_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def splits(dataset: Dataset) -> Splits:
    return splits_of(dataset)


@pytest.fixture(scope="module")
def challenger(dataset: Dataset, splits: Splits, model_that_sees_coats: Path, two_labels: Params) -> Candidate:
    """A model with everything that a training writes beside its dataset."""
    copytree(model_that_sees_coats, dataset.path(MODEL))
    dataset.path(CURVES).write_text("epoch,train_loss,val_miou\n0,1.5,\n1,0.9,0.4\n", encoding="utf-8")
    evaluate(dataset, two_labels)
    model = load_model(dataset.path(MODEL))
    return Candidate("clothing:v2", model, evaluate_model(model, dataset, splits["test"], two_labels.label_ids))


def page_of(
    dataset: Dataset, challenger: Candidate, champion: Candidate | None, params: Params, title: str = "dataset-0002"
) -> str:
    names = ["background", *params.label_ids]
    opponent = champion.evaluation if champion else None
    decision = decide(
        challenger.evaluation, opponent, names, params.promote, floor=Floor(12.5), steps=Steps(23, 160, "minutes")
    )
    path = dataset.path(Path("report.html"))
    write_page(path, dataset, title, decision, challenger, champion, params)
    return path.read_text(encoding="utf-8")


def test_the_page_holds_decision_metrics_and_plots(dataset: Dataset, challenger: Candidate, two_labels: Params) -> None:
    champion = Candidate("clothing:v1", challenger.model, challenger.evaluation)

    page = page_of(dataset, challenger, champion, two_labels)

    assert "Not promoted</b>" in page
    assert "no gain" in page
    assert page.count("data:image/jpeg") == 3, "a sheet for each of the three test photos"
    assert page.count("data:image/png") == 3
    for text in ("clothing:v1", "clothing:v2", "coat", "not measured", "boundary F", "The worst photos"):
        assert text in page


def test_a_first_model_has_nothing_to_be_compared_with(
    dataset: Dataset, challenger: Candidate, two_labels: Params
) -> None:
    page = page_of(dataset, challenger, None, two_labels)

    assert "first model" in page
    assert "At the gate" not in page


def test_all_that_was_weighed_stands_on_the_page(dataset: Dataset, challenger: Candidate, two_labels: Params) -> None:
    page = page_of(dataset, challenger, Candidate("clothing:v1", challenger.model, challenger.evaluation), two_labels)

    for text in (
        "3 of 3 families", "earlier looks at this test split", "p = ", "gains detected four times in five",
        "its masks save 12.5 s per photo", "23 of 160 steps, cut short", "as served, against 32 bits",
    ):  # fmt: skip
        assert text in page, text


def test_a_training_without_a_gate_has_no_verdict(dataset: Dataset, challenger: Candidate, two_labels: Params) -> None:
    path = dataset.path(Path("report.html"))
    write_folder_page(path, dataset, two_labels)

    page = path.read_text(encoding="utf-8")
    assert "trained on 5 photos" in page
    assert "Promoted" not in page.replace("Not promoted", "")
    assert "What was weighed" not in page


def test_the_page_needs_nothing_from_elsewhere(dataset: Dataset, challenger: Candidate, two_labels: Params) -> None:
    page = page_of(dataset, challenger, None, two_labels)

    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "<script" not in page


def test_what_came_from_outside_is_text(dataset: Dataset, challenger: Candidate, two_labels: Params) -> None:
    page = page_of(dataset, challenger, None, two_labels, title="<script>alert(1)</script>")

    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_worst_come_first_and_others_are_chosen_by_chance(challenger: Candidate, two_labels: Params) -> None:
    single = two_labels.model_copy(update={"evaluate": two_labels.evaluate.model_copy(update={"overlays": 1})})
    scores = challenger.evaluation.miou_of_photo

    worst, others = choose(challenger.evaluation, single)

    assert scores[worst[0]] == min(scores.values())
    assert len(others) == 1
    assert not set(worst) & set(others)
    assert choose(challenger.evaluation, single) == (worst, others)
    assert np.isfinite(list(scores.values())).all()
