"""States that retention is tested in: published versions, with real git, DVC and buckets."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import IMAGES
from pipelines.dataset.workspace import Workspace
from pipelines.gcs.client import ensure_bucket, list_objects, put, read
from pipelines.records import Annotation
from pipelines.settings import PROJECT_ROOT, Settings
from tests.unit.dataset.conftest import git
from tests.unit.dataset.versions import Versions

COAT = {"coat": slice(5, 20)}
LATER = datetime.now(UTC) + timedelta(days=1000)


def settings_in(var: Path, bucket_server: str) -> Settings:
    return Settings(
        _env_file=None, var=var, host="127.0.0.1", storage_emulator=True,
        storage_port=int(bucket_server.rpartition(":")[2]), dvc_bucket=f"datasets-{uuid4().hex[:12]}",
    )  # fmt: skip


@pytest.fixture(scope="session")
def three_versions(
    tmp_path_factory: pytest.TempPathFactory, bucket_server: str, annotate: Callable[..., Annotation]
) -> Versions:
    """Three versions, published once: the second has other photos than the first, the third has a photo more."""
    project, var = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("var")
    for name in (".dvc/config", ".dvc/.gitignore", "data/.gitignore", "dvc.yaml", "params.yaml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, project / name)
    git(project, "init", "--quiet", "--initial-branch", "main")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "A project")
    settings = settings_in(var, bucket_server)
    workspace = Workspace(settings.workspace_path, settings)
    workspace.ensure(project)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STORAGE_EMULATOR_HOST", bucket_server)
        client = Client(project="test", credentials=AnonymousCredentials())
        archive = f"archive-{uuid4().hex[:12]}"
        ensure_bucket(client, archive)
        versions = Versions(workspace, client, archive, annotate)
        (workspace.path / IMAGES).mkdir(parents=True)
        versions.write(dict.fromkeys(range(4), COAT))
        versions.publish()
        versions.write(dict.fromkeys(range(3, 6), COAT) | {3: {"coat": slice(2, 9)}})
        versions.publish()
        versions.write(dict.fromkeys(range(3, 7), COAT))
        versions.publish()
    return versions


@pytest.fixture
def versions(three_versions: Versions, bucket_server: str, bucket_client: Client, tmp_path: Path) -> Versions:
    """A copy of the three versions, with a cache and a dataset bucket of its own."""
    before = three_versions.workspace.settings
    shutil.copytree(before.var, tmp_path / "var", symlinks=True)
    settings = settings_in(tmp_path / "var", bucket_server)
    ensure_bucket(bucket_client, settings.dvc_bucket)
    for ref in list_objects(bucket_client, before.dvc_bucket):
        put(bucket_client, settings.dvc_bucket, ref.name, read(bucket_client, ref), "application/octet-stream")
    versions = object.__new__(Versions)
    versions.__dict__.update(three_versions.__dict__)
    versions.workspace, versions.bucket = Workspace(settings.workspace_path, settings), bucket_client
    versions.dataset = Dataset(versions.workspace.path)
    versions.workspace.ensure()
    return versions


def total(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
