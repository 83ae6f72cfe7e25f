"""Before the gate: on which photos candidates are judged, and what MLflow holds of it afterwards."""

import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pandas as pd
import pytest
import torch

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CURVES, MANIFEST, METRICS, MODEL, STEPS
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.models.reader import NETWORK
from pipelines.models.registry import Registry
from pipelines.models.run import Training
from pipelines.models.versions import DETECTABLE, SPLIT_CONFIG
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.segmentation.model import ModelCard, build_network, save_model
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.training.judge import choose_test_photos, judge

Splits = dict[str, list[str]]
AddVersion = Callable[..., ModelVersion]


class Manifests(dict[str, pd.DataFrame]):
    """Published versions by their tag."""

    def manifest(self, tag: str) -> pd.DataFrame:
        if tag not in self:
            raise DatasetError(f"{tag} names no data/manifest.parquet")
        return self[tag]


@pytest.fixture
def manifest(dataset: Dataset) -> pd.DataFrame:
    """The manifest of the splits, as the newer ones are: nothing was drawn by a model."""
    table = dataset.manifest().assign(blind=True, division="aaaa", mask_sha256="m", label_pixels="{}")
    dataset.write_table(MANIFEST, table)
    return table


@pytest.fixture
def published(manifest: pd.DataFrame) -> Manifests:
    return Manifests({"dataset-0001": manifest, "dataset-0002": manifest})


@pytest.fixture
def lenient(two_labels: Params) -> Params:
    """Three photos prove little: let the gate err more often."""
    promote = two_labels.promote.model_copy(update={"confidence": 0.7, "total_error": 0.4})
    return two_labels.model_copy(update={"promote": promote})


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    """A repository with two commits, of which the second one changed a stage."""
    clone = Workspace(tmp_path / "clone", Settings(_env_file=None, var=tmp_path / "var"))
    (clone.path / "pipelines").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=clone.path, check=True)
    for text in ("old", "new\nand longer"):
        (clone.path / "pipelines" / "stage.py").write_text(text)
        clone.git("add", "--all")
        clone.git("commit", "--quiet", "-m", text[:3])
    return clone


@pytest.fixture
def training(dataset: Dataset, tiny_card: ModelCard, clone: Workspace) -> Training:
    """A training whose network sees background everywhere, which is right for most pixels."""
    network = build_network(tiny_card)
    torch.nn.init.zeros_(network.segmentation_head[0].weight)
    network.segmentation_head[0].bias.data = torch.tensor([9.0, 0.0, 0.0])
    save_model(network, tiny_card, dataset.path(MODEL))
    dataset.path(CURVES).write_text("epoch,train_loss,val_miou\n0,1.5,\n", encoding="utf-8")
    dataset.path(METRICS).write_text(
        json.dumps({"miou": 0.3, "seconds_saved": 12.5, "served_agreement": 0.999, "per_class": {}})
    )
    copy(PROJECT_ROOT / "params.yaml", dataset.root)
    return Training(dataset.root, "dataset-0002", clone.git("rev-parse", "HEAD"), "+2 photos")


@pytest.fixture
def champion(
    registry: Registry, add_version: AddVersion, model_that_sees_coats: Path, clone: Workspace
) -> ModelVersion:
    """A champion that sees coats everywhere."""
    version = add_version()
    registry.client.log_artifacts(version.run_id, str(model_that_sees_coats), NETWORK)
    older = (PROJECT_ROOT / "params.yaml").read_text(encoding="utf-8").replace("lr: 0.002", "lr: 0.004")
    registry.client.log_text(version.run_id, older, "params.yaml")
    registry.tag_run(version.run_id, {"maskloop.dataset_revision": clone.git("rev-parse", "HEAD~1")})
    registry.promote(version, "first model")
    return version


@pytest.fixture
def challenger(registry: Registry, add_version: AddVersion, training: Training) -> ModelVersion:
    version = add_version(dataset="dataset-0002")
    registry.tag_run(version.run_id, {"maskloop.dataset_revision": training.revision})
    return version


Judge = Callable[..., ModelVersion]


@pytest.fixture
def put_before_the_gate(
    registry: Registry, published: Manifests, clone: Workspace, training: Training, lenient: Params
) -> Judge:
    def put(version: ModelVersion) -> ModelVersion:
        judged, reason = judge(registry, published, clone, training, version, lenient)  # type: ignore[arg-type]  # Manifests
        if reason is not None:
            registry.promote(judged, reason)
            judged = replace(judged, promoted=True, reason=reason)
        return judged

    return put


def gate_of(registry: Registry, version: ModelVersion) -> dict[str, object]:
    return dict(json.loads(registry.file(version, "gate.json")))


def test_a_first_model_whose_masks_save_time_is_promoted(
    registry: Registry, put_before_the_gate: Judge, challenger: ModelVersion
) -> None:
    judged = put_before_the_gate(challenger)

    assert judged.promoted
    assert registry.champion().version == challenger.version
    gate = gate_of(registry, challenger)
    assert (gate["compared"], gate["champion"], len(gate["test_families"])) == (False, "", 3)
    assert registry.looks_at(gate["test_families"]) == 0, "compared with nothing, it was no look"
    assert registry.file(challenger, "report.html").startswith("<!doctype html>")


