"""The champion follows the registry, and a good model keeps serving whatever happens there."""

import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.errors import ModelError
from pipelines.models.champion import ChampionPoller
from pipelines.segmentation.model import WEIGHTS, ClothingModel, load_model

NAME = "clothing"


class RegistryWithModels:
    """The registry of a tracking server: registers model folders and points the alias at versions."""

    def __init__(self, address: str, files: Path) -> None:
        self.address, self._files, self._client = address, files, MlflowClient(address)
        self._experiment = self._client.create_experiment(NAME, artifact_location=str(files / "artifacts"))
        self._client.create_registered_model(NAME)

    def register(self, folder: Path) -> int:
        run = self._client.create_run(self._experiment).info.run_id
        self._client.log_artifacts(run, str(folder), "network")
        return int(self._client.create_model_version(NAME, f"runs:/{run}/network", run).version)

    def promote(self, folder: Path) -> int:
        version = self.register(folder)
        self._client.set_registered_model_alias(NAME, "champion", str(version))
        return version

    def demote(self) -> None:
        self._client.delete_registered_model_alias(NAME, "champion")

    def delete_files(self) -> None:
        shutil.rmtree(self._files / "artifacts")


@pytest.fixture
def registry(empty_mlflow: str, tmp_path: Path) -> RegistryWithModels:
    return RegistryWithModels(empty_mlflow, tmp_path)


@pytest.fixture
def broken_model(model_that_sees_coats: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(model_that_sees_coats, tmp_path / "broken"))
    (folder / WEIGHTS).write_bytes(b"half an upload")
    return folder


