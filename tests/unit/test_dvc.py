"""A stage of dvc.yaml depends on all code that makes its bytes; otherwise DVC would keep outputs of older code."""

import ast
import re

import pytest
import yaml

from pipelines.params import Params
from pipelines.settings import PROJECT_ROOT

STAGES = yaml.safe_load((PROJECT_ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
DERIVED = {"label_ids": ("labels",), "label_names": ("labels",), "region_ids": ("labels", "ignore")}
EXEMPT = {f"pipelines/{name}.py" for name in ("errors", "records", "params", "log", "__init__")}


def module_of(stage: str) -> str:
    [module] = re.findall(r"python -m (pipelines\.\w+\.\w+)$", STAGES[stage]["cmd"])
    return module


def file_of(name: str) -> str | None:
    """Return the file of `pipelines.a.b` or of a name within that module, or None for other packages."""
    for module in (name, name.rpartition(".")[0]):
        file = module.replace(".", "/") + ".py"
        if module.startswith("pipelines.") and (PROJECT_ROOT / file).exists():
            return file
    return None


def imported_at_module_level(file: str) -> set[str]:
    names = set()
    for node in ast.parse((PROJECT_ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def code_of(stage: str) -> set[str]:
    """Follow the imports at module level from the stage's command."""
    files: set[str] = set()
    waiting = {file_of(module_of(stage))}
    while waiting:
        file = waiting.pop()
        if file and file not in files | EXEMPT:
            files.add(file)
            waiting |= {file_of(name) for name in imported_at_module_level(file)}
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_it_imports(stage: str) -> None:
    named = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert named == code_of(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_sections_of_its_own_that_exist(stage: str) -> None:
    sections = STAGES[stage]["params"]
    assert {"train_clicks": "clicks", "evaluate_clicks": "clicks"}.get(stage, stage) in sections
    assert set(sections) <= set(Params.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_each_section_that_its_code_reads(stage: str) -> None:
    text = "\n".join((PROJECT_ROOT / file).read_text(encoding="utf-8") for file in code_of(stage))
    read = set(re.findall(r"\bparams\.(\w+)\b|\bload_params\([^)]*\)\)?\.(\w+)", text))
    named = {name for pair in read for name in pair if name}
    sections = {section for name in named for section in DERIVED.get(name, (name,))} & set(Params.model_fields)
    assert sections <= set(STAGES[stage]["params"])


def test_stages_stand_in_the_order_of_the_flow() -> None:
    assert list(STAGES) == ["compile", "check", "split", "train", "evaluate", "train_clicks", "evaluate_clicks"]
