"""Names that the DAG files and several packages share have one home, and agree with what they name.

That the DAG files declare these DAGs, assets and pools is tested in tests/dags.
"""

import ast
from pathlib import Path
from typing import get_args

import pytest

from pipelines import contract
from pipelines.local_stack import lifecycle
from pipelines.settings import PROJECT_ROOT, Settings

SHARED = {value for name, value in vars(contract).items() if name.endswith(("_ASSET", "_DAG"))}
FILES = sorted(path for folder in ("pipelines", "dags", "scripts") for path in (PROJECT_ROOT / folder).rglob("*.py"))


def strings(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_contract_imports_nothing_but_typing() -> None:
    tree = ast.parse(Path(contract.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [getattr(node, "module", None) for node in imports] == ["typing"]


def test_no_other_module_spells_an_asset_or_a_dag() -> None:
    spelled = {path: strings(path) & SHARED for path in FILES if path != Path(contract.__file__)}
    assert {str(path): names for path, names in spelled.items() if names} == {}


@pytest.mark.parametrize("dag_id", sorted(contract.DAG_IDS))
def test_each_dag_is_a_file(dag_id: str) -> None:
    assert (PROJECT_ROOT / "dags" / f"{dag_id}.py").exists()


def test_the_stack_sets_up_the_pools_and_waits_for_the_dags_of_the_contract() -> None:
    assert lifecycle.POOLS is contract.POOLS
    assert lifecycle.DAG_IDS is contract.DAG_IDS


@pytest.mark.parametrize("service", get_args(contract.ServiceName))
def test_each_service_has_settings_of_its_name(service: str) -> None:
    assert {f"{service}_port", f"{service}_url"} <= set(Settings.model_fields)


def test_model_services_are_services() -> None:
    assert set(get_args(contract.ModelService)) < set(get_args(contract.ServiceName))
    assert set(get_args(contract.ServiceName)) == {
        contract.LABEL_STUDIO, contract.MLFLOW, contract.AIRFLOW, contract.SEGMENTATION, contract.SEGMENT_ANYTHING
    }  # fmt: skip
