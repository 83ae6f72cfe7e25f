"""Station 3: what people submitted becomes a dataset version.

Order of publishing: files → DVC → verified remote → commit → push → tag; nothing refers to what is not verified yet.
Killed anywhere and run again, it takes up where the state says it must.
"""

import io
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from google.cloud.storage import Client

from pipelines.dataset.files import ANNOTATIONS, IMAGES, MANIFEST, annotation_json, image_path
from pipelines.dataset.remote import output_hashes, push_and_audit
from pipelines.dataset.summary import describe_change
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ObjectChangedError, StorageError
from pipelines.images import sha256_hex
from pipelines.labelstudio.annotations import list_annotations
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.project import find_project
from pipelines.params import load_params
from pipelines.records import Annotation, DatasetVersion, ObjectRef
from pipelines.settings import Settings
from pipelines.storage import delete, list_objects, md5_base64, read, require_bucket, split_uri, write

logger = logging.getLogger(__name__)
_MIRROR = "annotations/"


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
        workspace.take_code()
        params = load_params(workspace.path / "params.yaml")
        found = list(list_annotations(labels, find_project(labels, params)))
        kept = [annotation for annotation in found if not annotation.cancelled]
        logger.info("%d annotations = %d kept + %d skipped", len(found), len(kept), len(found) - len(kept))
        kept = _mirror_images(bucket, workspace.path, kept)
        files = {f"{annotation.uuid}.json": annotation_json(annotation) for annotation in kept}
        _mirror_folder(workspace.path / ANNOTATIONS, files)
        if not files:
            if workspace.dataset_tags():
                logger.warning("Label Studio holds no annotation any more; the newest dataset and its bucket copy stay")
            else:
                logger.info("nothing is labelled yet")
            return None
        _build(workspace)
        if not _differs(workspace):
            logger.info("nothing changed since %s", workspace.dataset_tags()[-1])
            _push_git(workspace)  # in case the last run was killed just before
            return None
        _mirror_bucket(bucket, settings.target_bucket, files)
        logger.info("%d objects verified on the remote", push_and_audit(workspace, bucket))
        return _publish(workspace, len(kept))


def _mirror_images(bucket: Client, folder: Path, annotations: Iterable[Annotation]) -> list[Annotation]:
    """Keep each labelled photo's bytes at the generation that was labelled; gives the annotations that have them."""
    usable, wanted = [], set()
    for annotation in annotations:
        image = annotation.image
        path = folder / image_path(image.sha256)
        wanted.add(path.name)
        if not path.exists():
            try:
                data = read(bucket, ObjectRef(*split_uri(image.uri), image.generation))
            except ObjectChangedError as error:
                logger.warning("annotation %s is left out: %s", annotation.uuid, error)
                continue
            if sha256_hex(data) != image.sha256:
                raise StorageError(f"{image.uri}: the bytes are not those that were ingested; run `maskloop ingest`")
            _write_atomically(path, data)
        usable.append(annotation)
    for path in (folder / IMAGES).glob("*"):
        if path.name not in wanted:
            path.unlink()
    return usable


def _mirror_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder hold exactly these files; files that already do are not touched."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        if not (folder / name).exists() or (folder / name).read_bytes() != data:
            _write_atomically(folder / name, data)


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


def _build(workspace: Workspace) -> None:
    """Track the raw files and run the stages up to `split`."""
    workspace.dvc("add", str(ANNOTATIONS), str(IMAGES))
    workspace.dvc("repro", "split", show=True)


def _differs(workspace: Workspace) -> bool:
    """Tell whether the outputs are other bytes than those of the last tag."""
    tags = workspace.dataset_tags()
    if not tags:
        return True
    return output_hashes(workspace.read) != output_hashes(lambda path: workspace.show(tags[-1], path))


def _publish(workspace: Workspace, annotations: int) -> DatasetVersion:
    table = pd.read_parquet(workspace.path / MANIFEST)
    tags = workspace.dataset_tags()
    summary = describe_change(_manifest_at(workspace, tags[-1]) if tags else None, table)
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


def _manifest_at(workspace: Workspace, tag: str) -> pd.DataFrame | None:
    """Read an older manifest from the shared DVC cache; None when it is no longer there."""
    import yaml

    lock = yaml.safe_load(workspace.show(tag, "dvc.lock"))
    md5 = next(o["md5"] for o in lock["stages"]["compile"]["outs"] if o["path"] == str(MANIFEST))
    path = workspace.settings.var / "dvc-cache" / "files" / "md5" / md5[:2] / md5[2:]
    return pd.read_parquet(io.BytesIO(path.read_bytes())) if path.exists() else None


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
