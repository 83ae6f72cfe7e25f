"""What the service and the pipelines read of a registry, also of one that was filled long ago."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.errors import ModelError, ServiceError
from pipelines.models.reader import RegistryReader
from pipelines.models.registry import Registry
from pipelines.segmentation.model import load_model
from pipelines.settings import PROJECT_ROOT


def test_it_is_imported_without_mlflow_and_torch() -> None:
    program = "import sys, pipelines.models.reader; print(*({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_does_not_exist_is_none(empty_mlflow: str) -> None:
    reader = RegistryReader("clothing", empty_mlflow)

    assert [reader.champion(), reader.version(1), reader.version("no number")] == [None, None, None]


def test_a_server_that_is_down_is_named_with_what_to_check(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    reader = RegistryReader("clothing", f"http://127.0.0.1:{free_port}")

    for ask in (reader.champion, lambda: reader.version(1)):
        with pytest.raises(ServiceError, match=f"MLflow at http://127.0.0.1:{free_port}.*MASKLOOP_MLFLOW_URL"):
            ask()


def test_files_that_are_gone_are_named_by_version(empty_mlflow: str, tmp_path: Path) -> None:
    client = MlflowClient(empty_mlflow)
    run_id = client.create_run(client.create_experiment("clothing", str(tmp_path / "artifacts"))).info.run_id

    with pytest.raises(ModelError, match="cannot download clothing:v4 from MLflow"):
        RegistryReader("clothing", empty_mlflow).download_network(4, run_id, tmp_path)


@pytest.fixture
def registry_of_long_ago(registry: Registry, model_that_sees_coats: Path, tmp_path: Path) -> Registry:
    """Two versions with the tags, artifacts and alias as registries of people hold them, spelled out."""
    client = registry.client
    experiment = client.create_experiment("clothing", str(tmp_path / "artifacts"))
    client.create_registered_model("clothing", tags={"maskloop.served": "[1, 2]"})
    for number in (1, 2):
        tags = {"maskloop.gate": "promoted: better", "maskloop.fingerprint": f"fingerprint-{number}"}
        run_id = client.create_run(experiment, tags=tags).info.run_id
        client.log_metric(run_id, "test_miou", 0.5)
        client.log_artifacts(run_id, str(model_that_sees_coats), "network")
        client.log_text(run_id, json.dumps({"compared": True, "test_families": ["a"]}), "gate.json")
        tags = {
            "maskloop.fingerprint": f"fingerprint-{number}", "maskloop.dataset": f"dataset-000{number}",
            "maskloop.steps": "120/160", "maskloop.ended_by": "patience", "maskloop.decision": "better",
            "maskloop.paused": "masks cost time", "maskloop.started_from": "clothing:v1" if number == 2 else "",
            "maskloop.division": "aaaa", "maskloop.detectable_gain": "0.0500",
        }  # fmt: skip
        client.create_model_version("clothing", f"runs:/{run_id}/network", run_id, tags=tags)
    client.set_registered_model_alias("clothing", "champion", "2")
    return registry


def test_a_registry_of_long_ago_stays_readable(registry_of_long_ago: Registry, tmp_path: Path) -> None:
    registry = registry_of_long_ago

    champion = registry.champion()

    assert (champion.served_as, champion.dataset, champion.miou) == ("clothing:v2", "dataset-0002", 0.5)
    assert (champion.done_steps, champion.planned_steps, champion.ended_by) == (120, 160, "patience")
    assert (champion.reason, champion.paused) == ("better", "masks cost time")
    assert [version.version for version in registry.ancestors(champion)[0]] == [1]
    assert registry.detectable_gain("aaaa") == 0.05
    assert registry.looks_at(["a"]) == 2
    assert load_model(registry.download(champion, tmp_path / "download")).card.labels == {"coat": 3, "dress": 7}
    assert registry.roll_back()[1].version == 1
