"""A click model is trained and measured on a folder of masked photos, through the command line and without a stack."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.params import load_params
from pipelines.segmentation.click_network import CARD
from pipelines.segmentation.sam_decoder import DECODER
from pipelines.settings import PROJECT_ROOT, get_settings
from tests.unit.segmentation.small_sam2 import small_sam2
from tests.unit.training.conftest import SMALLEST
from tests.unit.training.test_folder import folder

__all__ = ["folder"]
SMALL = {
    "image_height": 64, "image_width": 64, "epochs": 1, "min_steps": 0, "max_minutes": 0, "batch_size": 2,
    "garments": 1, "tune_sam": True,
}  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings whose training is tiny, and whose small checkpoint of Segment Anything is on this machine."""
    small_sam2().save_pretrained(tmp_path / "checkpoint")
    values = load_params(PROJECT_ROOT / "params.yaml").model_dump(mode="json")
    values["train"] |= SMALLEST | {"encoder_weights": "none"}
    values["clicks"] |= SMALL
    workspace = tmp_path / "var" / "workspace"
    workspace.mkdir(parents=True)
    (workspace / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setenv("MASKLOOP_VAR", str(tmp_path / "var"))
    monkeypatch.setenv("MASKLOOP_SAM_CHECKPOINT", str(tmp_path / "checkpoint"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("environment")
def test_a_folder_trains_a_click_model_and_a_decoder_and_each_is_measured(folder: Path, tmp_path: Path) -> None:
    given, out = [str(folder / name) for name in ("photos", "masks", "labels.csv")], tmp_path / "model"
    (out / "sam").mkdir(parents=True)
    (out / "sam" / "old").touch()
    (out / CARD).touch()

    trained = CliRunner().invoke(app, ["train", *given, "--out", str(out), "--what", "clicks"], catch_exceptions=False)

    assert trained.exit_code == 0, trained.output
    assert {path.name for path in out.iterdir()} >= {CARD, "weights.safetensors", "measures.json", "clicks_report"}
    assert [path.name for path in (out / DECODER).parent.iterdir() if path.name == "old"] == []
    assert not (out / "work").exists()

    names = ["grabcut", str(out), str(out / "sam")]
    chosen = [part for name in names for part in ("--segmenter", name)]
    report = tmp_path / "measures.json"
    measured = CliRunner().invoke(
        app, ["evaluate", "clicks", *given, *chosen, "--garments", "2", "--json", str(report)], catch_exceptions=False
    )

    assert measured.exit_code == 0, measured.output
    segmenters = json.loads(report.read_text(encoding="utf-8"))["segmenters"]
    assert list(segmenters) == names
    assert all(len(values["iou_after"]) == 10 and values["garments"] == 2 for values in segmenters.values())
