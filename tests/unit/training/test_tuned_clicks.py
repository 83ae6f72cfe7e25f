"""A decoder of Segment Anything is tuned with the click model, measured before its gate, and registered with it."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CLICKS
from pipelines.models.reader import ANSWERS, NETWORK
from pipelines.models.registry import Registry
from pipelines.models.run import CLICK_MODEL, Training
from pipelines.params import Params
from pipelines.segmentation.click_network import load_clicks
from pipelines.segmentation.sam import load_sam
from pipelines.segmentation.sam_decoder import DECODER, tuned
from pipelines.settings import PROJECT_ROOT, Settings, get_settings
from pipelines.training import train_clicks as stage
from pipelines.training.clicks_pipeline import click_settings, judge
from pipelines.training.evaluate_clicks import evaluate_clicks
from pipelines.training.train_clicks import train_clicks
from pipelines.training.tune_sam import tune_sam
from tests.unit.segmentation.small_sam2 import small_sam2


@pytest.fixture
def small(small_training: Params) -> Params:
    """The smallest training of a click model, with a decoder."""
    fields = {
        "image_height": 64, "image_width": 64, "predict_scale": 1.0, "epochs": 1, "min_steps": 0, "batch_size": 2,
        "garments": 1, "tune_sam": True,
    }  # fmt: skip
    return small_training.model_copy(update={"clicks": small_training.clicks.model_copy(update=fields)})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    small_sam2().save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings, in the environment as well, whose checkpoint is on this machine."""
    monkeypatch.setenv("MASKLOOP_VAR", str(tmp_path / "var"))
    monkeypatch.setenv("MASKLOOP_SAM_CHECKPOINT", str(checkpoint))
    get_settings.cache_clear()
    yield Settings(_env_file=None)
    get_settings.cache_clear()


def test_the_stage_tunes_the_checkpoint_of_the_settings(
    dataset: Dataset, small: Params, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset.path(Path("params.yaml")).write_text(yaml.safe_dump(small.model_dump(mode="json")), encoding="utf-8")
    monkeypatch.chdir(dataset.root)

    stage.main()

    base = load_sam(settings.sam_checkpoint, settings.var / "segment-anything")
    assert tuned(base, dataset.path(CLICKS) / DECODER).version.startswith(f"{base.version}+tuned-")
    card = json.loads((dataset.path(CLICKS) / DECODER).with_suffix(".json").read_text())
    assert (card["checkpoint"], card["photos"], card["steps"]) == (base.version, 5, 3)
    load_clicks(dataset.path(CLICKS))


def test_without_a_checkpoint_the_log_says_what_to_do(
    dataset: Dataset, small: Params, caplog: pytest.LogCaptureFixture
) -> None:
    train_clicks(dataset, small, None)

    assert "no decoder is tuned" in caplog.text
    assert "MASKLOOP_SAM_CHECKPOINT" in caplog.text
    assert not (dataset.path(CLICKS) / DECODER).exists()
    load_clicks(dataset.path(CLICKS))


def test_a_decoder_that_cannot_be_tuned_costs_no_click_model(
    dataset: Dataset, small: Params, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    sam = load_sam(settings.sam_checkpoint, settings.var)
    with torch.no_grad():
        next(sam.decoder.parameters()).fill_(np.inf)

    train_clicks(dataset, small, sam)

    assert "is not tuned: the loss on photo" in caplog.text
    assert not (dataset.path(CLICKS) / DECODER).exists()
    load_clicks(dataset.path(CLICKS))


def test_the_gate_measures_both_decoders_and_the_version_carries_its_own(
    dataset: Dataset, small: Params, settings: Settings, empty_mlflow: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model puts the code it carries in front
    settings = settings.model_copy(update={"mlflow_url": empty_mlflow})
    registry, folder = Registry(click_settings(settings)), settings.var / "segment-anything"
    training = Training(dataset.root, "dataset-0001", "f" * 40, "+10 photos", outputs=CLICK_MODEL)
    shutil.copy(PROJECT_ROOT / "params.yaml", dataset.root)
    train_clicks(dataset, small, load_sam(settings.sam_checkpoint, folder))
    _champion(registry, dataset.path(CLICKS))
    fingerprint, decoder = training.fingerprint, (dataset.path(CLICKS) / DECODER).read_bytes()

    tune_sam(dataset, small, load_sam(settings.sam_checkpoint, folder), dataset.path(CLICKS), lr=0.01)
    evaluate_clicks(dataset, small)
    assert training.fingerprint != fingerprint, "the same click network with another decoder is another version"
    challenger = registry.register(training, small, np.zeros((32, 32, 3), np.uint8))
    judged, reason = judge(settings, registry, training, challenger, small)

    assert (judged.served_as, reason) == ("clicks:v2", None)
    page = registry.file(challenger, "gate.md")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    assert rows[1:] == ["clicks", "grabcut", "clicks:v1", "sam", "tuned_sam", "tuned_sam of clicks:v1"]
    noted = json.loads(registry.client.get_model_version("clicks", "1").tags[ANSWERS])
    assert set(noted["measured"]) == {"clicks", "grabcut", "sam", "tuned_sam"}
    carried = registry.download(challenger, tmp_path / "carried") / DECODER
    assert carried.read_bytes() == (dataset.path(CLICKS) / DECODER).read_bytes() != decoder


def _champion(registry: Registry, clicks: Path) -> None:
    """Register a folder as the click model that serves."""
    client = registry.client
    run = client.create_run(client.create_experiment(registry.name)).info.run_id
    client.log_artifacts(run, str(clicks), NETWORK)
    client.create_registered_model(registry.name)
    client.create_model_version(registry.name, f"runs:/{run}/{NETWORK}", run)
    version = registry.version("1")
    assert version is not None
    registry.promote_by_hand(version)
