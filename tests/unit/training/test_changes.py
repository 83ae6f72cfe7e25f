"""What differs between two trainings, in words that fit on the report."""

import subprocess
from pathlib import Path

import pytest

from pipelines.dataset.workspace import Workspace
from pipelines.settings import Settings
from pipelines.training.changes import Difference, _change_of_code, differences


def test_nested_parameters_are_compared_key_by_key() -> None:
    before = {"train": {"lr": 0.002, "decoder": {"channels": 128}}, "labels": [1, 2], "quality": {"review": 50}}
    now = {"train": {"lr": 0.003, "decoder": {"channels": 128}}, "labels": [1, 2], "effort": {"draw": 22.0}}

    assert differences(before, now) == (
        Difference("effort.draw", "–", "22.0"),
        Difference("quality.review", "50", "–"),
        Difference("train.lr", "0.002", "0.003"),
    )


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    clone = Workspace(tmp_path / "clone", Settings(_env_file=None, var=tmp_path / "var"))
    (clone.path / "pipelines").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=clone.path, check=True)
    return clone


def commit(clone: Workspace, files: dict[str, str]) -> str:
    for name, text in files.items():
        (clone.path / name).write_text(text)
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--allow-empty", "-m", "one")
    return clone.git("rev-parse", "HEAD")


def test_code_is_compared_by_git_and_other_files_do_not_count(clone: Workspace) -> None:
    first = commit(clone, {"pipelines/stage.py": "old", "README.md": "old"})
    second = commit(clone, {"README.md": "new"})
    third = commit(clone, {"pipelines/stage.py": "new"})

    assert _change_of_code(clone, first, second) == "no change"
    assert _change_of_code(clone, first, third).splitlines()[-1].strip().startswith("1 file changed")


def test_many_files_are_cut_off_and_what_git_does_not_know_is_said(clone: Workspace) -> None:
    first = commit(clone, {})
    many = commit(clone, {f"pipelines/stage_{number}.py": "x" for number in range(60)})

    lines = _change_of_code(clone, first, many).splitlines()
    assert len(lines) == 41
    assert "60 files changed" in lines[-1]
    assert _change_of_code(clone, "f" * 40, many) == f"{'f' * 12} is not among the commits of {clone.path}"
    assert _change_of_code(clone, "", many) == "the champion's revision is not known"
