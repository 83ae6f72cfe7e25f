"""What rounds paid: noted on the models' runs, and shown."""

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from pipelines.effort import effort_by_model
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.report import as_table, log_effort, write_report


class Runs:
    """A registry of two versions that remembers what is added to their runs."""

    name = "clothing"

    def __init__(self) -> None:
        self.added: list[tuple[str, dict[str, float], int]] = []

    def versions(self) -> list[ModelVersion]:
        return [ModelVersion("clothing", number, f"run-{number}", "dataset-0001", 0.5) for number in (1, 2)]

    def add_metrics(self, run_id: str, values: dict[str, float], step: int) -> None:
        self.added.append((run_id, values, step))


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Six photos drawn from nothing, two corrected from each of two models, one from a model of another registry."""
    versions = [""] * 6 + ["clothing:v1"] * 2 + ["clothing:v2"] * 2 + ["segformer"]
    return pd.DataFrame({
        "prediction_version": versions, "lead_time_s": [60.0] * 6 + [30.0, 20.0, 10.0, 8.0, 5.0],
        "regions_untouched": [0] * 6 + [1, 1, 2, 2, 1], "regions_changed": [0] * 6 + [1, 0, 0, 1, 0],
        "regions_manual": [2] * 6 + [0, 1, 0, 0, 0], "regions_deleted": [0] * 6 + [1, 0, 0, 0, 0],
        "prelabel_pixels": [""] * 6 + ['{"": [80, 70, 70], "coat": [20, 30, 20]}'] * 5,
    })  # fmt: skip


def test_figures_are_noted_on_each_models_run_with_the_datasets_number(manifest: pd.DataFrame) -> None:
    runs = Runs()

    noted = log_effort(runs, manifest, "dataset-0012")  # type: ignore[arg-type]  # what of a registry is asked for

    assert noted == ["clothing:v1", "clothing:v2"]
    assert [(run, step) for run, _, step in runs.added] == [("run-1", 12), ("run-2", 12)]
    assert runs.added[0][1]["labelers/untouched_share"] == 2 / 5
    assert runs.added[0][1]["labelers/iou/coat"] == 2 / 3


def test_the_page_holds_pictures_and_figures_and_fetches_nothing(
    manifest: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    page = tmp_path / "out" / "report.html"

    write_report(page, effort_by_model(manifest), {"clothing:v1": 0.61}, two_labels, "dataset-0012")

    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 5
    assert all(part in text for part in ("dataset-0012", "by hand", "clothing:v2", "0.610", "coat", "Hours saved ="))
    assert "http" not in text.replace("data:image", "")


def test_the_table_has_a_row_per_model(manifest: pd.DataFrame) -> None:
    console = Console(width=140, file=io.StringIO())
    console.print(as_table(effort_by_model(manifest), {"clothing:v1": 0.61}, "dataset-0012"))

    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO
    first = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert [word for word in first if word == "by" or ":" in word] == ["by", "clothing:v1", "clothing:v2"]


def test_a_page_before_any_model_shows_what_was_drawn_by_hand(
    manifest: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    write_report(tmp_path / "report.html", effort_by_model(manifest[:6]), {}, two_labels, "dataset-0001")

    assert "by hand" in (tmp_path / "report.html").read_text(encoding="utf-8")
