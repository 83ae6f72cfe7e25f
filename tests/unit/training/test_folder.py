"""Training and evaluation of a folder of masked photos, through the command line and without a stack."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli import app, trials
from pipelines.errors import ConfigurationError, ModelError
from pipelines.exchange.masked_photos import masked_photos
from pipelines.params import Params, load_params
from pipelines.segmentation.model import CARD, WEIGHTS, load_model
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.training.folder import load_named_model, train_on_folder
from tests.unit.training.conftest import SMALLEST

SMALL = {
    **SMALLEST, "encoder_weights": "none",
    "image_height": 64, "image_width": 32, "min_steps": 4, "max_steps": 4, "max_minutes": 0, "batch_size": 4,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty photos of noise, each with a box of another colour whose mask value is 2; photo sizes differ."""
    random = np.random.default_rng(7)
    for part in ("photos", "masks"):
        (tmp_path / part).mkdir()
    for number in range(20):
        height, width = 90 + number, 60
        photo = random.integers(0, 255, (height, width, 3), np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[20:60, 10:40] = 2
        photo[mask > 0] = (200, 30, 10 * number)
        Image.fromarray(photo).save(tmp_path / "photos" / f"{number}.jpg")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "labels.csv").write_text("index,label\n0,\n2,coat\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def small_params() -> Params:
    params = load_params(PROJECT_ROOT / "params.yaml")
    return params.model_copy(update={"train": params.train.model_copy(update=SMALL)})


def test_a_folder_trains_a_model_that_measures_itself(
    folder: Path, small_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = masked_photos(folder / "photos", folder / "masks", folder / "labels.csv", small_params)
    out = tmp_path / "out"

    metrics = train_on_folder(source, small_params, out)

    assert metrics["photos"] > 0
    assert {path.name for path in out.iterdir()} == {
        WEIGHTS, CARD, "training.json", "proposals.json", "metrics.json", "curves.csv", "report.html", "report",
    }  # fmt: skip
    steps = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert (steps["done_steps"], steps["planned_steps"]) == (4, 4)
    assert "data:image/jpeg" in (out / "report.html").read_text(encoding="utf-8")
    assert train_on_folder(source, small_params, out)["miou"] == metrics["miou"], "the same seed, the same model"

    monkeypatch.setattr(trials, "get_settings", lambda: Settings(_env_file=None, var=tmp_path / "var"))
    arguments = [str(folder / name) for name in ("photos", "masks", "labels.csv")]
    metrics_file = tmp_path / "metrics_file.json"
    done = CliRunner().invoke(app, ["evaluate", "masks", *arguments, "--model", str(out), "--json", str(metrics_file)])
    assert done.exit_code == 0, done.output
    result = json.loads(metrics_file.read_text(encoding="utf-8"))
    assert result["photos"] == 20
    for key in ("miou", "miou_foreground", "pixel_accuracy", "mean_class_accuracy", "boundary_iou"):
        assert result[key]["low"] <= result[key]["value"] <= result[key]["high"]
    assert set(result["iou"]) >= {"background", "coat"}


def test_a_folder_with_other_files_is_not_written_to(folder: Path, small_params: Params, tmp_path: Path) -> None:
    source = masked_photos(folder / "photos", folder / "masks", folder / "labels.csv", small_params)

    with pytest.raises(ConfigurationError, match="holds other files"):
        train_on_folder(source, small_params, folder)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, var=tmp_path)

    with pytest.raises(ModelError, match="nothing-here"):
        load_named_model(settings, str(tmp_path / "nothing-here"))
    with pytest.raises(ModelError, match="the only alias is champion"):
        load_named_model(settings, "models:/clothing@best")


def test_a_folder_is_loaded_as_a_model(model_that_sees_coats: Path, tmp_path: Path) -> None:
    model = load_named_model(Settings(_env_file=None, var=tmp_path), str(model_that_sees_coats))

    assert model.card.labels == load_model(model_that_sees_coats).card.labels
