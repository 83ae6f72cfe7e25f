"""The audit of the DVC remote, on a real one: what is missing there is pushed again, or named."""

from pathlib import Path

import pytest
from google.cloud.storage import Client

from pipelines.dataset import objects as objects_module
from pipelines.dataset import remote
from pipelines.dataset.files import ANNOTATIONS, IMAGES
from pipelines.dataset.remote import missing_objects, needed_objects, push_and_audit
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.gcs import client as gcs
from pipelines.records import ObjectRef


@pytest.fixture
def workspace_with_files(workspace: Workspace, bucket_client: Client, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two tracked folders with two files each, and an empty dataset bucket."""
    monkeypatch.setattr(remote, "TRACKED", (ANNOTATIONS, IMAGES))
    gcs.ensure_bucket(bucket_client, workspace.settings.dvc_bucket)
    for folder in (ANNOTATIONS, IMAGES):
        (workspace.path / folder).mkdir(parents=True)
        for file in ("a", "b"):
            (workspace.path / folder / file).write_text(f"{folder} {file}", encoding="utf-8")
    workspace.dvc("add", str(ANNOTATIONS), str(IMAGES))
    return workspace


def missing(workspace: Workspace, bucket: Client) -> set[str]:
    return missing_objects(workspace, bucket, needed_objects(workspace))


def objects(workspace: Workspace, bucket: Client) -> dict[str, ObjectRef]:
    return {ref.name[-36:]: ref for ref in gcs.list_objects(bucket, workspace.settings.dvc_bucket)}


def a_file(workspace: Workspace, bucket: Client) -> ObjectRef:
    return next(ref for name, ref in objects(workspace, bucket).items() if not name.endswith(".dir"))


def test_a_pushed_version_is_complete_and_a_damaged_one_is_repaired(
    workspace_with_files: Workspace, bucket_client: Client
) -> None:
    workspace = workspace_with_files
    assert len(missing(workspace, bucket_client)) == 6
    assert push_and_audit(workspace, bucket_client) == len(needed_objects(workspace)) == 6
    before = {name: ref.md5 for name, ref in objects(workspace, bucket_client).items()}

    gcs.delete(bucket_client, a_file(workspace, bucket_client))
    other = a_file(workspace, bucket_client)
    gcs.put(bucket_client, other.bucket, other.name, b"other content", "text/plain")
    assert len(missing(workspace, bucket_client)) == 2

    assert push_and_audit(workspace, bucket_client) == 6
    assert {name: ref.md5 for name, ref in objects(workspace, bucket_client).items()} == before


def test_what_cannot_be_repaired_is_named(workspace_with_files: Workspace, bucket_client: Client) -> None:
    workspace = workspace_with_files
    lost = next(path for path in cache(workspace).rglob("*") if path.is_file() and path.suffix != ".dir")
    [copy] = [path for path in (workspace.path / "data").rglob("[ab]") if path.samefile(lost)]
    copy.unlink()
    lost.unlink()
    with pytest.raises(DatasetError, match=f"{lost.parent.name}{lost.name}|{lost.parent.name}/{lost.name}"):
        push_and_audit(workspace, bucket_client)


def cache(workspace: Workspace) -> Path:
    return workspace.settings.var / "dvc-cache" / "files" / "md5"


def test_what_the_last_version_needed_is_not_verified_again(
    workspace_with_files: Workspace, bucket_client: Client
) -> None:
    workspace = workspace_with_files
    assert push_and_audit(workspace, bucket_client, everything=False) == 6, "there is no version yet"
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "-m", "A version")
    workspace.git("tag", "dataset-0001")
    assert push_and_audit(workspace, bucket_client, everything=False) == 0

    (workspace.path / IMAGES / "c").write_text("new", encoding="utf-8")
    workspace.dvc("add", str(IMAGES))

    assert push_and_audit(workspace, bucket_client, everything=False) == 2, "a file, and its folder's list"
    assert needed_objects(workspace, "dataset-0001") < needed_objects(workspace) | needed_objects(
        workspace, "dataset-0001"
    )


def test_many_objects_are_looked_up_in_a_listing(
    workspace_with_files: Workspace, bucket_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = workspace_with_files
    push_and_audit(workspace, bucket_client)
    gcs.delete(bucket_client, a_file(workspace, bucket_client))
    one_by_one = missing(workspace, bucket_client)
    monkeypatch.setattr(objects_module, "_LISTED_FROM", 0)
    assert missing(workspace, bucket_client) == one_by_one
    assert len(one_by_one) == 1
