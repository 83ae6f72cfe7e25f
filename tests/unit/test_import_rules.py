"""Import rules, checked in the source; see docs/architecture.md."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.settings import PROJECT_ROOT

HEAVY = ("torch", "mlflow", "great_expectations")


def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """Return the full names that a file imports, in the whole file or at module level only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else module_level(tree.body)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)) and not is_for_types_only(node):
            yield from module_level(node.body)


def is_for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def is_below(name: str, parents: tuple[str, ...] | frozenset[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def files(folder: str) -> list[Path]:
    paths = sorted((PROJECT_ROOT / folder).rglob("*.py"))
    assert paths
    return paths


def unexpected_imports(folder: str, allowed: tuple[str, ...], *, everywhere: bool = True) -> dict[str, set[str]]:
    """Return, per file, the imports that are neither allowed nor of the standard library."""
    known = (*allowed, *sys.stdlib_module_names)
    by_file = {
        path.name: {name for name in imports(path, everywhere=everywhere) if not is_below(name, known)}
        for path in files(folder)
    }
    return {name: names for name, names in by_file.items() if names}


def forbidden(folder: str, names: tuple[str, ...]) -> dict[str, set[str]]:
    by_file = {path.name: {name for name in imports(path) if is_below(name, names)} for path in files(folder)}
    return {name: hits for name, hits in by_file.items() if hits}


def test_dags_import_nothing_heavy_at_module_level() -> None:
    assert (
        unexpected_imports(
            "dags",
            (
                "airflow",
                "assets",
                "callbacks",
                "clicks",
                "connections",
                "new_annotations",
                "progress",
                "remarks",
                "pipelines.contract",
            ),
            everywhere=False,
        )
        == {}
    )


def test_bentos_import_only_what_serving_needs() -> None:
    ground = ("contract", "records", "params", "settings", "errors", "log", "services")
    parts = (
        *ground,
        "segmentation",
        "photos",
        "gcs.client",
        "models.champion",
        "labelstudio.ml_backend",
        "labelstudio.render",
    )
    allowed = ("bentoml", "fastapi", "bentos.protocol", *(f"pipelines.{part}" for part in parts))
    assert unexpected_imports("bentos", allowed) == {}


def test_pipelines_know_nothing_of_airflow_and_bentoml() -> None:
    assert forbidden("pipelines", ("airflow", "bentoml", "dags", "bentos", "assets", "callbacks", "connections")) == {}


def test_segmentation_knows_nothing_of_dvc_label_studio_and_great_expectations() -> None:
    strange = ("dvc", "label_studio_sdk", "great_expectations", "pipelines.labelstudio", "pipelines.dataset")
    assert forbidden("pipelines/segmentation", strange) == {}


def test_services_do_without_label_studios_sdk() -> None:
    """It would cost each service time to start and memory, for a parser that only `/setup` needs."""
    program = "import sys, bentos.segmentation.service, bentos.segment_anything.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert not {"label_studio_sdk", "dvc", "great_expectations"} & set(done.stdout.split())


@pytest.mark.parametrize("module", ["cli", "settings", "gcs.client", "labelstudio.client", "local_stack.doctor"])
def test_light_modules_stay_light(module: str) -> None:
    program = f"import sys, pipelines.{module}; print(*({set(HEAVY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def places_that_depend_on_the_current_folder(path: Path) -> list[str]:
    """Return where a file reads or changes the current folder outside of a function `main`."""
    names = {"chdir", "fchdir", "cwd", "getcwd", "getcwdb"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    in_main = {
        id(node)
        for function in tree.body
        if isinstance(function, ast.FunctionDef) and function.name == "main"
        for node in ast.walk(function)
    }
    return [
        f"{path.relative_to(PROJECT_ROOT)}:{node.lineno}"
        for node in ast.walk(tree)
        if id(node) not in in_main
        and (
            (isinstance(node, ast.Attribute) and node.attr in names)
            or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & names)
        )
    ]


def test_only_programs_know_the_current_folder() -> None:
    """Stages and commands do; functions take a Dataset or a path, so that several datasets can be worked on at once."""
    commands = PROJECT_ROOT / "pipelines" / "cli"
    paths = [path for path in (*files("pipelines"), *files("benchmarks")) if commands not in path.parents]
    assert [place for path in paths for place in places_that_depend_on_the_current_folder(path)] == []


def test_training_knows_nothing_of_what_is_built_on_it() -> None:
    assert forbidden("pipelines/training", ("pipelines.simulation", "pipelines.demo")) == {}
    assert forbidden("pipelines/exchange", ("pipelines.simulation", "pipelines.demo", "pipelines.training")) == {}