def test_a_better_model_is_promoted_and_all_that_was_weighed_is_kept(
    registry: Registry, put_before_the_gate: Judge, champion: ModelVersion, challenger: ModelVersion
) -> None:
    judged = put_before_the_gate(challenger)

    assert judged.promoted, judged.reason
    assert registry.champion().version == challenger.version
    gate = gate_of(registry, challenger)
    assert (gate["compared"], gate["champion"], gate["looks"]) == (True, "clothing:v1", 0)
    assert registry.looks_at(gate["test_families"]) == 1
    tags = registry.client.get_model_version("clothing", str(challenger.version)).tags
    assert (tags[SPLIT_CONFIG], float(tags[DETECTABLE])) == ("aaaa", registry.detectable_gain("aaaa"))
    run = registry.client.get_run(challenger.run_id)
    assert run.data.metrics["gain"] > 0
    assert run.data.tags["maskloop.gain"].startswith(f"{run.data.metrics['gain']:+.3f} (")
    assert run.info.run_name.startswith(f"v{challenger.version} promoted · ")


def test_the_report_says_what_changed_since_the_champion(
    registry: Registry, put_before_the_gate: Judge, champion: ModelVersion, challenger: ModelVersion
) -> None:
    put_before_the_gate(challenger)

    page = registry.file(challenger, "report.html")

    assert "What changed since the champion, clothing:v1" in page
    assert "dataset-0001 → dataset-0002: +0 photos" in page
    for text in ("train.lr", "0.004", "0.002", "pipelines/stage.py", "1 file changed", "12.5 s per photo", "p = "):
        assert text in page


def test_a_training_that_was_cut_short_is_not_promoted(
    dataset: Dataset,
    registry: Registry,
    put_before_the_gate: Judge,
    champion: ModelVersion,
    add_version: AddVersion,
    training: Training,
) -> None:
    steps = {"planned_steps": 160, "done_steps": 23, "ended_by": "minutes", "started_from": "", "steps_before": 0}
    dataset.path(STEPS).write_text(json.dumps(steps), encoding="utf-8")
    version = add_version(dataset="dataset-0002", steps="23/160", ended_by="minutes")

    judged = put_before_the_gate(version)

    assert not judged.promoted
    assert f"cut short after 23 of 160 steps; `maskloop promote {version.version}`" in judged.reason
    assert gate_of(registry, version)["compared"] is False, "nothing could have come of this look"


def test_without_a_blind_photo_nothing_is_promoted(
    dataset: Dataset, registry: Registry, put_before_the_gate: Judge, champion: ModelVersion, challenger: ModelVersion,
    manifest: pd.DataFrame,
) -> None:  # fmt: skip
    dataset.write_table(MANIFEST, manifest.assign(blind=False))

    judged = put_before_the_gate(challenger)

    assert not judged.promoted
    assert "no test photo is left to judge it on" in judged.reason
    assert gate_of(registry, challenger)["anchored"] == 3
    assert "every metric favours that model" in registry.file(challenger, "report.html")


def test_a_version_that_was_killed_before_its_note_is_not_compared_again(
    registry: Registry, put_before_the_gate: Judge, challenger: ModelVersion
) -> None:
    registry.client.set_registered_model_alias("clothing", "champion", str(challenger.version))

    assert put_before_the_gate(challenger).promoted
    assert registry.champion().reason == "why was lost when the run was killed"


def test_photos_that_a_candidate_or_its_ancestors_learned_from_are_left_out(
    registry: Registry,
    published: Manifests,
    dataset: Dataset,
    splits: Splits,
    add_version: AddVersion,
    training: Training,
) -> None:
    """As after a change of `split`: photos that were trained on have come into the test split."""
    first_photo, second_photo, clean = splits["test"]
    elsewhere = {name: published["dataset-0001"].copy() for name in ("dataset-0000", "dataset-0001")}
    for name, photo in (("dataset-0000", first_photo), ("dataset-0001", second_photo)):
        elsewhere[name].loc[elsewhere[name]["sha256"] == photo, "split"] = "train"
    first = add_version(dataset="dataset-0000")
    second = add_version(dataset="dataset-0001", started_from=first.served_as)
    third = add_version(dataset="dataset-0002")

    manifests = Manifests(published | elsewhere)
    photos = choose_test_photos(registry, manifests, dataset, [third, second])  # type: ignore[arg-type]  # likewise

    assert (photos.judged, photos.anchored, photos.seen) == ((clean,), 0, 2)


def test_what_is_not_known_of_a_candidate_is_logged(
    dataset: Dataset, registry: Registry, published: Manifests, add_version: AddVersion, training: Training,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    gone = add_version(dataset="dataset-0009", started_from="clothing:v7")

    with caplog.at_level(logging.WARNING):
        photos = choose_test_photos(registry, published, dataset, [gone])  # type: ignore[arg-type]  # likewise

    assert len(photos.judged) == 3
    assert "started from clothing:v7, which is gone" in caplog.text
    assert "dataset-0009 names no data/manifest.parquet" in caplog.text
