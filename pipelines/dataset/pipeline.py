"""Station 3: what people submitted becomes a dataset version.

Order of publishing: files → DVC → verified remote → commit → push → tag; nothing refers to what is not verified yet.
Killed anywhere and run again, it takes up where the state says it must. A run costs what changed since the last one.
"""

import io
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd
from google.cloud.storage import Client

from pipelines.dataset.checks import PAGE
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MANIFEST, NO_PHOTOS, make_hold
from pipelines.dataset.mirror import Copied, copy_changes, read_note
from pipelines.dataset.published import Published
from pipelines.dataset.remote import is_published, push_and_audit
from pipelines.dataset.split import is_blind, is_marked_full
from pipelines.dataset.step import Step, Touched
from pipelines.dataset.summary import describe_change
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ServiceError
from pipelines.gcs.client import browser_address, delete, list_objects, md5_base64, put, require_bucket, stat, write
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.cursor import read_changes
from pipelines.labelstudio.project import find_project
from pipelines.params import load_params
from pipelines.photos.decode import sha256_hex
from pipelines.records import DatasetVersion
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_MIRROR = "annotations/"
_CHECKS = "checks/"


def sync(bucket: Client, labels: LabelStudioClient, settings: Settings) -> DatasetVersion | None:
    """Bring workspace, remote and target bucket in line with Label Studio; None when nothing changed.

    A project without any annotation deletes nothing: that is more often a lost database than a wish.
    Raises DatasetError when the checks stop the version; the last good one then stays as it is.
    """
    for name in (settings.target_bucket, settings.dvc_bucket):
        require_bucket(bucket, name)
    workspace = Workspace(settings.workspace_path, settings)
    with workspace.locked():
        workspace.ensure()
        if workspace.is_away():
            _note_path(settings).unlink(missing_ok=True)  # the annotations that lie there may be of an older dataset
            workspace.come_back()
        workspace.take_code()
        copied = look_and_copy(bucket, labels, workspace)
        if copied is None:
            if workspace.dataset_tags():
                logger.warning("Label Studio holds no annotation any more; the newest dataset and its bucket copy stay")
            else:
                logger.info("nothing is labelled yet")
            return None
        version = None
        # Without a step from here, code or parameters are newer than the last version.
        if copied.changed or copied.everything or Step.from_last(workspace) is None:
            version = _bring_out(bucket, workspace, copied)
        if version is None:
            logger.info("nothing changed since %s", workspace.dataset_tags()[-1])
            _push_git(workspace)  # in case the last run was killed just before
        copied.note.write(_note_path(settings))
        return version


def look_and_copy(bucket: Client, labels: LabelStudioClient, workspace: Workspace) -> Copied | None:
    """Bring the workspace's annotations and photos in line with Label Studio; None when none would be left."""
    project = find_project(labels, load_params(workspace.path / "params.yaml"))
    settings = workspace.settings
    source = " ".join([
        labels.url, str(project), settings.storage_endpoint or "", settings.target_bucket, settings.dvc_bucket
    ])  # fmt: skip
    note = read_note(_note_path(settings), source, workspace.path)
    changes = read_changes(labels, project, note.look)
    skipped = sum(annotation.cancelled for annotation in changes.annotations)
    logger.info(
        "%s: %d tasks with %d annotations, %d of them skipped; %d tasks are gone",
        "changed" if note.look else "everything was read", len(changes.read), len(changes.annotations), skipped,
        len(changes.gone),
    )  # fmt: skip
    _note_path(settings).unlink(missing_ok=True)  # until what follows is published
    return copy_changes(bucket, workspace.path, note, changes)


def _bring_out(bucket: Client, workspace: Workspace, copied: Copied) -> DatasetVersion | None:
    """Build and publish a version of what was copied; None when it is the same bytes as the last one."""
    step = None if copied.everything else Step.from_last(workspace)
    name = workspace.settings.target_bucket
    with workspace.warmed_up(with_dvc=step is None):
        try:
            gain_of = partial(_detectable_gain, workspace.settings)
            _take_version_before(workspace, Published(workspace, bucket), gain_of)
            touched = Touched(frozenset(copied.files) | copied.gone, copied.photos)
            if step is None or not step.build(touched):
                _build(workspace)
        finally:
            _show_checks(bucket, workspace)
        if copied.everything:  # what was lost in the buckets comes back, also when nothing is new
            _mirror_bucket(bucket, name, copied.files)
        elif is_published(workspace):
            return None
        else:
            _mirror_changes(bucket, name, copied)
        verified = push_and_audit(workspace, bucket, everything=copied.everything)
    logger.info("%d objects verified on the remote", verified)
    return None if is_published(workspace) else _publish(bucket, workspace, len(copied.note.known))


