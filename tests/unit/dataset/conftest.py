"""A small project and workspaces cloned from it: real git, real DVC, and the real bucket server."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from pipelines.dataset.workspace import Workspace
from pipelines.settings import PROJECT_ROOT, Settings

Commit = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of the files that a workspace needs, with one commit."""
    folder = tmp_path / "project"
    for name in (".dvc/config", ".dvc/.gitignore", "data/.gitignore", "dvc.yaml", "params.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "A project")
    return folder


@pytest.fixture
def settings(tmp_path: Path, bucket_server: str) -> Settings:
    """A state folder of the test's own and a dataset bucket that does not exist yet."""
    port = int(bucket_server.rpartition(":")[2])
    return Settings(
        _env_file=None, var=tmp_path / "var", host="127.0.0.1", storage_emulator=True, storage_port=port,
        dvc_bucket=f"datasets-{uuid4().hex[:12]}",
    )  # fmt: skip


@pytest.fixture
def workspace(project: Path, settings: Settings) -> Workspace:
    """A fresh workspace of the project."""
    workspace = Workspace(settings.workspace_path, settings)
    workspace.ensure(project)
    return workspace


@pytest.fixture
def commit(project: Path) -> Commit:
    """Commit a file in the project; gives the commit."""

    def make(name: str, text: str) -> str:
        (project / name).write_text(text, encoding="utf-8")
        git(project, "add", "--all")
        git(project, "commit", "--quiet", "-m", f"Change {name}")
        return git(project, "rev-parse", "HEAD")

    return make


def git(folder: Path, *arguments: str) -> str:
    command = [
        "git",
        "-c",
        "user.name=Ada",
        "-c",
        "user.email=ada@example.org",
        "-c",
        "commit.gpgsign=false",
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
