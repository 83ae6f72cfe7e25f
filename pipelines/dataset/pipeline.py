"""The sync pipeline: submitted annotations become a dataset version, in steps that are safe to kill and run again.

The steps are read → compile → check → publish. Publishing has one order: files → DVC → verified remote → commit → push
→ announce → tag, so nothing refers to what is not verified yet, and no two machines publish different versions of one
name (`pipelines.dataset.history`). DVC runs the stages that are out of date.
"""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from google.cloud.storage import Client

from pipelines.dataset.checks import PAGE
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, NO_PHOTOS, VERSION
from pipelines.dataset.history import announce, follow_git_remote, push_git, require_newest
from pipelines.dataset.mirror import SyncState, load_state, reconcile, state_to_continue
from pipelines.dataset.published import Published
from pipelines.dataset.records import annotation_json
from pipelines.dataset.remote import push_and_audit, restore_workspace
from pipelines.dataset.split import is_blind, is_marked_full
from pipelines.dataset.summary import describe_change, describe_version
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.forget.ledger import EMPTY_LEDGER, Forgotten, load_forgotten
from pipelines.fs import write_atomically
from pipelines.gcs.client import browser_address, delete, list_objects, md5_base64, put, require_bucket, stat, write
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.cursor import read_changes
from pipelines.labelstudio.interface import require_same_labels
from pipelines.labelstudio.project import find_project, project_labels
from pipelines.params import load_params
from pipelines.photos.decode import sha256_hex
from pipelines.records import DatasetVersion
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_COPIES = "annotations/"
_CHECKS = "checks/"
_RAW = (ANNOTATIONS, IMAGES, BEFORE)

DetectableGain = Callable[[str], float | None]


def sync(
    bucket: Client,
    labels: LabelStudioClient,
    settings: Settings,
    detectable_gain: DetectableGain = lambda split_config: None,
) -> DatasetVersion | None:
    """Run all steps; return the new version, or None when nothing changed.

    Raise ChecksError when the checks stop the version; the last good one then stays in use.
    """
    if not read_annotations(bucket, labels, settings, detectable_gain):
        return None
    build_dataset(bucket, settings, "split")
    return publish_dataset(bucket, settings)


def read_annotations(
    bucket: Client,
    labels: LabelStudioClient,
    settings: Settings,
    detectable_gain: DetectableGain = lambda split_config: None,
) -> bool:
    """Copy annotations and photos from Label Studio to the workspace; return whether something is unpublished.

    That may be annotations, or code and parameters that are newer than those of the last version; its manifest is then
    written for the stages. `detectable_gain` returns the smallest gain of mIoU (0..1) that the test split detected last
    under a split configuration, or None when that is not known. A project without any annotation deletes nothing: a
    lost database is more likely than a wish.
    """
    for name in (settings.target_bucket, settings.dvc_bucket):
        require_bucket(bucket, name)
    with _opened(settings) as workspace:
        workspace.ensure()
        if not workspace.is_on_branch():
            _state_path(settings).unlink(missing_ok=True)  # the annotations in the workspace may be of an older dataset
            workspace.checkout_branch()
        if follow_git_remote(workspace):
            _state_path(settings).unlink(missing_ok=True)  # the annotations in the workspace are older than its commit
        workspace.merge_source()
        require_newest(workspace, bucket)
        if restore_workspace(workspace, bucket):
            _state_path(settings).unlink(missing_ok=True)  # what has no good copy is read again
        forgotten = load_forgotten(bucket, settings.target_bucket)
        state = _read(bucket, labels, workspace, forgotten)
        if state is None:
            if workspace.dataset_tags():
                logger.warning("Label Studio holds no annotation any more; the newest dataset and its bucket copy stay")
            else:
                logger.info("nothing is labelled yet")
            return False
        if state.unpublished or state.scanned or state.built_at != workspace.git("rev-parse", "HEAD"):
            lay_out_version_before(workspace, detectable_gain, forgotten)
            return True
        newest = workspace.dataset_tags()[-1]
        logger.info("nothing changed since %s", newest)
        push_git(workspace)  # in case the last run was killed just before
        announce(workspace, bucket, newest)  # versions of before there was such an object
        return False


