"""Keep a workspace's objects whole, and publish them to the DVC remote: checked before and after `dvc push`.

After a push was killed, `dvc push` can report success and leave files behind, because it relies on its own record of
what the remote holds, and it uploads a damaged file of the cache as it is. So the bytes are compared with their names
before it runs, and afterwards the bucket is asked what it holds; what DVC left out is uploaded object by object.
"""

import io
import logging
import re
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
from google.cloud.storage import Client

from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MANIFEST, MASKS, PHOTOS
from pipelines.dataset.object_names import by_md5, is_named, is_object
from pipelines.dataset.objects import Objects, Source
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError, MaskloopError, StorageError
from pipelines.fs import write_atomically
from pipelines.gcs.client import read, split_uri, stat
from pipelines.photos.decode import sha256_hex
from pipelines.records import ObjectRef

logger = logging.getLogger(__name__)
TRACKED = (ANNOTATIONS, IMAGES, MASKS, PHOTOS, BEFORE, MANIFEST)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAMED = 3  # files that an error names


def push_and_audit(workspace: Workspace, bucket: Client, *, everything: bool = True) -> int:
    """Push the workspace's data and verify it object by object; return how many objects were verified.

    Without `everything`, objects that the last published version needed are not verified again. Damaged files of the
    cache are replaced by good copies first. Raise DatasetError, and push nothing, when there is none, and when a
    photo's bytes are not those that its name says; raise it as well when the remote is incomplete after all.
    """
    objects = Objects(workspace.settings, bucket)
    files = workspace.tracked(objects)
    needed = set(files.values())
    new = needed - _published_objects(workspace)
    wanted = needed if everything else new
    _make_whole(workspace, objects, files, wanted)
    _require_own_names(workspace, objects, files, new)
    workspace.dvc("push", *map(str, TRACKED))
    todo = "check the bucket's permissions and run `maskloop sync` again"
    if uploaded := upload_missing(objects, files, wanted, "this dataset", todo):
        logger.warning("%d objects were missing on the remote after the push; each of them was uploaded", uploaded)
    if everything:
        _warn_of_another_bucket(workspace, objects)
    return len(wanted)


def upload_missing(objects: Objects, files: Mapping[str, str], wanted: Collection[str], what: str, todo: str) -> int:
    """Upload those of `wanted` that the remote lacks, and verify them there; return how many these were.

    Raise DatasetError when some lack all the same; `what` and `todo` say in it what they are of and what to do next.
    """
    missing = objects.missing_on_remote(wanted)
    reasons = objects.upload(missing)
    if lacking := objects.missing_on_remote(missing):
        first = sorted(lacking)[0]
        raise DatasetError(
            f"{len(lacking)} objects of {what} are not on the remote, such as {objects.remote_uri(first)} "
            f"({by_md5(files)[first][0]}): {reasons.get(first) or 'it was changed meanwhile'}; {todo}"
        )
    return len(missing)


def incomplete_versions(workspace: Workspace, objects: Objects, tags: Collection[str]) -> dict[str, int]:
    """Return how many objects the remote lacks of each version that is not complete there, oldest first."""
    needed: dict[str, set[str]] = {}
    for tag in tags:
        problems: dict[str, str] = {}
        needed[tag] = set(workspace.tracked(objects, tag, problems=problems).values())
    missing = objects.missing_on_remote(set().union(*needed.values()))
    return {tag: count for tag in tags if (count := len(needed[tag] & missing))}


def _warn_of_another_bucket(workspace: Workspace, objects: Objects) -> None:
    """Log which versions are not in the bucket that the settings name since the last version was published."""
    before = workspace.recorded_remote().get("url", "")
    url = f"gs://{workspace.settings.dvc_bucket}/dvc"
    if before in ("", url):
        return
    if incomplete := incomplete_versions(workspace, objects, workspace.dataset_tags()):
        logger.warning(
            "datasets are published to %s now; %s does not hold all of %s: copy them with `gcloud storage cp "
            "--recursive '%s/*' %s`, or with `maskloop verify --all` what the local cache holds",
            url, url, ", ".join(incomplete), before, url,
        )  # fmt: skip


