"""What rounds paid: noted on the models' runs, and shown."""

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from pipelines.effort import measure_effort
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.report import as_notes, as_table, log_effort, write_report

_SECONDS = {"": 60.0, "clothing:v1": 90.0, "clothing:v2": 20.0, "segformer": 60.0}


class Runs:
    """A registry of two versions that remembers what is added to their runs, and which of them was paused."""

    name = "clothing"

    def __init__(self, champion: int = 1) -> None:
        self.added: list[tuple[str, Mapping[str, float], int]] = []
        self.paused: dict[int, str] = {}
        self.files: dict[tuple[str, str], str] = {}
        self._champion = champion

    def versions(self) -> list[ModelVersion]:
        return [ModelVersion("clothing", number, f"run-{number}", "dataset-0001", 0.5) for number in (1, 2)]

    def champion(self) -> ModelVersion | None:
        if not self._champion:
            return None
        return replace(self.versions()[self._champion - 1], paused=self.paused.get(self._champion, ""))

    def pause(self, version: ModelVersion, reason: str) -> None:
        self.paused[version.version] = reason

    def add_metrics(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        self.added.append((run_id, values, step))

    def file(self, version: ModelVersion, name: str) -> str:
        return self.files.get((version.run_id, name), "")

    def log_file(self, run_id: str, path: Path) -> None:
        self.files[run_id, path.name] = path.read_text(encoding="utf-8")


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Sixty photos by hand, then thirty with masks and fifteen without at the time of each of three models, the last of
    another registry; the masks of the first cost time, those of the second save some."""
    shown = ["", "", "clothing:v1", "clothing:v2", "segformer"]
    versions = [("" if place % 3 == 1 else version) for version in shown for place in range(45 if version else 30)]
    count = len(versions)
    return pd.DataFrame({
        "sha256": [f"{place:064x}" for place in range(count)],
        "family": [f"{place // 6} {place % 3 == 1}" for place in range(count)],
        "prediction_version": versions, "blind": [not version for version in versions],
        "split": ["train" if version else "test" for version in versions],
        "lead_time_s": [_SECONDS[version] * (1 + 0.02 * (place % 5)) for place, version in enumerate(versions)],
        "updated_at": [f"2026-{1 + place // 24:02}-01T{place % 24:02}:00:00+00:00" for place in range(count)],
        "annotators": [[f"labeler-{place % 2}"] for place in range(count)],
        "annotations": [[str(place)] for place in range(count)],
        "label_pixels": ['{"coat": 30, "dress": 20}'] * count,
        "regions_untouched": [int(bool(version)) for version in versions], "regions_changed": [0] * count,
        "regions_manual": [1 if version else 2 for version in versions],
        "regions_deleted": [int(version == "clothing:v1") for version in versions],
        "prelabel_pixels": ['{"": [80, 70, 70], "coat": [20, 30, 20]}' if version else "" for version in versions],
    })  # fmt: skip


def test_figures_are_noted_on_each_models_run_with_the_datasets_number(
    manifest: pd.DataFrame, two_labels: Params
) -> None:
    runs = Runs()

    noted = log_effort(runs, manifest, "dataset-0012", two_labels)  # type: ignore[arg-type]  # what of a registry is asked for

    assert noted == ["clothing:v1", "clothing:v2"]
    assert [(run, step) for run, _, step in runs.added] == [("run-1", 12), ("run-2", 12)]
    first = runs.added[0][1]
    assert first["labelers/untouched_share"] == 1 / 3
    assert first["labelers/iou/coat"] == 2 / 3
    assert first["labelers/seconds_saved_per_photo_high"] < -20
    assert runs.added[1][1]["labelers/seconds_saved_per_photo"] == pytest.approx(40, abs=2)


def test_a_champion_whose_masks_cost_time_is_paused_once(manifest: pd.DataFrame, two_labels: Params) -> None:
    runs = Runs(champion=1)
    log_effort(runs, manifest, "dataset-0012", two_labels)  # type: ignore[arg-type]
    assert re.match(r"its masks cost people 3\d s per photo \(95 % interval .+\), in dataset-0012", runs.paused[1])

    runs.paused = {1: "as it was"}
    log_effort(runs, manifest, "dataset-0013", two_labels)  # type: ignore[arg-type]
    assert runs.paused == {1: "as it was"}

    runs.paused = {}  # somebody let it go on
    log_effort(runs, manifest, "dataset-0014", two_labels)  # type: ignore[arg-type]
    assert runs.paused == {}


@pytest.mark.parametrize("champion", [0, 2])
def test_no_other_version_is_paused(champion: int, manifest: pd.DataFrame, two_labels: Params) -> None:
    runs = Runs(champion)

    log_effort(runs, manifest, "dataset-0012", two_labels)  # type: ignore[arg-type]

    assert runs.paused == {}


def test_the_page_holds_pictures_and_figures_and_fetches_nothing(
    manifest: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    page = tmp_path / "out" / "report.html"

    write_report(page, measure_effort(manifest, two_labels), {"clothing:v1": 0.61}, two_labels, "dataset-0012")

    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 6
    wanted = ("dataset-0012", "by hand", "clothing:v2", "in all", "0.610", "coat", "Hours saved =", "What practice did")
    assert all(part in text for part in wanted)
    assert "http" not in text.replace("data:image", "")


def test_the_table_has_a_row_per_model_and_each_saving_its_interval(manifest: pd.DataFrame, two_labels: Params) -> None:
    console = Console(width=170, file=io.StringIO())
    console.print(as_table(measure_effort(manifest, two_labels), {"clothing:v1": 0.61}, "dataset-0012"))

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


def test_a_saving_that_cannot_be_told_is_words(manifest: pd.DataFrame, two_labels: Params) -> None:
    few = manifest[(manifest["prediction_version"] != "") | (manifest.index % 9 > 5)]
    report = measure_effort(few[few["prediction_version"] != "clothing:v2"].iloc[:40], two_labels)
    console = Console(width=170, file=io.StringIO())
    console.print(as_table(report, {}, "dataset-0012"))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("too few blind photos to tell") == 2  # of the model, and in all
    assert "…" not in text
    assert any(re.match("clothing:v1: too few blind photos to tell: .* families", note) for note in as_notes(report))


def test_a_page_before_any_model_shows_what_was_drawn_by_hand(
    manifest: pd.DataFrame, two_labels: Params, tmp_path: Path
) -> None:
    write_report(tmp_path / "report.html", measure_effort(manifest[:6], two_labels), {}, two_labels, "dataset-0001")

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "by hand" in text and "What practice did: too few photos to tell." in text


def test_a_page_of_nothing_can_be_written(two_labels: Params, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", measure_effort(pd.DataFrame(), two_labels), {}, two_labels, "dataset-0001")

    assert (tmp_path / "report.html").exists()
