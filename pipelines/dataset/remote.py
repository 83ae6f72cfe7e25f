"""The audit of the DVC remote: is every file of this dataset version really there, with the right content?

What the last published version did not need is uploaded and looked up here, object by object, at the cost of what is
new. `dvc push` does the rest: it can report success and leave files behind after an earlier push was killed, because it
believes its memory of what is there, so its word is not taken.
"""

import base64
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml
from google.cloud.storage import Client

from pipelines.dataset.cache import path_in_cache, read_folder
from pipelines.dataset.files import ANNOTATIONS, BEFORE, CHECKS, IMAGES
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.gcs.client import delete, list_objects, put, stat, widen

logger = logging.getLogger(__name__)
_PREFIX = "dvc/files/md5/"
_ASKED_AT_ONCE = 16
_DATASET_STAGES = ("compile", "check", "split")


def push_and_audit(workspace: Workspace, bucket: Client, *, everything: bool = True) -> int:
    """Push the workspace's data and verify it object by object; gives how many objects were verified.

    Unless `everything` is to be verified, what the last published version needed is not looked at again. When objects
    are missing, the directory objects that vouch for them are removed, and so are objects with other content; then
    everything is pushed without DVC's memory and verified once more. Raises DatasetError when the remote is still
    incomplete.
    """
    needed = needed_objects(workspace)
    if not everything:
        new = needed - _published_objects(workspace)
        _upload(workspace, bucket, new)
        if not _some_missing(workspace, bucket, new):
            return len(new)
    workspace.dvc("push")
    missing = missing_objects(workspace, bucket)
    if missing:
        logger.warning("%d objects are missing on the remote after the push; pushing again", len(missing))
        _forget(workspace, bucket, missing)
        workspace.dvc("push", remembers=False)
        missing = missing_objects(workspace, bucket)
    if missing:
        raise DatasetError(
            f"{len(missing)} objects of this dataset are not on the remote, such as {sorted(missing)[0]}; "
            "check the bucket's permissions and run `maskloop sync` again"
        )
    return len(needed)


def missing_objects(workspace: Workspace, bucket: Client) -> set[str]:
    """Give the MD5 names that the version needs and the remote lacks or holds with other content."""
    there = {}
    for ref in list_objects(bucket, workspace.settings.dvc_bucket, _PREFIX):
        there[ref.name.removeprefix(_PREFIX).replace("/", "")] = ref.md5
    return {name for name in needed_objects(workspace) if there.get(name) != _as_listed(name)}


def needed_objects(workspace: Workspace, read: Callable[[str], str] | None = None) -> set[str]:
    """Give the MD5 name of each file and directory that the current version refers to, or the one that `read` reads."""
    needed: set[str] = set()
    for name in output_hashes(read or workspace.read):
        needed.add(name)
        if name.endswith(".dir"):
            needed |= set(read_folder(workspace.settings, name).values())
    return needed


def _published_objects(workspace: Workspace) -> set[str]:
    """Give what the last published version needs; nothing when that cannot be told any more."""
    tags = workspace.dataset_tags()
    try:
        return needed_objects(workspace, lambda path: workspace.show(tags[-1], path)) if tags else set()
    except DatasetError:
        return set()


def _upload(workspace: Workspace, bucket: Client, names: set[str]) -> None:
    """Upload objects from the cache; folders at the end, because they vouch for their files."""

    def upload(name: str) -> None:
        data = path_in_cache(workspace.settings, name).read_bytes()
        put(bucket, workspace.settings.dvc_bucket, _object(name), data, "application/octet-stream")

    folders = {name for name in names if name.endswith(".dir")}
    widen(bucket, _ASKED_AT_ONCE)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        list(pool.map(upload, sorted(names - folders)))
        list(pool.map(upload, sorted(folders)))


def _object(name: str) -> str:
    return f"{_PREFIX}{name[:2]}/{name[2:]}"


def _some_missing(workspace: Workspace, bucket: Client, names: set[str]) -> bool:
    def is_there(name: str) -> bool:
        there = stat(bucket, workspace.settings.dvc_bucket, _object(name))
        return there is not None and there.md5 == _as_listed(name)

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return not all(pool.map(is_there, sorted(names)))


def is_published(workspace: Workspace) -> bool:
    """Tell whether the outputs that are recorded in the workspace are the bytes of the last tag."""
    tags = workspace.dataset_tags()
    if not tags:
        return False
    now = output_hashes(workspace.read, with_before=False)
    return now == output_hashes(lambda path: workspace.show(tags[-1], path), with_before=False)


def output_hashes(read: Callable[[str], str], *, with_before: bool = True) -> set[str]:
    """Give the hashes of all DVC-kept outputs of a dataset: tracked files and stages up to `split`.

    `read` gives a file's text by its path in the workspace, now or at some tag; empty when there is none. The version
    before is left out without `with_before`: on what it was, two equal datasets may differ.
    """
    tracked = [f"{path}.dvc" for path in (ANNOTATIONS, IMAGES, *([BEFORE] if with_before else []))]
    documents: list[Any] = [yaml.safe_load(read(path)) or {} for path in tracked]
    stages = (yaml.safe_load(read("dvc.lock")) or {}).get("stages", {})
    documents += [stages[name] for name in _DATASET_STAGES if name in stages]
    outputs = [out for document in documents for out in document.get("outs", ())]
    return {str(out["md5"]) for out in outputs if out["path"] != str(CHECKS)}


def _forget(workspace: Workspace, bucket: Client, missing: set[str]) -> None:
    """Remove what would make DVC believe that a file is there.

    These are files with other content, and directory objects that vouch for what is missing. Others stay: published
    versions refer to them.
    """
    directories = {name for name in output_hashes(workspace.read) if name.endswith(".dir")}
    vouching = {name for name in directories if missing.intersection(read_folder(workspace.settings, name).values())}
    doubtful = missing | vouching
    for ref in list_objects(bucket, workspace.settings.dvc_bucket, _PREFIX):
        if ref.name.removeprefix(_PREFIX).replace("/", "") in doubtful:
            delete(bucket, ref)


def _as_listed(name: str) -> str:
    """Give the MD5 as a bucket lists it (base64) for a name in hex, with or without `.dir`."""
    return base64.b64encode(bytes.fromhex(name.removesuffix(".dir"))).decode()
