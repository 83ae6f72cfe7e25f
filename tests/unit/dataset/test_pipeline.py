"""Station 3's parts on a real bucket server, git and DVC; the whole of it runs in tests/integration."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from google.cloud.storage import Client

from pipelines.dataset.files import BEFORE
from pipelines.dataset.mirror import Copied, Note, copy_changes
from pipelines.dataset.pipeline import _build, _mirror_bucket, _mirror_changes, _publish, _take_version_before, sync
from pipelines.dataset.published import Published
from pipelines.dataset.remote import is_published, push_and_audit
from pipelines.dataset.split import is_marked_full
from pipelines.dataset.workspace import Workspace
from pipelines.errors import StorageError
from pipelines.gcs import client as gcs
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.records import Annotation
from pipelines.settings import PROJECT_ROOT, Settings

Annotate = Callable[..., Annotation]


def test_the_target_bucket_holds_exactly_these_annotations(bucket_client: Client, archive_bucket: str) -> None:
    def names() -> dict[str, str]:
        return {ref.name: ref.md5 for ref in gcs.list_objects(bucket_client, archive_bucket)}

    gcs.put(bucket_client, archive_bucket, "notes.txt", b"not ours", "text/plain")
    _mirror_bucket(bucket_client, archive_bucket, {"a.json": b"1", "b.json": b"2"})
    first = gcs.stat(bucket_client, archive_bucket, "annotations/a.json")
    _mirror_bucket(bucket_client, archive_bucket, {"a.json": b"1", "c.json": b"3"})
    assert names() == {
        "annotations/a.json": gcs.md5_base64(b"1"),
        "annotations/c.json": gcs.md5_base64(b"3"),
        "notes.txt": gcs.md5_base64(b"not ours"),
    }
    assert gcs.stat(bucket_client, archive_bucket, "annotations/a.json") == first
    _mirror_bucket(bucket_client, archive_bucket, {"a.json": b"changed"})
    assert names()["annotations/a.json"] == gcs.md5_base64(b"changed")


def test_the_target_bucket_follows_changes(bucket_client: Client, archive_bucket: str) -> None:
    _mirror_bucket(bucket_client, archive_bucket, {"a.json": b"1", "b.json": b"2", "c.json": b"3"})

    copied = Copied(
        Note("p"),
        {"a.json": b"9", "d.json": b"4"},
        frozenset({"b.json", "x.json"}),
        frozenset(),
        everything=False,
        changed=True,
    )
    _mirror_changes(bucket_client, archive_bucket, copied)

    there = {ref.name.removeprefix("annotations/"): ref.md5 for ref in gcs.list_objects(bucket_client, archive_bucket)}
    wanted = {"a.json": b"9", "c.json": b"3", "d.json": b"4"}
    assert there == {name: gcs.md5_base64(data) for name, data in wanted.items()}


def seen(*annotations: Annotation) -> Changes:
    """A look at a project that holds these annotations."""
    tasks = frozenset(annotation.task_id for annotation in annotations)
    return Changes(annotations, tasks, frozenset(), TaskCursor(tasks, None))


def test_a_missing_bucket_stops_before_anything_is_made(bucket_client: Client, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, var=tmp_path / "var", target_bucket="no-such-bucket")
    with pytest.raises(StorageError, match="gs://no-such-bucket does not exist"):
        sync(bucket_client, None, settings)  # type: ignore[arg-type]  # never gets as far as asking it
    assert not settings.var.exists()


def test_a_version_is_built_pushed_and_published_once(
    project_workspace: Workspace, bucket_client: Client, annotated_photo: Annotate
) -> None:
    workspace = project_workspace
    kept = [annotated_photo("a", 10), annotated_photo("b", 20, {"coat": slice(5, 9), "dress": slice(9, 30)})]
    copied = copy_changes(bucket_client, workspace.path, Note("p"), seen(*kept))
    assert copied is not None
    _take_version_before(workspace, Published(workspace, bucket_client))
    _build(workspace)
    assert not is_published(workspace)
    assert push_and_audit(workspace, bucket_client) == 12  # 2 annotations, 2 photos, 2 masks, 3 folders, 3 tables

    version = _publish(bucket_client, workspace, len(kept))

    assert (version.tag, version.photos, version.annotations) == ("dataset-0001", 2, 2)
    assert version.summary == "+2 photos; coat 0→2, dress 0→1"
    assert version.revision == workspace.git("rev-parse", "dataset-0001^{commit}")
    assert workspace.git("log", "-1", "--format=%s") == f"dataset-0001: {version.summary}"
    assert workspace.git("status", "--porcelain") == ""
    published = workspace.git("ls-remote", workspace.settings.git_remote)
    assert {line.split("\t")[1] for line in published.splitlines()} >= {"refs/heads/datasets", "refs/tags/dataset-0001"}
    assert is_published(workspace)
    published = Published(workspace, bucket_client)
    here = published.manifest("dataset-0001")
    shutil.rmtree(workspace.settings.var / "dvc-cache")
    pd.testing.assert_frame_equal(published.manifest("dataset-0001"), here)  # from the remote
    assert set(here["split"]) <= {"train", "val", "test"}
    workspace.dvc("fetch")

    again = _publish(bucket_client, workspace, len(kept))  # as after a kill between commit and tag
    assert (again.tag, again.summary, again.revision) == ("dataset-0002", "+0 photos", version.revision)


class OneVersion:
    """Published versions: one, with this manifest."""

    def __init__(self, manifest: pd.DataFrame | None) -> None:
        self._file = io.BytesIO()
        if manifest is not None:
            manifest.to_parquet(self._file, index=False)

    def tags(self) -> list[str]:
        return ["dataset-0001"] if self._file.getvalue() else []

    def manifest_file(self, tag: str) -> bytes:
        return self._file.getvalue()


@pytest.mark.parametrize(
    ("gain", "is_full"), [(None, False), (0.031, False), (0.03, True), (0.0, True)], ids=["unknown", "", "", ""]
)
def test_once_the_test_side_detects_small_gains_it_is_full_for_ever(
    tmp_path: Path, gain: float | None, is_full: bool
) -> None:
    workspace = Workspace(tmp_path, Settings(_env_file=None, var=tmp_path))
    shutil.copy(PROJECT_ROOT / "params.yaml", tmp_path)  # promote.detect_gain: 0.03
    table = pd.DataFrame({"sha256": ["a", "b"], "split": ["test", "train"], "division": "0a1b"})
    asked: list[str] = []

    def lay_out(manifest: pd.DataFrame | None, gain: float | None) -> bytes:
        published = OneVersion(manifest)
        _take_version_before(workspace, published, lambda division: asked.append(division) or gain)  # type: ignore[arg-type]
        return (tmp_path / BEFORE).read_bytes()

    assert lay_out(None, gain) == b""
    assert asked == []
    before = pd.read_parquet(io.BytesIO(lay_out(table, gain)))
    assert asked == ["0a1b"]
    assert is_marked_full(before) == is_full
    pd.testing.assert_frame_equal(before[table.columns.tolist()], table)
    if is_full:
        assert lay_out(before, None) == (tmp_path / BEFORE).read_bytes()
        assert is_marked_full(pd.read_parquet(tmp_path / BEFORE)), "whatever is known later"
        assert len(asked) == 1
