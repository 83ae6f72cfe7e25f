"""The checks of a dataset version: a critical finding stops it, a note does not."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.dataset import checks
from pipelines.dataset.checks import check_dataset
from pipelines.dataset.files import CHECKS, MANIFEST
from pipelines.errors import DatasetError
from pipelines.log import run_stage
from pipelines.params import Params
from pipelines.settings import PROJECT_ROOT


@pytest.fixture
def good_manifest() -> pd.DataFrame:
    """Ten photos with a coat each."""
    return pd.DataFrame(
        {
            "uri": [f"gs://archive/{n}.png" for n in range(10)],
            "generation": 1,
            "sha256": [f"photo-{n}" for n in range(10)],
            "height": 30,
            "width": 20,
            "mask_sha256": "mask",
            "mask_height": 30,
            "mask_width": 20,
            "class_ids": [[3]] * 10,
            "label_pixels": '{"coat": 100}',
            "annotation": [f"annotation-{n}" for n in range(10)],
            "annotator": "ada@example.org",
            "updated_at": "2026-01-01",
        }
    )


def spoil(table: pd.DataFrame, column: str, value: Any, rows: int = 1) -> pd.DataFrame:
    values = list(table[column])
    return table.assign(**{column: [value] * rows + values[rows:]})


def test_a_good_manifest_gives_a_summary_without_notes(good_manifest: pd.DataFrame, two_labels: Params) -> None:
    summary = check_dataset(good_manifest, two_labels)
    assert (summary["photos"], summary["notes"]) == (10, [])
    assert summary["rules"] == len(checks.dataset_rules(two_labels))


@pytest.mark.parametrize(
    ("column", "value", "rows", "said"),
    [
        ("annotator", None, 1, "annotator is empty"),
        ("mask_sha256", None, 1, "mask_sha256 is empty"),
        ("sha256", "photo-9", 1, "a photo stands in the manifest twice (for example photo-9"),
        ("annotation", "annotation-9", 1, "an annotation is used twice (for example annotation-9"),
        ("mask_height", 29, 1, "mask_height is not the photo's height"),
        ("mask_width", 21, 1, "mask_width is not the photo's width"),
        ("class_ids", [3, 99], 1, "masks hold class ids other than 3…7 of params.yaml (for example 99)"),
        ("label_pixels", "{}", 3, "more than 20% of the photos have no garment"),
    ],
)
def test_a_critical_finding_stops_the_version(
    good_manifest: pd.DataFrame, two_labels: Params, column: str, value: Any, rows: int, said: str
) -> None:
    with pytest.raises(DatasetError, match="The last good version stays in use") as caught:
        check_dataset(spoil(good_manifest, column, value, rows), two_labels)
    assert said in str(caught.value)


def test_all_critical_findings_are_named_at_once(good_manifest: pd.DataFrame, two_labels: Params) -> None:
    table = spoil(spoil(good_manifest, "uri", None), "mask_width", 1)
    with pytest.raises(DatasetError, match=r"uri is empty; mask_width is not .+ \(for example 1 ≠ 20\)"):
        check_dataset(table, two_labels)


def test_a_few_photos_without_garments_are_fine(good_manifest: pd.DataFrame, two_labels: Params) -> None:
    assert check_dataset(spoil(good_manifest, "label_pixels", "{}", 2), two_labels)["notes"] == []


def test_a_stray_stroke_is_a_note(
    good_manifest: pd.DataFrame, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    table = spoil(good_manifest, "label_pixels", '{"coat": 100, "dress": 0}')
    assert check_dataset(table, two_labels)["notes"] == ["some labels cover hardly a pixel; look for stray strokes"]
    assert "note: some labels cover hardly a pixel" in caplog.text


class TestStage:
    @pytest.fixture
    def workspace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("data").mkdir()
        Path("params.yaml").write_bytes((PROJECT_ROOT / "params.yaml").read_bytes())

    def test_a_good_version_leaves_its_summary(self, workspace: None, good_manifest: pd.DataFrame) -> None:
        good_manifest.to_parquet(MANIFEST)
        checks.main()
        assert json.loads(CHECKS.read_text())["photos"] == 10

    def test_a_bad_version_ends_the_stage_and_leaves_none(self, workspace: None, good_manifest: pd.DataFrame) -> None:
        spoil(good_manifest, "uri", None).to_parquet(MANIFEST)
        with pytest.raises(SystemExit, match="check: the dataset is not published: uri is empty"):
            run_stage("check", checks.main)
        assert not CHECKS.exists()