def restore_workspace(workspace: Workspace, bucket: Client) -> bool:
    """Replace what is damaged of the data that a workspace recorded last; return whether files had to be removed.

    Files without any good copy are moved to the cache's folder `damaged`, so that a sync that reads everything again
    makes them anew; annotations of photos that are gone everywhere are then left out. Photos whose files did not change
    since they were last hashed are not hashed.
    """
    objects = Objects(workspace.settings, bucket)
    problems: dict[str, str] = {}
    files = workspace.tracked(objects, problems=problems)
    photos = {md5 for path, md5 in files.items() if is_photo(path)}
    damaged = objects.unusable(photos, unless_verified=True)[0] | objects.unusable(set(files.values()) - photos)[0]
    paths = by_md5(files)
    lost = objects.restore(damaged, _workspace_source(workspace, paths), photo_source(objects, files, workspace.path))
    objects.relink(workspace.path)
    for md5, reason in lost.items():
        for path in paths[md5]:
            logger.warning("%s is damaged, and everything is read again to make it anew: %s", path, reason)
            file = workspace.path / path
            if file.is_file() and not is_object(file, md5):  # DVC lists a folder anew
                file.unlink()
        objects.set_aside(md5)
    wrong = _photos_with_other_names(workspace.path / IMAGES) if str(IMAGES) in problems else []
    for photo in wrong:
        logger.warning("%s is damaged and is read again", photo)
        photo.unlink()
    return bool(lost or wrong)


def needed_objects(workspace: Workspace, tag: str | None = None) -> set[str]:
    """Return the MD5 name of each file and folder that the dataset consists of, as it is now or at a tag.

    Names of folders end with `.dir`.
    """
    return set(workspace.tracked(Objects(workspace.settings), tag).values())


def missing_objects(workspace: Workspace, bucket: Client, wanted: set[str]) -> set[str]:
    """Return the MD5 names that the remote lacks or holds with other content."""
    return Objects(workspace.settings, bucket).missing_on_remote(wanted)


def photo_source(objects: Objects, files: Mapping[str, str], folder: Path | None = None) -> Source:
    """Return a source of photos' bytes: the bucket they came from, by the addresses of the dataset's manifest.

    `files` are those of the dataset. In a workspace's `folder`, the table of photos is used where there is no manifest.
    """
    addresses: dict[str, tuple[str, int]] = {}
    reading = threading.Lock()
    hashes = {md5: Path(path).name for path, md5 in files.items() if is_photo(path)}

    def fetch(md5: str) -> bytes | None:
        sha256 = hashes.get(md5, "")
        if not sha256:
            return None
        with reading:
            if not addresses:
                addresses.update(photo_addresses(objects, files, folder))
        if sha256 not in addresses:
            return None
        return _read_photo(objects.client, *addresses[sha256], sha256)

    return fetch


def photo_addresses(
    objects: Objects, files: Mapping[str, str], folder: Path | None = None
) -> dict[str, tuple[str, int]]:
    """Return address and generation of each photo by its SHA-256; those of the photos that can still be read."""
    names = [name for name in (MANIFEST, PHOTOS) if str(name) in files]
    readers: list[Callable[[], bytes]] = [partial(objects.read, files[str(name)], str(name)) for name in names]
    readers += [(folder / PHOTOS).read_bytes] if folder else []
    for reader in readers:
        try:
            rows = pd.read_parquet(io.BytesIO(reader()), columns=["sha256", "uri", "generation"])
        except (MaskloopError, KeyError, OSError, ValueError):  # damaged, or not made yet
            continue
        return {
            str(sha256): (str(uri), int(generation))
            for sha256, uri, generation in rows.itertuples(index=False, name=None)
        }
    return {}


def explain(files: Mapping[str, str], reasons: Mapping[str, str], addresses: Mapping[str, tuple[str, int]]) -> str:
    """Return which files of a dataset have no good copy, with the addresses of photos, and what can be done."""
    paths = by_md5(files)
    named = []
    for md5 in sorted(reasons, key=lambda md5: paths[md5])[:_NAMED]:
        path = paths[md5][0]
        uri = addresses.get(Path(path).name, ("", 0))[0]
        named.append(f"{path}{f' (the photo {uri})' if uri else ''}: {reasons[md5]}")
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return (
        f"{len(reasons)} files have no good copy: {'; '.join(named)}{more}. Upload the same photo to its "
        "address again; what is no photo is made anew by `maskloop sync`, or put the object back from a backup of the "
        "bucket. `maskloop verify` shows what is still missing"
    )


