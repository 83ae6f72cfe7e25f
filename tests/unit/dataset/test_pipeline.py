"""The steps of the sync pipeline on a real bucket server, git and DVC; the whole of it runs in tests/integration."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
from google.cloud.storage import Client

from pipelines.dataset import pipeline
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MASKS, VERSION
from pipelines.dataset.history import follow_git_remote, require_newest
from pipelines.dataset.mirror import SyncState, reconcile, state_to_continue
from pipelines.dataset.pipeline import build_dataset, lay_out_version_before, publish_dataset, sync
from pipelines.dataset.published import Published
from pipelines.dataset.records import annotation_json, encode_mask
from pipelines.dataset.split import is_marked_full
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ChecksError, ContractError, DatasetError, StorageError
from pipelines.forget.ledger import Forgotten
from pipelines.gcs import client as gcs
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.params import Label, load_params
from pipelines.records import Annotation, DatasetVersion
from pipelines.settings import PROJECT_ROOT, Settings
from tests.unit.labeling import Studio

Annotate = Callable[..., Annotation]


class Project:
    """A workspace, and what a Label Studio that is not there is said to hold."""

    def __init__(self, workspace: Workspace, bucket: Client) -> None:
        target = f"target-{uuid4().hex[:12]}"
        gcs.ensure_bucket(bucket, target)
        self.settings = workspace.settings.model_copy(update={"target_bucket": target})
        self.workspace, self.bucket = Workspace(workspace.path, self.settings), bucket
        self.dataset, self.state = Dataset(workspace.path), SyncState("p")

    def read(self, *annotations: Annotation, gone: frozenset[int] = frozenset()) -> None:
        """Apply these annotations to the copy, each of a task of its own."""
        tasks = frozenset(annotation.task_id for annotation in annotations)
        known = (self.state.cursor.tasks if self.state.cursor else frozenset()) | tasks
        changes = Changes(annotations, tasks, gone, TaskCursor(known - gone, None))
        state = reconcile(self.bucket, self.dataset, self.state, changes)
        assert state is not None
        self.keep(state)

    def keep(self, state: SyncState) -> None:
        self.state = state
        state.write(self.settings.var / "sync.json")

    def publish(self) -> DatasetVersion | None:
        lay_out_version_before(self.workspace)
        build_dataset(self.bucket, self.settings, "split")
        version = publish_dataset(self.bucket, self.settings)
        self.state = self.state.published(self.workspace.git("rev-parse", "HEAD"))
        return version

    def copies(self) -> dict[str, str]:
        prefix = "annotations/"
        listed = gcs.list_objects(self.bucket, self.settings.target_bucket, prefix)
        return {ref.name.removeprefix(prefix): ref.md5 for ref in listed}


@pytest.fixture
def project(unchecked_workspace: Workspace, bucket_client: Client, annotated_photo: Annotate) -> Project:
    """A project with a published version of three photos."""
    project = Project(unchecked_workspace, bucket_client)
    project.read(*(annotated_photo(name, 10 * task, task_id=task) for task, name in enumerate("abc", start=1)))
    assert project.publish() is not None
    return project


def test_a_missing_bucket_stops_before_anything_is_made(bucket_client: Client, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, var=tmp_path / "var", target_bucket="no-such-bucket")
    with pytest.raises(StorageError, match="gs://no-such-bucket does not exist"):
        sync(bucket_client, None, settings)  # type: ignore[arg-type]  # never gets as far as asking it
    assert not settings.var.exists()


def test_a_version_is_built_pushed_and_published_once(
    project_workspace: Workspace, bucket_client: Client, annotated_photo: Annotate
) -> None:
    project = Project(project_workspace, bucket_client)
    drawn = [
        annotated_photo("a", 10, task_id=1),
        annotated_photo("b", 20, {"coat": slice(5, 9), "dress": slice(9, 30)}, task_id=2),
    ]
    project.read(*drawn)

    version = project.publish()

    workspace = project.workspace
    assert version is not None
    assert (version.tag, version.photos, version.annotations) == ("dataset-0001", 2, 2)
    assert version.summary == "+2 photos; coat 0→2, dress 0→1"
    assert version.revision == workspace.git("rev-parse", "dataset-0001^{commit}")
    assert workspace.git("log", "-1", "--format=%s") == f"dataset-0001: {version.summary}"
    assert workspace.git("status", "--porcelain") == ""
    remote = workspace.git("ls-remote", workspace.git_remote)
    assert {line.split("\t")[1] for line in remote.splitlines()} >= {"refs/heads/datasets", "refs/tags/dataset-0001"}
    assert project.copies() == {
        f"{annotation.uuid}.json": gcs.md5_base64(annotation_json(annotation)) for annotation in drawn
    }
    described = json.loads(workspace.show("dataset-0001", str(VERSION)))
    assert (described["annotations"], described["photos"], sum(described["splits"].values())) == (2, 2, 2)
    assert project.publish() is None, "it is what the last version holds"
    published = Published(workspace)
    manifest = published.manifest("dataset-0001")
    shutil.rmtree(workspace.settings.var / "dvc-cache")
    pd.testing.assert_frame_equal(published.manifest("dataset-0001"), manifest)  # from the remote
    assert set(manifest["split"]) <= {"train", "val", "test"}


def test_two_machines_with_one_git_remote_continue_one_history(
    project: Project, bucket_client: Client, annotated_photo: Annotate, tmp_path: Path
) -> None:
    settings = project.settings.model_copy(update={"var": tmp_path / "second"})
    second = Project(Workspace(settings.workspace_path, settings), bucket_client)
    second.settings = second.workspace.settings = settings
    second.workspace.ensure(tmp_path / "project")
    assert follow_git_remote(second.workspace)
    require_newest(second.workspace, bucket_client)
    drawn = [annotated_photo(name, 10 * task, task_id=task) for task, name in enumerate("abcd", start=1)]
    second.read(*drawn)
    version = second.publish()
    assert version is not None
    assert (version.tag, version.summary.partition(";")[0]) == ("dataset-0002", "+1 photos")

    with pytest.raises(DatasetError, match=r"dataset-0002 .* was published by another machine"):
        require_newest(project.workspace, bucket_client)
    assert follow_git_remote(project.workspace)
    project.state = SyncState("p")  # as `read_annotations` begins then
    project.read(*drawn, annotated_photo("e", 50, task_id=5))
    version = project.publish()
    assert version is not None
    assert (version.tag, version.photos) == ("dataset-0003", 5)
    tags = ["dataset-0001", "dataset-0002", "dataset-0003"]
    assert project.workspace.dataset_tags() == tags
    splits = [Published(project.workspace).manifest(tag).set_index("sha256")["split"] for tag in tags]
    assert splits[0].eq(splits[2].reindex(splits[0].index)).all()
    assert splits[1].eq(splits[2].reindex(splits[1].index)).all()


def test_a_step_is_what_dvc_alone_would_make_and_comes_back_from_the_remote(
    project: Project, annotated_photo: Annotate
) -> None:
    project.read(
        annotated_photo("a", 10, {"coat": slice(2, 9)}, task_id=1),
        annotated_photo("d", 90, {"dress": slice(4, 9)}, task_id=4), gone=frozenset({2}),
    )  # fmt: skip
    version = project.publish()
    assert version is not None
    assert (version.tag, version.photos) == ("dataset-0002", 3)
    assert sorted(project.copies()) == ["a.json", "c.json", "d.json"]
    workspace, dataset = project.workspace, project.dataset
    assert "up to date" in workspace.dvc(
        "status", "data/annotations.dvc", "data/images.dvc", "split", use_site_cache=False
    )
    assert "in sync" in workspace.dvc("status", "--cloud", use_site_cache=False)
    masks = {path.name: path.read_bytes() for path in dataset.path(MASKS).iterdir()}

    shutil.rmtree(workspace.settings.var / "dvc-cache")
    for folder in (ANNOTATIONS, IMAGES, MASKS):
        shutil.rmtree(dataset.path(folder))
    with Published(workspace).checked_out("dataset-0002") as old:
        assert {path.name: path.read_bytes() for path in old.path(MASKS).iterdir()} == masks
        assert sorted(annotation.uuid for annotation in old.annotations.read()) == ["a", "c", "d"]
        assert len(list(old.path(IMAGES).iterdir())) == 3


def test_what_was_lost_in_the_buckets_comes_back_with_a_full_scan(project: Project, annotated_photo: Annotate) -> None:
    copies, objects = project.copies(), list(gcs.list_objects(project.bucket, project.settings.dvc_bucket))
    gcs.delete(project.bucket, objects[0])
    lost = next(gcs.list_objects(project.bucket, project.settings.target_bucket, "annotations/"))
    gcs.delete(project.bucket, lost)
    gcs.put(project.bucket, project.settings.target_bucket, "annotations/strange.json", b"{}", "application/json")

    project.state = SyncState("p")
    project.read(*(annotated_photo(name, 10 * task, task_id=task) for task, name in enumerate("abc", start=1)))
    assert project.publish() is None, "nothing is new"

    assert project.copies() == copies
    present = {ref.name for ref in gcs.list_objects(project.bucket, project.settings.dvc_bucket)}
    assert present == {ref.name for ref in objects}


def test_newer_code_that_makes_the_same_dataset_is_no_new_version(project: Project) -> None:
    path = project.workspace.path / "pipelines" / "dataset" / "merge_annotators.py"
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    project.workspace.git("commit", "--quiet", "--all", "-m", "A comment")

    assert project.publish() is None

    assert project.workspace.dataset_tags() == ["dataset-0001"]
    assert project.workspace.git("status", "--porcelain") == "", "what DVC noted of the code is committed"


def test_a_version_that_the_checks_stop_is_not_published_and_its_page_is_shown(
    project: Project, annotated_photo: Annotate
) -> None:
    project.read(*(annotated_photo(name, 10 * task, {}, task_id=task) for task, name in enumerate("abc", start=1)))
    params = project.workspace.path / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("empty_masks: 'off'", "empty_masks: critical"), encoding="utf-8")
    project.workspace.git("commit", "--quiet", "--all", "-m", "Photos without garments stop a version")

    lay_out_version_before(project.workspace)
    with pytest.raises(ChecksError, match="the photos have no garment"):
        build_dataset(project.bucket, project.settings, "check")

    pages = list(gcs.list_objects(project.bucket, project.settings.target_bucket, "checks/"))
    assert len(pages) == 1, "of this version, and none of the one before, which nothing was asked of"
    assert project.workspace.dataset_tags() == ["dataset-0001"]


def test_a_label_that_only_label_studio_has_stops_before_anything_is_read(project: Project) -> None:
    """Whatever is drawn with it would be ignored; a label that only params.yaml has was not drawn yet."""
    params = load_params(project.workspace.path / "params.yaml")
    toga = params.labels[0].model_copy(update={"id": 77, "name": "toga"})

    def read(labels: tuple[Label, ...]) -> SyncState | None:
        studio = Studio(params.model_copy(update={"labels": labels}))
        return pipeline._read(project.bucket, studio.client, project.workspace, Forgotten())

    with pytest.raises(ContractError, match=r"only in Label Studio: \['toga'\]"):
        read((*params.labels, toga))
    assert read(params.labels[1:]) is None


def test_without_a_state_that_fits_nothing_is_published(project: Project) -> None:
    (project.settings.var / "sync.json").unlink()
    with pytest.raises(DatasetError, match="run `maskloop sync` again"):
        publish_dataset(project.bucket, project.settings)


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
def test_once_the_test_split_detects_small_gains_it_stays_full(
    tmp_path: Path, gain: float | None, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path, Settings(_env_file=None, var=tmp_path))
    shutil.copy(PROJECT_ROOT / "params.yaml", tmp_path)  # promote.detect_gain: 0.03
    table = pd.DataFrame({"sha256": ["a", "b"], "split": ["test", "train"], "division": "0a1b"})
    asked: list[str] = []

    def lay_out(manifest: pd.DataFrame | None, gain: float | None) -> bytes:
        monkeypatch.setattr(pipeline, "Published", lambda workspace: OneVersion(manifest))
        pipeline.lay_out_version_before(workspace, lambda split_config: asked.append(split_config) or gain)
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


def test_a_workspace_of_an_older_layout_is_migrated_by_a_sync_and_its_tags_still_open(
    project: Project, annotated_photo: Annotate
) -> None:
    """Older versions hold a file per annotation and mask, and no data/version.json."""
    workspace, dataset = project.workspace, project.dataset
    drawn, masks = list(dataset.annotations.read()), {}
    for annotation in drawn:
        masks[annotation.image.sha256] = dataset.read_mask(annotation.image.sha256)
    for folder in (ANNOTATIONS, MASKS):
        for path in dataset.path(folder).iterdir():
            path.unlink()
    for annotation in drawn:
        (dataset.path(ANNOTATIONS) / f"{annotation.uuid}.json").write_bytes(annotation_json(annotation))
    for photo, mask in masks.items():
        (dataset.path(MASKS) / f"{photo}.png").write_bytes(encode_mask(mask))
    workspace.dvc("add", str(ANNOTATIONS))
    workspace.dvc("commit", "--force", "compile")
    workspace.dvc("push")
    workspace.git("rm", "--quiet", str(VERSION))
    workspace.git("commit", "--quiet", "--all", "-m", "dataset-0001: as it was")
    workspace.git("tag", "--force", "--annotate", "dataset-0001", "-m", "as it was")
    (project.settings.var / "sync.json").write_text('{"project": "p", "known": {}}', encoding="utf-8")

    project.state = state_to_continue(project.settings.var / "sync.json", "p", dataset)
    assert project.state.cursor is None, "everything is read again"
    project.read(*drawn)
    version = project.publish()

    assert version is not None
    assert (version.tag, version.summary) == ("dataset-0002", "+0 photos")
    for folder in (ANNOTATIONS, MASKS):
        assert {path.suffix for path in dataset.path(folder).iterdir()} == {".parquet"}
    for tag in ("dataset-0001", "dataset-0002"):
        with Published(workspace).checked_out(tag) as old:
            assert sorted(annotation.uuid for annotation in old.annotations.read()) == ["a", "b", "c"]
            assert set(old.manifest()["sha256"]) == set(masks)
            for photo, mask in masks.items():
                assert np.array_equal(old.read_mask(photo), mask)
