"""The checks of a dataset version: a critical finding stops it, a note does not."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.dataset import checks
from pipelines.dataset.checks import PAGE, check_dataset
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import BEFORE, CHECKS, NO_PHOTOS, PHOTOS
from pipelines.errors import ChecksError, DatasetError
from pipelines.log import run_stage
from pipelines.params import Params
from pipelines.settings import PROJECT_ROOT


@pytest.fixture
def good_photos() -> pd.DataFrame:
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
            "ignored_pixels": 0,
            "phash": "",
            "annotations": [[f"annotation-{n}"] for n in range(10)],
            "annotators": [["ada@example.org"]] * 10,
            "disagreement": None,
            "updated_at": "2026-01-01",
            "lead_time_s": 9.0,
            "prediction_version": "",
        }
    )


def check(table: pd.DataFrame, before: pd.DataFrame | None, params: Params) -> dict[str, Any]:
    """Check a dataset with this table of photos, and this manifest of the last version."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder))
        dataset.write_table(PHOTOS, table)
        if before is None:
            dataset.path(BEFORE).write_bytes(NO_PHOTOS)
        else:
            dataset.write_table(BEFORE, before)
        return check_dataset(dataset, params)


def with_rows(table: pd.DataFrame, column: str, value: Any, rows: int = 1) -> pd.DataFrame:
    values = list(table[column])
    return table.assign(**{column: [value] * rows + values[rows:]})


def test_a_good_photos_gives_a_summary_without_notes(good_photos: pd.DataFrame, two_labels: Params) -> None:
    summary = check(good_photos, None, two_labels)
    assert (summary["photos"], summary["notes"]) == (10, [])
    assert summary["rules"] == len(checks.dataset_rules(good_photos, None, two_labels))


@pytest.mark.parametrize(
    ("column", "value", "rows", "said"),
    [
        ("updated_at", None, 1, "updated_at is empty"),
        ("annotators", [], 1, "a mask has no annotation or no annotator (for example gs://archive/0.png"),
        ("annotations", [""], 1, "a mask has no annotation or no annotator"),
        ("mask_sha256", None, 1, "mask_sha256 is empty"),
        ("sha256", "photo-9", 1, "a photo stands in the table twice (for example photo-9"),
        ("annotations", ["annotation-9"], 1, "an annotation is used twice (for example annotation-9"),
        ("mask_height", 29, 1, "mask_height is not the photo's height"),
        ("mask_width", 21, 1, "mask_width is not the photo's width"),
        ("class_ids", [3, 99], 1, "masks hold class ids other than 3…7 of params.yaml (for example 99)"),
        ("label_pixels", "{}", 3, "more than 20% of the photos have no garment"),
    ],
)
def test_a_critical_finding_stops_the_version(
    good_photos: pd.DataFrame, two_labels: Params, column: str, value: Any, rows: int, said: str
) -> None:
    with pytest.raises(ChecksError, match="The last good version stays in use") as caught:
        check(with_rows(good_photos, column, value, rows), None, two_labels)
    assert said in str(caught.value)


def test_all_critical_findings_are_named_at_once(good_photos: pd.DataFrame, two_labels: Params) -> None:
    table = with_rows(with_rows(good_photos, "uri", None), "mask_width", 1)
    with pytest.raises(ChecksError, match=r"uri is empty; mask_width is not .+ \(for example 1 ≠ 20\)"):
        check(table, None, two_labels)


def test_a_few_photos_without_garments_are_fine(good_photos: pd.DataFrame, two_labels: Params) -> None:
    assert check(with_rows(good_photos, "label_pixels", "{}", 2), None, two_labels)["notes"] == []


def test_a_photo_of_which_only_unclear_parts_are_marked_is_not_empty(
    good_photos: pd.DataFrame, two_labels: Params
) -> None:
    table = with_rows(with_rows(good_photos, "label_pixels", "{}", 3), "ignored_pixels", 40, 3)
    assert check(table, None, two_labels)["notes"] == []


def test_255_is_a_value_that_masks_may_hold(good_photos: pd.DataFrame, two_labels: Params) -> None:
    assert check(with_rows(good_photos, "class_ids", [3, 255]), None, two_labels)["notes"] == []


def test_a_stray_stroke_is_a_note(
    good_photos: pd.DataFrame, two_labels: Params, caplog: pytest.LogCaptureFixture
) -> None:
    table = with_rows(good_photos, "label_pixels", '{"coat": 100, "dress": 0}')
    assert check(table, None, two_labels)["notes"] == ["some labels cover hardly a pixel; look for stray strokes"]
    assert "note: some labels cover hardly a pixel" in caplog.text