def build_dataset(bucket: Client, settings: Settings, stage: str) -> None:
    """Run the DVC stages up to `stage` (compile, check or split) that are out of date.

    The page of the checks is copied to the target bucket, whether they passed or not. Raise what a stage failed with.
    """
    with _opened(settings) as workspace:
        pointers = [f"{path}.dvc" for path in _RAW]
        if not all((workspace.path / pointer).exists() for pointer in pointers):
            workspace.dvc("add", *map(str, _RAW))  # from then on `dvc repro` checks what they hold
        try:
            # By name, because `split` depends on annotations alone, and photos are part of the version as well.
            workspace.dvc("repro", *pointers, stage, show=True)
        finally:
            _show_checks(bucket, workspace)


def publish_dataset(bucket: Client, settings: Settings) -> DatasetVersion | None:
    """Push, verify, commit and tag what was built; return None when the last version holds the same.

    After a full scan, objects that were lost in the buckets are restored, also when nothing is new.
    """
    with _opened(settings) as workspace:
        dataset = Dataset(workspace.path)
        state = load_state(_state_path(settings), dataset)
        if state is None:
            raise DatasetError("the annotations changed since they were compiled; run `maskloop sync` again")
        text = describe_version(dataset, len(state.known))
        new = text != _published_text(workspace)
        if new or state.scanned:
            _copy_annotations(bucket, settings.target_bucket, dataset, state)
            verified = push_and_audit(workspace, bucket, everything=state.scanned)
            logger.info("%d objects verified on the remote", verified)
        version = _tag(workspace, bucket, dataset, text, len(state.known)) if new else None
        if not new:
            logger.info("nothing changed since %s", workspace.dataset_tags()[-1])
            _commit(workspace, "Stages of newer code made the same dataset")
            push_git(workspace)
        state.published(workspace.git("rev-parse", "HEAD")).write(_state_path(settings))
        return version


@contextmanager
def _opened(settings: Settings) -> Iterator[Workspace]:
    workspace = Workspace(settings.workspace_path, settings)
    with workspace.locked():
        yield workspace


def _read(bucket: Client, labels: LabelStudioClient, workspace: Workspace, forgotten: Forgotten) -> SyncState | None:
    """Read what changed in Label Studio into the workspace; return the state, or None when no annotation is left.

    Raise ContractError when the project offers labels that params.yaml does not have.
    """
    dataset, params = Dataset(workspace.path), load_params(workspace.path / "params.yaml")
    project = find_project(labels, params)
    # A label that was renamed would be unknown on every photo; one that params.yaml alone has was not drawn yet.
    require_same_labels(params, offered=project_labels(labels, project) | params.label_ids.keys())
    path = _state_path(workspace.settings)
    before = state_to_continue(path, _source(labels, project, workspace.settings), dataset)
    changes = forgotten.applied_to(read_changes(labels, project, before.cursor, params.ignore.name))
    skipped = sum(annotation.cancelled for annotation in changes.annotations)
    logger.info(
        "%s: %d tasks with %d annotations, %d of them skipped; %d tasks are gone",
        "changed" if before.cursor else "everything was read", len(changes.read), len(changes.annotations), skipped,
        len(changes.gone),
    )  # fmt: skip
    path.unlink(missing_ok=True)  # while it does not fit the files
    state = reconcile(bucket, dataset, before, changes)
    if state:
        state.write(path)
    return state


def _source(labels: LabelStudioClient, project: int, settings: Settings) -> str:
    """Return a text that identifies the project that is copied, and the buckets it is published to."""
    endpoint = settings.storage_endpoint or ""
    return " ".join([labels.url, str(project), endpoint, settings.target_bucket, settings.dvc_bucket])


def _state_path(settings: Settings) -> Path:
    return settings.var / "sync.json"


