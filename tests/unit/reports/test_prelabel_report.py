"""Usage of pre-labels and time saved, as tables and as a page."""

import io
import re
from pathlib import Path

import pandas as pd
from rich.console import Console

from pipelines.params import Params
from pipelines.reports.effort import EffortReport, measure_effort
from pipelines.reports.prelabel_report import as_notes, as_tables, write_report


def test_the_page_holds_plots_and_metrics_and_fetches_nothing(
    three_models: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    page = tmp_path / "out" / "report.html"

    write_report(page, measure_effort(three_models, two_labels), {"clothing:v1": 0.61}, two_labels, "dataset-0012")

    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 6
    wanted = (
        "dataset-0012",
        "by hand",
        "clothing:v2",
        "in all",
        "0.610",
        "coat",
        "Time saved, in hours =",
        "Effect of practice",
    )
    assert all(part in text for part in wanted)
    assert "http" not in text.replace("data:image", "")


def printed(report: EffortReport, test_miou: dict[str, float]) -> list[str]:
    """Return the tables of usage and of time saved as a log of 120 columns shows them."""
    texts = []
    for table in as_tables(report, test_miou, "dataset-0012"):
        console = Console(width=120, file=io.StringIO())
        console.print(table)
        texts.append(console.file.getvalue())  # type: ignore[attr-defined]  # it is the StringIO
    return texts


def test_the_tables_have_a_row_per_model_and_each_saving_its_interval(
    three_models: pd.DataFrame, two_labels: Params
) -> None:
    rows = [
        [line for line in text.splitlines() if re.match(r"\s*(by hand|in all|\w+:v\d|segformer) ", line)]
        for text in printed(measure_effort(three_models, two_labels), {"clothing:v1": 0.61})
    ]

    names = ["by hand", "clothing:v1", "clothing:v2", "segformer", "in all"]
    assert [[row.split("  ")[1].strip() for row in table] for table in rows] == [names, names]
    intervals = [len(re.findall(r"−?[\d.]+ \(−?[\d.]+ … −?[\d.]+\)", row)) for row in rows[1]]
    assert intervals == [0, 2, 2, 2, 2]


def test_no_name_and_no_number_is_cut_in_a_log(three_models: pd.DataFrame, two_labels: Params) -> None:
    long = three_models.assign(prediction_version=three_models["prediction_version"].replace("segformer", "m" * 30))
    usage, saved = printed(measure_effort(long, two_labels), {})

    for text in (usage, saved):
        assert "m" * 30 in text
        assert not re.search(r"\S…", text)


def test_a_saving_that_cannot_be_told_is_words(three_models: pd.DataFrame, two_labels: Params) -> None:
    few = three_models[(three_models["prediction_version"] != "") | (three_models.index % 9 > 5)]
    report = measure_effort(few[few["prediction_version"] != "clothing:v2"].iloc[:40], two_labels)
    _, saved = printed(report, {})

    assert saved.count("too few blind photos to tell") == 2  # of the model, and in all
    assert "…" not in saved
    assert any(
        re.match(r"clothing:v1: too few blind photos to tell: .* families: \d", note) for note in as_notes(report)
    )


def test_a_page_before_any_model_shows_what_was_drawn_by_hand(
    three_models: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    write_report(tmp_path / "report.html", measure_effort(three_models[:6], two_labels), {}, two_labels, "dataset-0001")

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "by hand" in text and "Effect of practice: too few photos to tell." in text


def test_a_page_of_nothing_can_be_written(two_labels: Params, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", measure_effort(pd.DataFrame(), two_labels), {}, two_labels, "dataset-0001")

    assert (tmp_path / "report.html").exists()
