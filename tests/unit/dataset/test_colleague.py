"""What docs/datasets.md says about getting a version back, on another machine: another folder, home and environment."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from google.cloud.storage import Client

from pipelines.dataset.files import IMAGES, MANIFEST
from pipelines.dataset.workspace import Workspace
from pipelines.records import Annotation
from tests.unit.dataset.versions import Versions

COAT = {"coat": slice(5, 20)}


class Machine:
    """A folder and a home of somebody who has git, Python and DVC, and nothing of Maskloop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home").mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if name in ("LANG", "TMPDIR")}
        self.environment = {
            **kept, "HOME": str(folder / "home"), "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "site"),
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # of the emulator, which has no gRPC service
        }  # fmt: skip

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def colleague(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine of somebody else."""
    return Machine(tmp_path_factory.mktemp("colleague"))


@pytest.fixture
def versions(
    workspace: Workspace, bucket_client: Client, archive_bucket: str, annotate: Callable[..., Annotation]
) -> Versions:
    """A published version, of which there is a bare clone beside the workspace."""
    versions = Versions(workspace, bucket_client, archive_bucket, annotate)
    (workspace.path / IMAGES).mkdir(parents=True)
    versions.write(dict.fromkeys(range(3), COAT))
    versions.publish(record_remote=True)
    return versions


def test_everything_works_from_the_git_remote_alone(versions: Versions, colleague: Machine, tmp_path: Path) -> None:
    hub = str(tmp_path / "hub.git")
    versions.workspace.git("clone", "--quiet", "--bare", str(versions.workspace.path), hub)
    manifest = (versions.workspace.path / MANIFEST).read_bytes()

    colleague.run("dvc", "get", hub, str(MANIFEST), "--rev", "dataset-0001", "--out", "got.parquet")
    assert (colleague.folder / "got.parquet").read_bytes() == manifest

    program = (
        "import sys, dvc.api;"
        f"data = dvc.api.read({str(MANIFEST)!r}, repo={hub!r}, rev='dataset-0001', mode='rb');"
        f"file = dvc.api.open({str(MANIFEST)!r}, repo={hub!r}, rev='dataset-0001', mode='rb');\n"
        "with file as opened: assert opened.read() == data\n"
        f"fs = dvc.api.DVCFileSystem({hub!r}, rev='dataset-0001')\n"
        "assert len(fs.ls('data/images', detail=False)) == 3\n"
        "fs.get('data/images', 'photos', recursive=True)\n"
        "open('read.parquet', 'wb').write(data)"
    )
    colleague.run(sys.executable, "-c", program)
    assert len(pd.read_parquet(io.BytesIO((colleague.folder / "read.parquet").read_bytes()))) == 3
    assert len(list((colleague.folder / "photos").iterdir())) == 3

    colleague.run("git", "init", "--quiet", "own")
    own = colleague.folder / "own"
    colleague.run("dvc", "init", "--quiet", cwd=own)
    colleague.run("dvc", "import", hub, str(IMAGES), "--rev", "dataset-0001", cwd=own)
    assert len(list((own / "images").iterdir())) == 3

    colleague.run("git", "clone", "--quiet", "--branch", "dataset-0001", hub, "clone")
    clone = colleague.folder / "clone"
    colleague.run("dvc", "pull", "--allow-missing", cwd=clone)
    assert (clone / MANIFEST).read_bytes() == manifest
    assert {path.name for path in (clone / IMAGES).iterdir()} == {
        path.name for path in versions.dataset.path(IMAGES).iterdir()
    }


def test_what_git_tracks_names_the_remote_and_nothing_of_this_machine(versions: Versions) -> None:
    workspace = versions.workspace
    config = workspace.show("dataset-0001", ".dvc/config")
    assert f"url = gs://{workspace.settings.dvc_bucket}/dvc" in config
    assert str(workspace.settings.var) not in config
    assert "config.local" not in workspace.git("ls-files", ".dvc")
    assert workspace.git("status", "--porcelain") == ""

    head = workspace.git("rev-parse", "HEAD")
    workspace.record_remote()
    assert (workspace.git("status", "--porcelain"), workspace.git("rev-parse", "HEAD")) == ("", head)


def test_a_config_that_a_kill_cut_short_is_written_again(versions: Versions) -> None:
    workspace = versions.workspace
    moved = Workspace(
        workspace.path, workspace.settings.model_copy(update={"dvc_bucket": "elsewhere", "storage_emulator": False})
    )
    (workspace.path / ".dvc" / "config").write_text("[core]\n    rem", encoding="utf-8")
    moved.record_remote()
    assert moved.git("diff", "--stat", "HEAD", "--", ".dvc/config")
    moved.git("commit", "--quiet", "--all", "-m", "moved")
    assert moved.recorded_remote() == {"url": "gs://elsewhere/dvc"}