@pytest.fixture
def unreachable(free_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a tracking server that is down."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://127.0.0.1:{free_port}"


def load(folder: Path, version: str) -> ClothingModel:
    return load_model(folder, version=version)


def champion_of(address: str, cache_dir: Path) -> ChampionPoller[ClothingModel]:
    return ChampionPoller(NAME, address, cache_dir, load)


def served(champion: ChampionPoller[ClothingModel]) -> str:
    return champion.model.version if champion.model else ""


def test_a_registry_without_a_model_is_no_problem(empty_mlflow: str, tmp_path: Path) -> None:
    champion = champion_of(empty_mlflow, tmp_path / "cache")

    assert not champion.refresh()
    assert (champion.model, champion.problem) == (None, "")


def test_the_champion_follows_the_alias_and_no_broken_model_replaces_it(
    registry: RegistryWithModels, model_that_sees_coats: Path, broken_model: Path, tmp_path: Path
) -> None:
    champion = champion_of(registry.address, tmp_path / "cache")

    registry.register(model_that_sees_coats)
    assert not champion.refresh(), "a version without the alias does not serve"

    for version in (2, 3):
        assert registry.promote(model_that_sees_coats) == version
        assert champion.refresh()
        assert served(champion) == f"clothing:v{version}"
        assert not champion.refresh(), "the same champion is not loaded again"

    registry.promote(broken_model)
    assert not champion.refresh()
    assert served(champion) == "clothing:v3"
    assert WEIGHTS in champion.problem

    registry.promote(model_that_sees_coats)
    assert champion.refresh()
    assert (served(champion), champion.problem) == ("clothing:v5", "")


def test_a_champion_that_was_withdrawn_serves_no_more(
    registry: RegistryWithModels, model_that_sees_coats: Path, unreachable: str, tmp_path: Path
) -> None:
    champion = champion_of(registry.address, tmp_path / "cache")
    registry.promote(model_that_sees_coats)
    champion.refresh()
    registry.demote()

    assert champion.refresh()
    assert champion.model is None

    later = champion_of(unreachable, tmp_path / "cache")
    assert not later.refresh(), "nor after a restart without the registry"


def test_the_last_good_model_serves_while_the_registry_is_down(
    registry: RegistryWithModels, model_that_sees_coats: Path, broken_model: Path, unreachable: str, tmp_path: Path
) -> None:
    before = champion_of(registry.address, tmp_path / "cache")
    registry.promote(model_that_sees_coats)
    before.refresh()
    registry.promote(broken_model)
    before.refresh()

    after_restart = champion_of(unreachable, tmp_path / "cache")

    assert after_restart.refresh()
    assert served(after_restart) == "clothing:v1"
    assert f"cannot ask MLflow at {unreachable}" in after_restart.problem
    assert (after_restart.model.index_mask(np.zeros((9, 8, 3), np.uint8)) == 3).all()


def test_the_kept_model_serves_before_the_registry_answers(
    registry: RegistryWithModels, model_that_sees_coats: Path, tmp_path: Path
) -> None:
    registry.promote(model_that_sees_coats)
    champion_of(registry.address, tmp_path / "cache").refresh()
    served_while_asking = []

    class SlowRegistry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served_while_asking.append(served(restarted))
            self.send_error(400)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), SlowRegistry) as server:
        Thread(target=server.handle_request).start()
        restarted = champion_of(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
        restarted.refresh()

    assert served_while_asking == ["clothing:v1"]


def test_without_registry_and_kept_model_nothing_serves_and_it_says_so(unreachable: str, tmp_path: Path) -> None:
    champion = champion_of(unreachable, tmp_path / "cache")

    assert not champion.refresh()
    assert champion.model is None
    assert "cannot ask MLflow" in champion.problem


def test_files_that_are_gone_keep_the_model_that_serves(
    registry: RegistryWithModels, model_that_sees_coats: Path, tmp_path: Path
) -> None:
    champion = champion_of(registry.address, tmp_path / "cache")
    registry.promote(model_that_sees_coats)
    champion.refresh()
    registry.promote(model_that_sees_coats)
    registry.delete_files()

    assert not champion.refresh()
    assert served(champion) == "clothing:v1"
    assert "cannot download clothing:v2 from MLflow" in champion.problem
    pointer, copy = sorted((tmp_path / "cache").iterdir())
    assert (pointer.name, pointer.read_text()) == ("champion.txt", copy.name)
    assert copy.name.startswith("v1-")


def test_a_model_that_cannot_be_loaded_is_not_downloaded_with_every_look(
    registry: RegistryWithModels, model_that_sees_coats: Path, broken_model: Path, tmp_path: Path
) -> None:
    champion = champion_of(registry.address, tmp_path / "cache")
    registry.promote(broken_model)
    champion.refresh()
    first = champion.problem
    registry.delete_files()

    champion.refresh()

    assert WEIGHTS in champion.problem
    assert champion.problem == first, "it says again what it found, without having looked again"


def test_another_registrys_version_of_the_same_number_is_another_model(
    registry: RegistryWithModels, model_that_sees_coats: Path, tmp_path: Path
) -> None:
    champion_folder = tmp_path / "cache"
    (champion_folder / "v1-of-another-run").mkdir(parents=True)
    registry.promote(model_that_sees_coats)
    champion = champion_of(registry.address, champion_folder)

    assert champion.refresh()
    assert served(champion) == "clothing:v1"


def cold_start_from(folder: Path) -> Callable[[], ClothingModel]:
    return lambda: load_model(folder, version="cold-start:b2@0a1b2c3d")


def test_the_cold_start_serves_until_there_is_a_champion_and_again_without_it(
    registry: RegistryWithModels, model_that_sees_coats: Path, tmp_path: Path
) -> None:
    cold = cold_start_from(model_that_sees_coats)
    champion = ChampionPoller(NAME, registry.address, tmp_path / "cache", load, cold)

    assert champion.refresh()
    assert served(champion) == "cold-start:b2@0a1b2c3d"
    registry.promote(model_that_sees_coats)
    champion.refresh()
    assert served(champion) == "clothing:v1"
    registry.demote()
    champion.refresh()
    assert served(champion) == "cold-start:b2@0a1b2c3d"


def test_the_cold_start_serves_when_the_registry_is_down_and_nothing_is_kept(
    unreachable: str, model_that_sees_coats: Path, tmp_path: Path
) -> None:
    champion = ChampionPoller(NAME, unreachable, tmp_path / "cache", load, cold_start_from(model_that_sees_coats))

    assert champion.refresh()
    assert served(champion).startswith("cold-start")
    assert "cannot ask MLflow" in champion.problem


def test_a_cold_start_that_cannot_be_had_goes_on_being_named(empty_mlflow: str, tmp_path: Path) -> None:
    tries: list[int] = []

    def nothing() -> ClothingModel:
        tries.append(1)
        raise ModelError("no line to the hub")

    champion = ChampionPoller(NAME, empty_mlflow, tmp_path / "cache", load, nothing)
    for _ in range(3):
        champion.refresh()
        assert champion.problem == "no line to the hub"
    assert len(tries) == 1
