"""The audit of the DVC remote, on a real one: what is missing there is pushed again, or named."""

from pathlib import Path

import pytest
from google.cloud.storage import Client

from pipelines.dataset.remote import missing_objects, needed_objects, output_hashes, push_and_audit
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.gcs import client as gcs
from pipelines.records import ObjectRef


@pytest.fixture
def workspace_with_files(workspace: Workspace, bucket_client: Client) -> Workspace:
    """Two tracked folders with two files each, and an empty dataset bucket."""
    gcs.ensure_bucket(bucket_client, workspace.settings.dvc_bucket)
    for name in ("annotations", "images"):
        folder = workspace.path / "data" / name
        folder.mkdir(parents=True)
        for file in ("a", "b"):
            (folder / file).write_text(f"{name} {file}", encoding="utf-8")
    workspace.dvc("add", "data/annotations", "data/images")
    return workspace


def objects(workspace: Workspace, bucket: Client) -> dict[str, ObjectRef]:
    return {ref.name[-36:]: ref for ref in gcs.list_objects(bucket, workspace.settings.dvc_bucket)}


def a_file(workspace: Workspace, bucket: Client) -> ObjectRef:
    return next(ref for name, ref in objects(workspace, bucket).items() if not name.endswith(".dir"))


def test_a_pushed_version_is_complete_and_a_damaged_one_is_mended(
    workspace_with_files: Workspace, bucket_client: Client
) -> None:
    workspace = workspace_with_files
    assert len(missing_objects(workspace, bucket_client)) == 6
    assert push_and_audit(workspace, bucket_client) == len(needed_objects(workspace)) == 6
    before = {name: ref.md5 for name, ref in objects(workspace, bucket_client).items()}

    gcs.delete(bucket_client, a_file(workspace, bucket_client))
    other = a_file(workspace, bucket_client)
    gcs.put(bucket_client, other.bucket, other.name, b"other content", "text/plain")
    assert len(missing_objects(workspace, bucket_client)) == 2

    assert push_and_audit(workspace, bucket_client) == 6
    assert {name: ref.md5 for name, ref in objects(workspace, bucket_client).items()} == before


def test_what_cannot_be_mended_is_named(workspace_with_files: Workspace, bucket_client: Client) -> None:
    workspace = workspace_with_files
    lost = next(path for path in cache(workspace).rglob("*") if path.is_file() and path.suffix != ".dir")
    lost.unlink()
    with pytest.raises(DatasetError, match=f"{lost.parent.name}{lost.name}|{lost.parent.name}/{lost.name}"):
        push_and_audit(workspace, bucket_client)


def test_a_cache_without_a_folders_list_is_named(workspace_with_files: Workspace) -> None:
    for path in cache(workspace_with_files).rglob("*.dir"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"the DVC cache has no readable .*\.dir; run `dvc fetch`"):
        needed_objects(workspace_with_files)


def cache(workspace: Workspace) -> Path:
    return workspace.settings.var / "dvc-cache" / "files" / "md5"


LOCK = """
stages:
  compile: {outs: [{path: data/masks, md5: 11.dir}, {path: data/photos.parquet, md5: '22'}]}
  check: {outs: [{path: data/checks.json, md5: '33'}]}
  split: {outs: [{path: data/manifest.parquet, md5: '44'}]}
  train: {outs: [{path: model, md5: 55.dir}]}
"""


def test_a_datasets_outputs_are_all_but_the_training_and_what_git_keeps() -> None:
    files = {
        "data/annotations.dvc": "outs: [{path: annotations, md5: 00.dir}]",
        "data/before.parquet.dvc": "outs: [{path: before.parquet, md5: '66'}]",
        "dvc.lock": LOCK,
    }
    assert output_hashes(lambda path: files.get(path, "")) == {"00.dir", "11.dir", "22", "44", "66"}
    assert output_hashes(lambda path: files.get(path, ""), with_before=False) == {"00.dir", "11.dir", "22", "44"}


def test_a_workspace_before_its_first_dataset_has_no_outputs() -> None:
    assert output_hashes(lambda path: "") == set()
