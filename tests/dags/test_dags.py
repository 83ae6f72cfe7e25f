"""What the DAG files declare, as Airflow's processor reads them: who wakes whom, and the limits of every task."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines import contract
from pipelines.settings import PROJECT_ROOT

FILES = sorted((PROJECT_ROOT / "dags").glob("*.py"))
HOUR = 3600


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All DAG files as an Airflow without any settings or database reads them."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MASKLOOP"))}
    home = {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
    program = Path(__file__).with_name("parse_dags.py")
    done = subprocess.run(
        [sys.executable, str(program)], env=clean | home, cwd=home["AIRFLOW_HOME"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def dags(parsed: dict[str, Any]) -> dict[str, Any]:
    return parsed["dags"]


def test_every_file_can_be_read(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert set(parsed["dags"]) == contract.DAG_IDS


def test_the_dags_are_those_of_the_contract_and_so_are_their_assets(dags: dict[str, Any]) -> None:
    tasks = [task for dag in dags.values() for task in dag["tasks"].values()]
    used = {asset for dag in dags.values() for asset in dag["woken_by"]} | {
        asset for task in tasks for asset in task["wakes"]
    }
    assert set(dags) == contract.DAG_IDS
    assert used == {value for name, value in vars(contract).items() if name.endswith("_ASSET")}


def test_each_dag_has_the_name_of_its_file(dags: dict[str, Any]) -> None:
    assert {f"{dag_id}.py" for dag_id in dags} == {dag["file"] for dag in dags.values()}


def test_reading_takes_no_time_and_loads_nothing_heavy(parsed: dict[str, Any]) -> None:
    assert parsed["loaded"] == []
    assert {file: took for file, took in parsed["seconds"].items() if took > 2} == {}


@pytest.mark.parametrize(
    ("dag_id", "needs", "woken_by", "cron"),
    [
        ("ingest_images", "AssetAll", ["bucket"], "5 * * * *"),
        ("prelabel_images", "AssetAny", ["model", "tasks"], "*/10 * * * *"),
        ("sync_annotations", "AssetAll", ["annotations"], "*/30 * * * *"),
        ("retrain_model", "AssetAll", ["dataset"], "20 * * * *"),
        ("review_labels", "AssetAll", ["model"], "40 5 * * 1"),
        ("free_space", None, [], "10 4 * * *"),
    ],
)
def test_dags_are_woken_by_assets_and_by_the_clock_as_well(
    dags: dict[str, Any], dag_id: str, needs: str | None, woken_by: list[str], cron: str
) -> None:
    dag = dags[dag_id]
    assert dag["woken_by"] == [f"maskloop://{name}" for name in woken_by]
    assert (dag["needs"], dag["cron"]) == (needs, cron)


@pytest.mark.parametrize(
    ("dag_id", "wakes"),
    [
        ("ingest_images", "tasks"),
        ("prelabel_images", "predictions"),
        ("sync_annotations", "dataset"),
        ("retrain_model", "model"),
    ],
)
def test_each_dag_wakes_the_next(dags: dict[str, Any], dag_id: str, wakes: str) -> None:
    assert [uri for task in dags[dag_id]["tasks"].values() for uri in task["wakes"]] == [f"maskloop://{wakes}"]


def test_a_champion_chosen_by_hand_is_reported_on_the_asset_that_retraining_reports_on(dags: dict[str, Any]) -> None:
    assert [name for task in dags["retrain_model"]["tasks"].values() for name in task["wakes"]] == [
        contract.MODEL_ASSET
    ]


@pytest.mark.parametrize("dag_id", sorted(contract.DAG_IDS))
def test_one_run_at_a_time_and_none_for_the_past(dags: dict[str, Any], dag_id: str) -> None:
    dag = dags[dag_id]
    assert dag["max_active_runs"] == 1
    assert not dag["catchup"]
    assert HOUR <= dag["timeout"] <= 24 * HOUR


@pytest.mark.parametrize("dag_id", sorted(contract.DAG_IDS))
def test_every_task_is_retried_and_ends_before_its_run_must(dags: dict[str, Any], dag_id: str) -> None:
    for task_id, task in dags[dag_id]["tasks"].items():
        assert task["retries"] >= 2, task_id
        assert task["timeout"], task_id
        assert task["timeout"] < dags[dag_id]["timeout"], task_id


@pytest.mark.parametrize("dag_id", sorted(contract.DAG_IDS))
def test_people_are_told_of_every_run_that_fails(dags: dict[str, Any], dag_id: str) -> None:
    assert dags[dag_id]["told_of_failure"] == ["tell_people"]


def test_whoever_writes_datasets_waits_for_the_pool_of_one(dags: dict[str, Any]) -> None:
    others = ("log_time_saved", "pass_on_remarks", "write_progress_page")
    writers = {name: task["pool"] for name, task in dags["sync_annotations"]["tasks"].items() if name not in others}
    assert writers == dict.fromkeys(["read", "compile", "check", "publish"], contract.WORKSPACE_POOL)


@pytest.mark.parametrize(
    ("dag_id", "steps"),
    [
        ("sync_annotations", ["read", "compile", "check", "publish", "log_time_saved"]),
        ("retrain_model", ["decide", "train", "evaluate", "gate", "promote"]),
    ],
)
def test_a_dag_shows_its_steps_in_a_row(dags: dict[str, Any], dag_id: str, steps: list[str]) -> None:
    tasks = {name: task["before"] for name, task in dags[dag_id]["tasks"].items() if name != "pass_on_remarks"}
    own = {name: [after for after in tasks[name] if after in steps] for name in tasks if name in steps}
    assert own == {step: [following] for step, following in pairwise(steps)} | {steps[-1]: []}


def test_the_click_model_follows_the_clothing_model_whatever_became_of_it(dags: dict[str, Any]) -> None:
    tasks = {name: task["before"] for name, task in dags["retrain_model"]["tasks"].items()}

    assert [name for name, before in tasks.items() if "train_clicks" in before] == ["evaluate", "gate"]
    assert tasks["train_clicks"] == ["evaluate_clicks"]
    assert tasks["evaluate_clicks"] == ["gate_clicks"]
    assert tasks["gate_clicks"] == ["promote_clicks"]
    assert tasks["promote_clicks"] == []


def test_what_people_say_is_passed_on_whether_or_not_a_dataset_can_be_made(dags: dict[str, Any]) -> None:
    tasks = dags["sync_annotations"]["tasks"]
    assert tasks["pass_on_remarks"]["before"] == []
    assert not any("pass_on_remarks" in task["before"] for task in tasks.values())


def test_every_pool_that_a_task_waits_for_is_set_up(dags: dict[str, Any]) -> None:
    named = {task["pool"] for dag in dags.values() for task in dag["tasks"].values()} - {"default_pool"}
    assert named == set(contract.POOLS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dag_file_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80
