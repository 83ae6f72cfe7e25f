"""What a training starts from: weights are matched by the ids of labels, and an unfinished training is gone on with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, MODEL, START, STEPS
from pipelines.errors import ModelError
from pipelines.params import Label, Params
from pipelines.segmentation.model import (
    CARD,
    WEIGHTS,
    ModelCard,
    Probabilities,
    build_network,
    load_card,
    new_network,
    save_model,
)
from pipelines.training.start import Start, take_over, take_start
from pipelines.training.train import train

Splits = dict[str, list[str]]
COAT, DRESS, HAT = (
    Label(id=number, name=name, color="#1f77b4") for number, name in ((3, "coat"), (7, "dress"), (5, "hat"))
)


def with_options(params: Params, **options: Any) -> Params:
    return params.model_copy(update={"train": params.train.model_copy(update=options)})


def network_of(card: ModelCard, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_network(card).eval()


def shares(network: torch.nn.Module) -> torch.Tensor:
    photos = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return Probabilities(network, mirrored=False)(photos)


def lay_out(dataset: Dataset, **steps: Any) -> None:
    """Put the model of the last training where the next one looks for what it starts from."""
    shutil.rmtree(dataset.path(START), ignore_errors=True)
    shutil.copytree(dataset.path(MODEL), dataset.path(START))
    noted = json.loads((dataset.path(START) / STEPS.name).read_text())
    (dataset.path(START) / STEPS.name).write_text(json.dumps(noted | steps))


@pytest.mark.parametrize("architecture", ["FPN", "UPerNet", "DeepLabV3Plus", "Segformer"])
def test_renamed_and_reordered_labels_keep_what_the_network_knows(tiny_card: ModelCard, architecture: str) -> None:
    card = replace(tiny_card, architecture=architecture, labels={"coat": 3, "dress": 7, "hat": 5})
    source = network_of(card, 1)
    now = replace(card, labels={"bonnet": 5, "coat": 3, "gown": 7})
    network = network_of(now, 2)

    take_over(network, now, source.state_dict(), card)

    torch.testing.assert_close(shares(network), shares(source)[:, [0, 3, 1, 2]], rtol=0, atol=1e-6)


def test_a_new_label_begins_with_random_weights_and_a_removed_one_is_gone(tiny_card: ModelCard) -> None:
    source = network_of(tiny_card, 1)
    now = replace(tiny_card, labels={"hat": 5, "dress": 7})
    network = network_of(now, 2)
    initial = network.segmentation_head[0].weight.clone()

    take_over(network, now, source.state_dict(), tiny_card)

    weights, before = network.segmentation_head[0].weight, source.segmentation_head[0].weight
    assert torch.equal(weights[[0, 2]], before[[0, 2]])
    assert torch.equal(weights[1], initial[1])
    assert all(
        torch.equal(value, source.encoder.state_dict()[name]) for name, value in network.encoder.state_dict().items()
    )


def test_taking_over_draws_no_random_numbers(tiny_card: ModelCard) -> None:
    source, network = network_of(tiny_card, 1), network_of(tiny_card, 2)
    state = torch.get_rng_state()

    take_over(network, tiny_card, source.state_dict(), tiny_card)

    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_from_the_champion_goes_on_where_it_was(dataset: Dataset, small_training: Params) -> None:
    train(dataset, with_options(small_training, epochs=30, lr=0.01))
    loss = pd.read_csv(dataset.path(CURVES))["train_loss"]
    lay_out(dataset, version="clothing:v3")

    train(dataset, with_options(small_training, start="champion", epochs=1, lr=1e-9))

    assert pd.read_csv(dataset.path(CURVES))["train_loss"].iloc[0] < loss.iloc[0] * 0.7
    assert json.loads(dataset.path(STEPS).read_text()) == {
        "planned_steps": 2, "done_steps": 2, "ended_by": "schedule", "started_from": "clothing:v3", "steps_before": 0,
    }  # fmt: skip


def test_a_renamed_label_does_not_throw_the_champion_away(
    dataset: Dataset, small_training: Params, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipelines")
    train(dataset, with_options(small_training, epochs=30, lr=0.01))
    loss = pd.read_csv(dataset.path(CURVES))["train_loss"]
    lay_out(dataset)
    renamed = small_training.model_copy(update={"labels": (HAT, DRESS, COAT.model_copy(update={"name": "overcoat"}))})

    train(dataset, with_options(renamed, start="champion", epochs=1, lr=1e-9))

    assert load_card(dataset.path(MODEL)).labels == {"hat": 5, "dress": 7, "overcoat": 3}
    assert pd.read_csv(dataset.path(CURVES))["train_loss"].iloc[0] < loss.iloc[0]
    assert "new to the network: hat" in caplog.text
    assert "the training starts from the weights of the champion" in caplog.text


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_fitting_champion_a_training_starts_from_scratch(
    dataset: Dataset, small_training: Params, exists: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipelines")
    train(dataset, small_training)
    weights = (dataset.path(MODEL) / WEIGHTS).read_bytes()
    if exists:
        lay_out(dataset)
        card = json.loads((dataset.path(START) / CARD).read_text())
        (dataset.path(START) / CARD).write_text(json.dumps({**card, "encoder": "resnet18"}))

    train(dataset, with_options(small_training, start="champion"))

    assert ("the champion has other encoder" if exists else "there is no champion to start from") in caplog.text
    assert (dataset.path(MODEL) / WEIGHTS).read_bytes() == weights
    assert json.loads(dataset.path(STEPS).read_text())["started_from"] == ""


def test_an_unfinished_training_is_finished_whatever_the_parameters_say(
    dataset: Dataset, small_training: Params
) -> None:
    train(dataset, with_options(small_training, epochs=30, lr=0.01))
    loss = pd.read_csv(dataset.path(CURVES))["train_loss"]
    lay_out(dataset, version="clothing:v2", planned_steps=60, done_steps=40, ended_by="minutes")

    train(dataset, with_options(small_training, start="scratch", epochs=30, lr=1e-9))

    curve = pd.read_csv(dataset.path(CURVES))
    assert json.loads(dataset.path(STEPS).read_text()) == {
        "planned_steps": 60, "done_steps": 60, "ended_by": "schedule", "started_from": "clothing:v2",
        "steps_before": 40,
    }  # fmt: skip
    assert (curve["step"].iloc[0], curve["step"].iloc[-1]) == (41, 60)
    assert curve["train_loss"].iloc[0] < loss.iloc[0] * 0.7


@pytest.mark.parametrize("steps", [{"ended_by": "patience"}, {"done_steps": 60}])
def test_a_finished_training_is_not_gone_on_with(
    dataset: Dataset, small_training: Params, steps: dict[str, Any]
) -> None:
    network, card = new_network(small_training.train, small_training.label_ids)
    save_model(network, card, dataset.path(START))
    before = {name: values.clone() for name, values in network.state_dict().items()}
    noted = {"planned_steps": 60, "done_steps": 40, "ended_by": "minutes"} | steps
    (dataset.path(START) / STEPS.name).write_text(json.dumps(noted))
    other, _ = new_network(small_training.train, small_training.label_ids)

    assert take_start(dataset, other, card, "scratch") == Start()
    assert any(not torch.equal(values, before[name]) for name, values in other.state_dict().items())


def test_a_champion_that_cannot_be_read_stops_the_training(dataset: Dataset, small_training: Params) -> None:
    network, card = new_network(small_training.train, small_training.label_ids)
    save_model(network, card, dataset.path(START))
    (dataset.path(START) / WEIGHTS).write_bytes(b"nothing")

    with pytest.raises(ModelError, match="cannot be loaded"):
        take_start(dataset, network, card, "champion")


def test_steps_that_make_no_sense_stop_the_training(dataset: Dataset, small_training: Params, tmp_path: Path) -> None:
    network, card = new_network(small_training.train, small_training.label_ids)
    save_model(network, card, dataset.path(START))
    (dataset.path(START) / STEPS.name).write_text("[1]")

    with pytest.raises(ModelError, match="does not say how many steps"):
        take_start(dataset, network, card, "scratch")
    assert load_file(dataset.path(START) / WEIGHTS)
