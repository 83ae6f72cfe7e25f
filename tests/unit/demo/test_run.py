"""The demo's trainings are short, until somebody's own dataset is there."""

from pipelines.dataset.workspace import Workspace
from pipelines.demo.run import MINUTES, shorten_trainings
from pipelines.params import load_params


def minutes(workspace: Workspace) -> float:
    return load_params(workspace.path / "params.yaml").train.max_minutes


def test_the_budget_is_committed_once(project_workspace: Workspace) -> None:
    before = minutes(project_workspace)

    assert shorten_trainings(project_workspace)
    assert not shorten_trainings(project_workspace)

    assert minutes(project_workspace) == MINUTES < before
    assert project_workspace.git("status", "--porcelain") == ""


def test_a_shorter_budget_stays(project_workspace: Workspace) -> None:
    path = project_workspace.path / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("  max_minutes: 30 ", "  max_minutes: 2 "), encoding="utf-8")

    assert not shorten_trainings(project_workspace)

    assert minutes(project_workspace) == 2


def test_nothing_else_is_changed(project_workspace: Workspace) -> None:
    shorten_trainings(project_workspace)

    assert project_workspace.git("diff", "--numstat", "HEAD~").split("\t") == ["1", "1", "params.yaml"]


def test_a_workspace_with_a_dataset_is_left_alone(project_workspace: Workspace) -> None:
    project_workspace.git("tag", "--annotate", "dataset-0001", "--message", "+3 photos")
    before = minutes(project_workspace)

    assert not shorten_trainings(project_workspace)

    assert minutes(project_workspace) == before