def test_a_table_of_another_shape_is_refused(good_photos: pd.DataFrame, two_labels: Params) -> None:
    with pytest.raises(
        DatasetError, match=r"data/photos.parquet lacks the columns phash, disagreement; run `dvc repro"
    ):
        check(good_photos.drop(columns=["phash", "disagreement"]), None, two_labels)


def with_check(params: Params, **changes: Any) -> Params:
    return params.model_copy(update={"check": params.check.model_copy(update=changes)})


def test_severity_decides_whether_a_finding_stops(good_photos: pd.DataFrame, two_labels: Params) -> None:
    table = with_rows(good_photos, "label_pixels", "{}", 3)

    def notes(severity: str) -> object:
        severities = {**two_labels.check.severity, "empty_masks": severity}
        return check(table, None, with_check(two_labels, severity=severities))["notes"]

    assert notes("warning") == ["more than 20% of the photos have no garment"]
    assert notes("off") == []
    with pytest.raises(ChecksError):
        notes("critical")


def many(photos: pd.DataFrame, times: int = 4) -> pd.DataFrame:
    """Copies of the photos under names of their own."""
    copies = [
        photos.assign(
            uri=photos["uri"] + str(n), sha256=photos["sha256"] + str(n),
            annotations=[[f"{uuids[0]}-{n}"] for uuids in photos["annotations"]],
        )
        for n in range(times)
    ]  # fmt: skip
    return pd.concat(copies, ignore_index=True)


def test_a_label_of_unusual_size_is_named_with_its_photo(good_photos: pd.DataFrame, two_labels: Params) -> None:
    table = with_rows(many(good_photos), "label_pixels", '{"coat": 600}')
    [note] = check(table, None, two_labels)["notes"]
    assert note == ("labels much larger or smaller than on other photos (for example coat on gs://archive/0.png0)")
    assert check(with_rows(good_photos, "label_pixels", '{"coat": 600}'), None, two_labels)["notes"] == [], (
        "ten photos do not tell what is usual"
    )


@pytest.mark.parametrize(
    ("known", "who", "said"),
    [((), "user 7", "user 7"), (("ada@example.org",), "eve@example.org", "eve@example.org"), ((), "eve@x.org", "")],
)
def test_unknown_annotators_are_named(
    good_photos: pd.DataFrame, two_labels: Params, known: tuple[str, ...], who: str, said: str
) -> None:
    table = with_rows(good_photos, "annotators", ["ada@example.org", who])
    notes = check(table, None, with_check(two_labels, annotators=known))["notes"]
    assert notes == ([f"drawn by people who are not known (check.annotators) (for example {said})"] if said else [])


def test_people_who_disagree_much_are_noted(good_photos: pd.DataFrame, two_labels: Params) -> None:
    [note] = check(with_rows(good_photos, "disagreement", 0.5), None, two_labels)["notes"]
    assert note == "annotators disagree on more than 30% of what they labelled (for example 0.5)"
    assert check(with_rows(good_photos, "disagreement", 0.1), None, two_labels)["notes"] == []


def test_a_drift_against_the_last_version_is_described(good_photos: pd.DataFrame, two_labels: Params) -> None:
    before = many(good_photos)
    now = with_rows(before, "label_pixels", '{"coat": 100, "dress": 50}', 10)
    assert check(now, before, two_labels)["notes"] == ['the photos that show "dress" went from 0% to 25%']
    assert check(now, None, two_labels)["notes"] == []


class TestStage:
    @pytest.fixture
    def workspace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("data").mkdir()
        BEFORE.write_bytes(NO_PHOTOS)
        Path("params.yaml").write_bytes((PROJECT_ROOT / "params.yaml").read_bytes())

    def test_a_good_version_leaves_its_summary(self, workspace: None, good_photos: pd.DataFrame) -> None:
        good_photos.to_parquet(PHOTOS)
        checks.main()
        assert json.loads(CHECKS.read_text())["photos"] == 10
        page = PAGE.read_text(encoding="utf-8")
        assert "a photo stands in the table twice" in page
        assert "<title>" in page

    def test_a_bad_version_ends_the_stage_and_leaves_none(self, workspace: None, good_photos: pd.DataFrame) -> None:
        with_rows(good_photos, "uri", None).to_parquet(PHOTOS)
        with pytest.raises(SystemExit, match="check: the dataset is not published: uri is empty"):
            run_stage("check", checks.main)
        assert not CHECKS.exists()
        assert "uri is empty" in PAGE.read_text(encoding="utf-8"), "the page shows what was found"
