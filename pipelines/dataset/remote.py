"""Audit the DVC remote: check that it holds every file of a dataset version, with the right content.

After a push was killed, `dvc push` can report success and leave files behind, because it relies on its own record of
what the remote holds. So DVC is asked what a version needs, and the bucket what it holds.
"""

import base64
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from google.cloud.storage import Client

from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MANIFEST, MASKS, PHOTOS
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.gcs.client import delete, list_objects, set_pool_size, stat

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

logger = logging.getLogger(__name__)
_PREFIX = "dvc/files/md5/"
_REQUESTS = 16
_FOLDERS = (ANNOTATIONS, IMAGES, MASKS)
TRACKED = (*_FOLDERS, PHOTOS, BEFORE, MANIFEST)


def push_and_audit(workspace: Workspace, bucket: Client, *, everything: bool = True) -> int:
    """Push the workspace's data and verify it object by object; return how many objects were verified.

    Without `everything`, objects that the last published version needed are not verified again. When objects are
    missing, the directory objects that list them are removed, and so are objects with other content; then everything is
    pushed without DVC's site cache and verified once more. Raise DatasetError when the remote is still incomplete.
    """
    targets = [str(path) for path in TRACKED]
    workspace.dvc("push", *targets)
    needed = needed_objects(workspace)
    wanted = needed if everything else needed - _published_objects(workspace)
    if not (missing := missing_objects(workspace, bucket, wanted)):
        return len(wanted)
    logger.warning("%d objects are missing on the remote after the push; pushing again", len(missing))
    _delete_suspect(workspace, bucket, missing)
    workspace.dvc("push", *targets, use_site_cache=False)
    if missing := missing_objects(workspace, bucket, needed):
        raise DatasetError(
            f"{len(missing)} objects of this dataset are not on the remote, such as {sorted(missing)[0]}; "
            "check the bucket's permissions and run `maskloop sync` again"
        )
    return len(needed)


def files_at(workspace: Workspace, tag: str | None = None) -> "DVCFileSystem":
    """Return DVC's view of the workspace, as it is now or at a tag."""
    from dvc.api import DVCFileSystem

    config = {"core": {"site_cache_dir": str(workspace.site_cache)}}
    return DVCFileSystem(url=str(workspace.path), rev=tag, config=config)


def needed_objects(workspace: Workspace, tag: str | None = None) -> set[str]:
    """Return the MD5 name of each file and folder that the dataset consists of, as it is now or at a tag.

    Names of folders end with `.dir`.
    """
    files = files_at(workspace, tag)
    needed = {str(info["md5"]) for info in files.find("data", detail=True, dvc_only=True).values() if info.get("md5")}
    for path in _FOLDERS:
        if md5 := files.info(str(path))["dvc_info"].get("md5"):
            needed.add(str(md5))
    return needed


def missing_objects(workspace: Workspace, bucket: Client, wanted: set[str]) -> set[str]:
    """Return the MD5 names that the remote lacks or holds with other content."""
    name = workspace.settings.dvc_bucket
    if len(wanted) > _REQUESTS * 100:  # listing a thousand takes one request
        listed = {ref.name: ref.md5 for ref in list_objects(bucket, name, _PREFIX)}
        return {md5 for md5 in wanted if listed.get(_object(md5)) != _as_listed(md5)}

    def is_missing(md5: str) -> bool:
        ref = stat(bucket, name, _object(md5))
        return ref is None or ref.md5 != _as_listed(md5)

    set_pool_size(bucket, _REQUESTS)
    ordered = sorted(wanted)
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return {md5 for md5, missing in zip(ordered, pool.map(is_missing, ordered), strict=True) if missing}


def _published_objects(workspace: Workspace) -> set[str]:
    """Return what the last published version needs; nothing when it cannot be read any more."""
    tags = workspace.dataset_tags()
    if not tags:
        return set()
    try:
        return needed_objects(workspace, tags[-1])
    except (OSError, KeyError) as error:
        logger.info("everything is verified, as %s cannot be read any more: %s", tags[-1], error)
        return set()


def _delete_suspect(workspace: Workspace, bucket: Client, missing: set[str]) -> None:
    """Delete objects that would make DVC skip a missing file.

    These are files with other content, and directory objects that list what is missing. Others stay: published versions
    refer to them.
    """
    files = files_at(workspace)
    suspect = set(missing)
    for path in _FOLDERS:
        listed = {str(info["md5"]) for info in files.find(str(path), detail=True, dvc_only=True).values()}
        if missing & listed:
            suspect.add(str(files.info(str(path))["dvc_info"]["md5"]))
    for md5 in suspect:
        if ref := stat(bucket, workspace.settings.dvc_bucket, _object(md5)):
            delete(bucket, ref)


def _object(md5: str) -> str:
    return f"{_PREFIX}{md5[:2]}/{md5[2:]}"


def _as_listed(md5: str) -> str:
    """Return the MD5 as a bucket lists it (base64), for a name in hex with or without `.dir`."""
    return base64.b64encode(bytes.fromhex(md5.removesuffix(".dir"))).decode()
