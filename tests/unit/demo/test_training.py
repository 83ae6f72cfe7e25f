"""Drawn photos get a small training of fixed steps, until somebody's own dataset or parameters are there."""

from pathlib import Path

from pipelines.dataset.workspace import Workspace
from pipelines.demo.training import CLICKS, STEPS, TRAINING, use_small_training
from pipelines.params import TrainParams, load_params
from pipelines.settings import PROJECT_ROOT


def params_file(workspace: Workspace) -> Path:
    return workspace.path / "params.yaml"


def train_section(workspace: Workspace) -> TrainParams:
    return load_params(params_file(workspace)).train


def test_the_training_is_committed_once(project_workspace: Workspace) -> None:
    whole = load_params(PROJECT_ROOT / "params.yaml")

    assert use_small_training(project_workspace)
    assert not use_small_training(project_workspace)

    small = load_params(params_file(project_workspace))
    assert small.train == whole.train.model_copy(update=TRAINING)
    assert small.clicks == whole.clicks.model_copy(update=CLICKS)
    assert small.model_copy(update={"train": whole.train, "clicks": whole.clicks}) == whole
    assert project_workspace.git("status", "--porcelain") == ""


def test_steps_and_not_minutes_end_it(project_workspace: Workspace) -> None:
    use_small_training(project_workspace)

    section = train_section(project_workspace)

    assert (section.min_steps, section.max_steps, section.max_minutes) == (STEPS, STEPS, 0)
    assert (section.threads, section.precision) == (1, "float32"), "the same weights on a busy machine"


def test_only_its_own_keys_change(project_workspace: Workspace) -> None:
    use_small_training(project_workspace)

    changed = project_workspace.git("diff", "--unified=0", "HEAD~").splitlines()

    keys = [line[1:].split(":")[0].strip() for line in changed if line.startswith("+ ")]
    assert set(keys) <= set(TRAINING) | set(CLICKS)


def test_a_training_that_somebody_changed_stays(project_workspace: Workspace) -> None:
    path = params_file(project_workspace)
    path.write_text(path.read_text(encoding="utf-8").replace("  max_minutes: 30 ", "  max_minutes: 2 "), "utf-8")

    assert not use_small_training(project_workspace)

    assert train_section(project_workspace).max_minutes == 2


def test_a_workspace_with_a_dataset_is_left_alone(project_workspace: Workspace) -> None:
    project_workspace.git("tag", "--annotate", "dataset-0001", "--message", "+3 photos")
    before = train_section(project_workspace)

    assert not use_small_training(project_workspace)

    assert train_section(project_workspace) == before
