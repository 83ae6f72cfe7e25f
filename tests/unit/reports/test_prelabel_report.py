"""What rounds paid, as a table and as a page."""

import io
import re
from pathlib import Path

import pandas as pd
from rich.console import Console

from pipelines.params import Params
from pipelines.reports.effort import measure_effort
from pipelines.reports.prelabel_report import as_notes, as_table, write_report


def test_the_page_holds_pictures_and_figures_and_fetches_nothing(
    three_models: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    page = tmp_path / "out" / "report.html"

    write_report(page, measure_effort(three_models, two_labels), {"clothing:v1": 0.61}, two_labels, "dataset-0012")

    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 6
    wanted = ("dataset-0012", "by hand", "clothing:v2", "in all", "0.610", "coat", "Hours saved =", "What practice did")
    assert all(part in text for part in wanted)
    assert "http" not in text.replace("data:image", "")


def test_the_table_has_a_row_per_model_and_each_saving_its_interval(
    three_models: pd.DataFrame, two_labels: Params
) -> None:
    console = Console(width=170, file=io.StringIO())
    console.print(as_table(measure_effort(three_models, two_labels), {"clothing:v1": 0.61}, "dataset-0012"))

    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO
    rows = [line for line in text.splitlines() if re.match(r"\s*(by hand|in all|\w+:v\d|segformer) ", line)]
    assert [row.split("  ")[1].strip() for row in rows] == [
        "by hand",
        "clothing:v1",
        "clothing:v2",
        "segformer",
        "in all",
    ]
    assert [len(re.findall(r"−?[\d.]+ \(−?[\d.]+ … −?[\d.]+\)", row)) for row in rows] == [0, 2, 2, 2, 2]


def test_a_saving_that_cannot_be_told_is_words(three_models: pd.DataFrame, two_labels: Params) -> None:
    few = three_models[(three_models["prediction_version"] != "") | (three_models.index % 9 > 5)]
    report = measure_effort(few[few["prediction_version"] != "clothing:v2"].iloc[:40], two_labels)
    console = Console(width=170, file=io.StringIO())
    console.print(as_table(report, {}, "dataset-0012"))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("too few blind photos to tell") == 2  # of the model, and in all
    assert "…" not in text
    assert any(
        re.match(r"clothing:v1: too few blind photos to tell: .* families: \d", note) for note in as_notes(report)
    )


def test_a_page_before_any_model_shows_what_was_drawn_by_hand(
    three_models: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    write_report(tmp_path / "report.html", measure_effort(three_models[:6], two_labels), {}, two_labels, "dataset-0001")

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "by hand" in text and "What practice did: too few photos to tell." in text


def test_a_page_of_nothing_can_be_written(two_labels: Params, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", measure_effort(pd.DataFrame(), two_labels), {}, two_labels, "dataset-0001")

    assert (tmp_path / "report.html").exists()