def _note_path(settings: Settings) -> Path:
    return settings.var / "sync.json"


def _mirror_bucket(bucket: Client, name: str, files: Mapping[str, bytes]) -> None:
    """Make the target bucket hold exactly these annotations below annotations/, deletions included."""
    there = {ref.name.removeprefix(_MIRROR): ref for ref in list_objects(bucket, name, _MIRROR)}
    for file, data in files.items():
        if file not in there or there[file].md5 != md5_base64(data):
            replaces = there[file].generation if file in there else 0
            write(bucket, name, _MIRROR + file, data, "application/json", replaces=replaces)
    for file, ref in there.items():
        if file not in files:
            delete(bucket, ref)


def _mirror_changes(bucket: Client, name: str, copied: Copied) -> None:
    """Bring the target bucket's copies of annotations that were read, or are gone, in line."""
    for file, data in copied.files.items():
        put(bucket, name, _MIRROR + file, data, "application/json")
    for file in copied.gone:
        if there := stat(bucket, name, _MIRROR + file):
            delete(bucket, there)


def _take_version_before(
    workspace: Workspace, published: Published, gain_of: Callable[[str], float | None] = lambda division: None
) -> None:
    """Lay out the manifest of the version before, which says so once its test side is large enough.

    `gain_of` tells how small a gain of mIoU (0..1) was last detected under a division of photos; None: not known.
    """
    tags = published.tags()
    data = published.manifest_file(tags[-1]) if tags else NO_PHOTOS
    if data:
        table = pd.read_parquet(io.BytesIO(data))
        gain = None if is_marked_full(table) else gain_of(str(table["division"].iloc[0]))
        if gain is not None and gain <= load_params(workspace.path / "params.yaml").promote.detect_gain:
            file = io.BytesIO()
            table.assign(test_full=True).to_parquet(file, index=False)
            data = file.getvalue()
            logger.info("the test side detects a gain of %.3f: new groups go to training from now on", gain)
    make_hold(workspace.path / BEFORE, data)


def _detectable_gain(settings: Settings, division: str) -> float | None:
    from pipelines.models.registry import Registry

    try:
        return Registry(settings).detectable_gain(division)
    except ServiceError as error:
        logger.warning("%s; how small a gain the test side detects is not known", error)
        return None


def _build(workspace: Workspace) -> None:
    """Let DVC track the raw files and the version before, and run the stages up to `split`."""
    raw = [str(path) for path in (ANNOTATIONS, IMAGES, BEFORE)]
    tracked = [f"{path}.dvc" for path in raw]
    if not all(workspace.read(path) for path in tracked):
        workspace.dvc("add", *raw)  # from then on `dvc repro` looks at what they hold
    # All by name: `split` follows from annotations alone, and the photos are part of the version as well.
    workspace.dvc("repro", *tracked, "split", show=True)


def _show_checks(bucket: Client, workspace: Workspace) -> None:
    """Bring the Data Docs page of this run's checks into the target bucket and log its address."""
    page = workspace.path / PAGE
    if page.exists():
        data = page.read_bytes()
        name = f"{_CHECKS}{datetime.now(UTC):%Y-%m-%d}/{sha256_hex(data)[:12]}.html"
        put(bucket, workspace.settings.target_bucket, name, data, "text/html; charset=utf-8")
        logger.info("checks: %s", browser_address(workspace.settings, workspace.settings.target_bucket, name))
        page.unlink()  # what lies there at the end of a run is of that run


def _publish(bucket: Client, workspace: Workspace, annotations: int) -> DatasetVersion:
    table = pd.read_parquet(workspace.path / MANIFEST)
    logger.info("%d of %d photos are blind: no model drew any of their masks", is_blind(table).sum(), len(table))
    tags = workspace.dataset_tags()
    summary = describe_change(Published(workspace, bucket).manifest(tags[-1]) if tags else None, table)
    tag = f"dataset-{int(tags[-1].removeprefix('dataset-')) + 1 if tags else 1:04d}"
    workspace.git("add", "data", "dvc.lock")
    if workspace.git("diff", "--cached", "--name-only"):
        workspace.git("commit", "--quiet", "-m", f"{tag}: {summary}")
    _push_git(workspace)
    workspace.git("tag", "--annotate", tag, "-m", summary)
    _push_git(workspace)
    return DatasetVersion(tag, workspace.git("rev-parse", "HEAD"), len(table), annotations, summary)


def _push_git(workspace: Workspace) -> None:
    """Push commits and tags to the settings' git remote, if there is one; never by force."""
    if remote := workspace.settings.git_remote:
        workspace.git("push", "--quiet", "--follow-tags", remote, "HEAD")