def _copy_annotations(bucket: Client, name: str, dataset: Dataset, state: SyncState) -> None:
    """Update the target bucket's copies below annotations/, and delete those that are gone."""
    if state.scanned:
        present = {ref.name.removeprefix(_COPIES): ref for ref in list_objects(bucket, name, _COPIES)}
        for annotation in dataset.annotations.read():
            file, data = f"{annotation.uuid}.json", annotation_json(annotation)
            ref = present.pop(file, None)
            if ref is None or ref.md5 != md5_base64(data):
                write(bucket, name, _COPIES + file, data, "application/json", replaces=ref.generation if ref else 0)
        for ref in present.values():
            delete(bucket, ref)
        return
    photos = {state.known[uuid][1] for uuid in state.unpublished & state.known.keys()}
    for annotation in dataset.annotations.of_photos(photos):
        if annotation.uuid in state.unpublished:
            put(bucket, name, f"{_COPIES}{annotation.uuid}.json", annotation_json(annotation), "application/json")
    for uuid in state.unpublished - state.known.keys():
        if ref := stat(bucket, name, f"{_COPIES}{uuid}.json"):
            delete(bucket, ref)


def lay_out_version_before(
    workspace: Workspace,
    detectable_gain: DetectableGain = lambda split_config: None,
    forgotten: Forgotten = EMPTY_LEDGER,
) -> None:
    """Write the last version's manifest to data/before.parquet, marked as full once its test split is large enough.

    Rows of forgotten photos, and addresses of forgotten people, are left out.
    """
    versions = Published(workspace)
    tags = versions.tags()
    data = versions.manifest_file(tags[-1]) if tags else NO_PHOTOS
    if data:
        published = pd.read_parquet(io.BytesIO(data))
        table = forgotten.without(published)
        gain = None if is_marked_full(published) else detectable_gain(str(published["division"].iloc[0]))
        if gain is not None and gain <= load_params(workspace.path / "params.yaml").promote.detect_gain:
            table = table.assign(test_full=True)
            logger.info("the test split detects a gain of %.3f: new groups go to training from now on", gain)
        if table is not published:
            file = io.BytesIO()
            table.to_parquet(file, index=False)
            data = file.getvalue()
    path = workspace.path / BEFORE
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


def _show_checks(bucket: Client, workspace: Workspace) -> None:
    """Copy the Data Docs page of this run's checks to the target bucket and log its address."""
    page = workspace.path / PAGE
    if page.exists():
        data = page.read_bytes()
        name = f"{_CHECKS}{datetime.now(UTC):%Y-%m-%d}/{sha256_hex(data)[:12]}.html"
        put(bucket, workspace.settings.target_bucket, name, data, "text/html; charset=utf-8")
        logger.info("checks: %s", browser_address(workspace.settings, workspace.settings.target_bucket, name))
        page.unlink()  # so that a page is always of the latest run


def _published_text(workspace: Workspace) -> str:
    tags = workspace.dataset_tags()
    return workspace.show(tags[-1], str(VERSION)) + "\n" if tags else ""


def _tag(workspace: Workspace, bucket: Client, dataset: Dataset, text: str, annotations: int) -> DatasetVersion:
    table = dataset.manifest()
    logger.info("%d of %d photos are blind: no model drew any of their masks", is_blind(table).sum(), len(table))
    tags, before = workspace.dataset_tags(), dataset.before()
    summary = describe_change(before, table)
    tag = f"dataset-{int(tags[-1].removeprefix('dataset-')) + 1 if tags else 1:04d}"
    write_atomically(dataset.path(VERSION), text.encode())
    _commit(workspace, f"{tag}: {summary}")
    push_git(workspace)
    announce(workspace, bucket, tag)
    workspace.git("tag", "--annotate", tag, "-m", summary)
    push_git(workspace)
    return DatasetVersion(tag, workspace.git("rev-parse", "HEAD"), len(table), annotations, summary)


def _commit(workspace: Workspace, message: str) -> None:
    workspace.record_remote()
    workspace.git("add", "data", "dvc.lock", ".dvc/config")
    if workspace.git("diff", "--cached", "--name-only"):
        workspace.git("commit", "--quiet", "-m", message)
