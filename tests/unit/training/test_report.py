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
from pipelines.training.evaluate import evaluate, evaluate_model
from pipelines.training.floor import Floor
from pipelines.training.gate import Steps, decide
from pipelines.training.report import Contender, choose, write_folder_page, write_page

HERE = Dataset(Path())
Sides = dict[str, list[str]]


@pytest.fixture
def challenger(workspace: Sides, model_that_sees_coats: Path, two_labels: Params) -> Contender:
    """A model of which everything is there that a training leaves in the current folder."""
    copytree(model_that_sees_coats, MODEL)
    CURVES.write_text("epoch,train_loss,val_miou\n0,1.5,\n1,0.9,0.4\n", encoding="utf-8")
    evaluate(HERE, two_labels)
    model = load_model(MODEL)
    return Contender("clothing:v2", model, evaluate_model(model, HERE, workspace["test"], two_labels.label_ids))


def page_of(challenger: Contender, champion: Contender | None, params: Params, title: str = "dataset-0002") -> str:
    names = ["background", *params.label_ids]
    found = champion.found if champion else None
    decision = decide(
        challenger.found, found, names, params.promote, floor=Floor(12.5), steps=Steps(23, 160, "minutes")
    )
    write_page(Path("report.html"), HERE, title, decision, challenger, champion, params)
    return Path("report.html").read_text(encoding="utf-8")


def test_the_page_holds_decision_figures_and_pictures(challenger: Contender, two_labels: Params) -> None:
    champion = Contender("clothing:v1", challenger.model, challenger.found)

    page = page_of(challenger, champion, two_labels)

    assert "Not promoted</b>" in page
    assert "no gain" in page
    assert page.count("data:image/jpeg") == 3, "a sheet for each of the three test photos"
    assert page.count("data:image/png") == 3
    for text in ("clothing:v1", "clothing:v2", "coat", "not measured", "boundary F", "The worst photos"):
        assert text in page


def test_a_first_model_has_nothing_to_be_compared_with(challenger: Contender, two_labels: Params) -> None:
    page = page_of(challenger, None, two_labels)

    assert "first model" in page
    assert "At the gate" not in page


def test_all_that_was_weighed_stands_on_the_page(challenger: Contender, two_labels: Params) -> None:
    page = page_of(challenger, Contender("clothing:v1", challenger.model, challenger.found), two_labels)

    for text in (
        "3 of 3 families", "looks at this test side before", "p = ", "gains seen four times in five",
        "its masks save 12.5 s per photo", "23 of 160 steps, cut short", "as served, against 32 bits",
    ):  # fmt: skip
        assert text in page, text


def test_a_training_without_a_gate_has_no_verdict(challenger: Contender, two_labels: Params) -> None:
    write_folder_page(Path("report.html"), HERE, two_labels)

    page = Path("report.html").read_text(encoding="utf-8")
    assert "trained on 5 photos" in page
    assert "Promoted" not in page.replace("Not promoted", "")
    assert "What was weighed" not in page


def test_the_page_needs_nothing_from_elsewhere(challenger: Contender, two_labels: Params) -> None:
    page = page_of(challenger, None, two_labels)

    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "<script" not in page


def test_what_came_from_outside_is_text(challenger: Contender, two_labels: Params) -> None:
    page = page_of(challenger, None, two_labels, title="<script>alert(1)</script>")

    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_worst_come_first_and_others_are_chosen_by_chance(challenger: Contender, two_labels: Params) -> None:
    one = two_labels.model_copy(update={"evaluate": two_labels.evaluate.model_copy(update={"overlays": 1})})
    scores = challenger.found.miou_of_photo

    worst, others = choose(challenger.found, one)

    assert scores[worst[0]] == min(scores.values())
    assert len(others) == 1
    assert not set(worst) & set(others)
    assert choose(challenger.found, one) == (worst, others)
    assert np.isfinite(list(scores.values())).all()