def _make_whole(workspace: Workspace, objects: Objects, files: Mapping[str, str], wanted: Collection[str]) -> None:
    """Bring good bytes of what would be uploaded to the cache; raise DatasetError when there are none."""
    damaged, missing = objects.unusable(wanted)
    unusable = damaged | (objects.missing_on_remote(missing) if missing else set())
    if not unusable:
        return
    from_source = photo_source(objects, files, workspace.path)
    reasons = objects.restore(unusable, _workspace_source(workspace, by_md5(files)), from_source)
    objects.relink(workspace.path)
    if reasons:
        raise DatasetError(explain(files, reasons, photo_addresses(objects, files, workspace.path)))


def _require_own_names(workspace: Workspace, objects: Objects, files: Mapping[str, str], new: Collection[str]) -> None:
    """Raise DatasetError when a photo that is new has other bytes than its name says; a good copy is written first.

    A file that was damaged in the workspace before DVC hashed it has the right MD5 of the wrong bytes.
    """
    wrong = [
        path for path, md5 in sorted(files.items())
        if md5 in new and is_photo(path) and sha256_hex(objects.read(md5, path)) != Path(path).name
    ]  # fmt: skip
    if not wrong:
        return
    addresses = photo_addresses(objects, files, workspace.path)
    restored = []
    (workspace.settings.var / "sync.json").unlink(missing_ok=True)  # the next sync reads everything again
    for path in wrong:
        uri, generation = addresses.get(Path(path).name, ("", 0))
        data = _read_photo(objects.client, uri, generation, Path(path).name) if uri else None
        if data is None:
            (workspace.path / path).unlink(missing_ok=True)  # its annotations are left out
        else:
            write_atomically(workspace.path / path, data)
            restored.append(path)
    raise DatasetError(
        f"{len(wrong)} photos were damaged in {workspace.path}, such as {wrong[0]} "
        f"({addresses.get(Path(wrong[0]).name, ('unknown address', 0))[0]}); {len(restored)} were read again from "
        "their bucket, and nothing was published; run `maskloop sync` again"
    )


def _workspace_source(workspace: Workspace, paths: Mapping[str, Collection[str]]) -> Source:
    """Return a source of the bytes that the files of a workspace hold; those of other bytes do no harm."""

    def fetch(md5: str) -> bytes | None:
        for path in paths.get(md5, ()):
            try:
                data = (workspace.path / path).read_bytes()
            except OSError:  # it is a folder, gone, or cannot be read
                continue
            if is_named(data, md5):
                return data
        return None

    return fetch


def _read_photo(client: Client, uri: str, generation: int, sha256: str) -> bytes | None:
    """Return a photo's bytes, of its generation or of the object as it is now; None when neither has this SHA-256."""
    bucket, name = split_uri(uri)
    readers: tuple[Callable[[], ObjectRef | None], ...] = (
        lambda: ObjectRef(bucket, name, generation),
        lambda: stat(client, bucket, name),
    )
    for reader in readers:
        try:
            ref = reader()
            data = read(client, ref) if ref else b""
        except StorageError as error:
            logger.info("%s: %s", uri, error)
            continue
        if sha256_hex(data) == sha256:
            return data
    return None


def _photos_with_other_names(folder: Path) -> list[Path]:
    """Return the photos of a folder whose bytes are not those that their names say."""
    paths = [path for path in folder.iterdir() if is_photo(f"{IMAGES}/{path.name}")] if folder.exists() else []
    return [path for path in paths if sha256_hex(path.read_bytes()) != path.name]


def is_photo(path: str) -> bool:
    """Return whether a file is a photo that is named by the SHA-256 of its bytes."""
    return Path(path).parent == IMAGES and _SHA256.fullmatch(Path(path).name) is not None


def _published_objects(workspace: Workspace) -> set[str]:
    """Return what the last published version needs; nothing when it cannot be read any more."""
    tags = workspace.dataset_tags()
    if not tags:
        return set()
    try:
        return needed_objects(workspace, tags[-1])
    except (OSError, KeyError, DatasetError) as error:
        logger.info("everything is verified, as %s cannot be read any more: %s", tags[-1], error)
        return set()
