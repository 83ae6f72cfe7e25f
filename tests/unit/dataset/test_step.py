"""A step to the next version: what it records is what DVC would have recorded, byte for byte."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from google.cloud.storage import Client

from pipelines.dataset.files import ANNOTATIONS, IMAGES, MASKS, annotation_json
from pipelines.dataset.mirror import Copied, Note, copy_changes
from pipelines.dataset.pipeline import _build, _publish, _take_version_before
from pipelines.dataset.published import Published
from pipelines.dataset.remote import is_published, missing_objects, push_and_audit
from pipelines.dataset.step import Step, Touched
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ChecksError
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.records import Annotation

Annotate = Callable[..., Annotation]
RECORDS = ("dvc.lock", "data/annotations.dvc", "data/images.dvc", "data/before.parquet.dvc")


class Project:
    """A workspace, and what a Label Studio that is not there is said to hold."""

    def __init__(self, workspace: Workspace, bucket: Client) -> None:
        self.workspace, self.bucket, self.note = workspace, bucket, Note("p")

    def copy(self, *read: Annotation, gone: frozenset[int] = frozenset()) -> Copied:
        """Bring the copy in line with these annotations, each of a task of its own."""
        tasks = frozenset(annotation.task_id for annotation in read)
        known = (self.note.cursor.tasks if self.note.cursor else frozenset()) | tasks
        changes = Changes(read, tasks, gone, TaskCursor(known - gone, None))
        copied = copy_changes(self.bucket, self.workspace.path, self.note, changes)
        assert copied is not None
        self.note = copied.note
        _take_version_before(self.workspace, Published(self.workspace, self.bucket))
        return copied

    def publish(self) -> None:
        push_and_audit(self.workspace, self.bucket)
        _publish(self.bucket, self.workspace, 0)

    def step(self, copied: Copied) -> None:
        step = Step.from_last(self.workspace)
        assert step is not None
        assert step.build(Touched(frozenset(copied.files) | copied.gone, copied.photos))

    def records(self) -> list[str]:
        return [self.workspace.read(name) for name in RECORDS]

    def let_dvc_look(self) -> list[str]:
        """Let DVC do what is left to do, with nothing in its memory; gives what it recorded, which it printed too."""
        targets = [name for name in RECORDS if name.endswith(".dvc")]
        said = self.workspace.dvc("repro", *targets, "split", remembers=False)
        assert "Running stage" not in said, said
        return self.records()


@pytest.fixture
def project(project_workspace: Workspace, bucket_client: Client, annotated_photo: Annotate) -> Project:
    """A project with a published version of three photos."""
    one = Project(project_workspace, bucket_client)
    one.copy(*(annotated_photo(name, 10 * task, task_id=task) for task, name in enumerate("abc", start=1)))
    _build(one.workspace)
    one.publish()
    return one


def test_a_step_records_what_dvc_would(project: Project, annotated_photo: Annotate, bucket_client: Client) -> None:
    changed = annotated_photo("a", 10, {"coat": slice(2, 9)}, task_id=1)
    copied = project.copy(changed, annotated_photo("d", 90, {"dress": slice(4, 9)}, task_id=4), gone=frozenset({2}))
    assert not copied.everything

    project.step(copied)

    recorded = project.records()
    assert project.let_dvc_look() == recorded
    targets = [*(name for name in RECORDS if name.endswith(".dvc")), "compile", "check", "split"]
    assert project.workspace.dvc("status", *targets, remembers=False) == "Data and pipelines are up to date."
    folder = project.workspace.path
    assert len(list((folder / MASKS).iterdir())) == len(list((folder / IMAGES).iterdir())) == 3
    assert not is_published(project.workspace)
    new = push_and_audit(project.workspace, bucket_client, everything=False)
    assert new == 2 + 1 + 2 + 3 + 2  # annotations, photo, masks, folders, tables; the version before is there already
    assert missing_objects(project.workspace, bucket_client) == set()
    assert "in sync" in project.workspace.dvc("status", "--cloud", remembers=False)
    _publish(bucket_client, project.workspace, 3)
    assert project.workspace.dataset_tags() == ["dataset-0001", "dataset-0002"]


def test_steps_follow_each_other(project: Project, annotated_photo: Annotate) -> None:
    for rows in (3, 4, 5):
        copied = project.copy(annotated_photo("c", 30, {"skirt": slice(0, rows)}, task_id=3))
        project.step(copied)
        push_and_audit(project.workspace, project.bucket, everything=False)
        _publish(project.bucket, project.workspace, 3)
    recorded = project.records()
    assert project.let_dvc_look() == recorded


def test_a_version_of_a_step_comes_back_from_the_remote(project: Project, annotated_photo: Annotate) -> None:
    project.step(project.copy(annotated_photo("a", 10, {"coat": slice(2, 9)}, task_id=1)))
    push_and_audit(project.workspace, project.bucket, everything=False)
    folder = project.workspace.path
    masks = {path.name: path.read_bytes() for path in (folder / MASKS).iterdir()}
    kept = project.workspace.settings.var / "dvc-cache"
    kept.rename(kept.with_name("gone"))
    for name in (ANNOTATIONS, MASKS):
        (folder / name).rename(folder / f"{name}.gone")
    project.workspace.dvc("pull", "--force", "data/annotations.dvc", "compile", remembers=False)
    assert {path.name: path.read_bytes() for path in (folder / MASKS).iterdir()} == masks


def test_dvc_looks_itself_when_anything_but_data_may_have_changed(project: Project) -> None:
    workspace = project.workspace
    params = workspace.path / "params.yaml"
    text = params.read_text(encoding="utf-8")
    assert Step.from_last(workspace) is not None
    params.write_text(text.replace("alpha_threshold: 128", "alpha_threshold: 99"), encoding="utf-8")
    assert Step.from_last(workspace) is None, "an edit that nobody committed"
    workspace.git("commit", "--quiet", "--all", "--message", "other parameters")
    assert Step.from_last(workspace) is None
    params.write_text(text, encoding="utf-8")
    workspace.git("commit", "--quiet", "--all", "--message", "as before")
    assert Step.from_last(workspace) is not None
    code = workspace.path / "pipelines" / "dataset" / "split.py"
    code.write_text(code.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    workspace.git("commit", "--quiet", "--all", "--message", "other code")
    assert Step.from_last(workspace) is None


def test_dvc_looks_itself_where_the_records_are_not_those_of_the_last_version(project: Project) -> None:
    workspace = project.workspace
    lock = workspace.path / "dvc.lock"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(text + "  train: {cmd: python -m pipelines.training.train}\n", encoding="utf-8")
    assert Step.from_last(workspace) is None, "a step would say that this model was trained on the next version"
    older = "0" * 32 + ".dir"
    pointer = workspace.path / "data" / "annotations.dvc"
    lock.write_text(text, encoding="utf-8")
    assert Step.from_last(workspace) is not None
    pointer.write_text(re.sub(r"md5: \S+\.dir", f"md5: {older}", pointer.read_text(encoding="utf-8")), encoding="utf-8")
    assert Step.from_last(workspace) is None
    pointer.write_text("<<<<<<< ours\n", encoding="utf-8")
    assert Step.from_last(workspace) is None


def test_dvc_looks_when_a_mask_changes_that_nobody_touched(project: Project, annotated_photo: Annotate) -> None:
    copied = project.copy(annotated_photo("a", 10, {"coat": slice(2, 9)}, task_id=1))
    other = project.workspace.path / ANNOTATIONS / "b.json"
    edited = annotated_photo("b", 20, {"coat": slice(1, 29)}, task_id=2)
    other.unlink()
    other.write_bytes(annotation_json(edited))
    before = project.records()
    step = Step.from_last(project.workspace)
    assert step is not None
    assert not step.build(Touched(frozenset(copied.files), copied.photos))
    assert project.records() == before
    _build(project.workspace)
    assert project.let_dvc_look() != before


def test_dvc_looks_itself_without_the_lists_of_the_last_version(project: Project) -> None:
    for path in (project.workspace.settings.var / "dvc-cache").rglob("*.dir"):
        path.unlink()
    assert Step.from_last(project.workspace) is None


def test_a_stage_that_fails_leaves_the_records_of_the_last_version(project: Project, annotated_photo: Annotate) -> None:
    before = project.records()
    copied = project.copy(*(annotated_photo(name, 10 * task, {}, task_id=task) for task, name in enumerate("abc", 1)))
    with pytest.raises(ChecksError, match=r"no garment.*pipelines\.dataset\.checks"):  # nothing but background
        project.step(copied)
    assert project.records() == before


def test_what_the_cache_keeps_is_not_written_to_by_later_steps(project: Project, annotated_photo: Annotate) -> None:
    def kept() -> dict[Path, bytes]:
        folder = project.workspace.settings.var / "dvc-cache" / "files"
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    project.step(project.copy(annotated_photo("a", 10, {"coat": slice(2, 9)}, task_id=1)))
    _publish(project.bucket, project.workspace, 3)
    before = kept()
    project.step(project.copy(annotated_photo("a", 10, {"coat": slice(2, 12)}, task_id=1)))
    assert before.items() <= kept().items()
