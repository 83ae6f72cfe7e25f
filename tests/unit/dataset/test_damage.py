"""Bits that flip in the cache or on the remote: nothing damaged is handed on, nothing good is overwritten."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import ANNOTATIONS, IMAGES, MANIFEST, MASKS
from pipelines.dataset.objects import Objects
from pipelines.dataset.published import Published
from pipelines.dataset.remote import push_and_audit, restore_workspace
from pipelines.dataset.verify import verify
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError, StorageError
from pipelines.gcs import client as gcs
from pipelines.photos.decode import sha256_hex
from pipelines.records import Annotation
from tests.unit.dataset.versions import Versions, flip, flip_some, name_of

COAT = {"coat": slice(5, 20)}


@pytest.fixture
def versions(
    workspace: Workspace, bucket_client: Client, archive_bucket: str, annotate: Callable[..., Annotation]
) -> Versions:
    """Two published versions; the second has a photo more, and another mask of one photo."""
    versions = Versions(workspace, bucket_client, archive_bucket, annotate)
    (workspace.path / IMAGES).mkdir(parents=True)
    versions.write(dict.fromkeys(range(8), COAT))
    versions.publish()
    versions.write(dict.fromkeys(range(9), COAT) | {3: {"coat": slice(2, 9), "dress": slice(9, 20)}})
    versions.publish()
    return versions


def damage(path: Path, *, silently: bool = True) -> None:
    flip(path, random.Random(path.name), silently=silently)


def contents(dataset: Dataset) -> dict[str, bytes]:
    return {
        str(path.relative_to(dataset.root)): path.read_bytes()
        for folder in (ANNOTATIONS, IMAGES, MASKS)
        for path in dataset.path(folder).iterdir()
    } | {str(MANIFEST): dataset.path(MANIFEST).read_bytes()}


def checked_out(versions: Versions, tag: str) -> dict[str, bytes]:
    with Published(versions.workspace).checked_out(tag) as dataset:
        return contents(dataset)


@pytest.mark.parametrize("silently", [True, False])
def test_a_damaged_manifest_comes_from_the_remote(versions: Versions, silently: bool) -> None:
    published = Published(versions.workspace)
    good = published.manifest_file("dataset-0001")
    md5 = versions.workspace.tracked(versions.objects, "dataset-0001")[str(MANIFEST)]
    damage(versions.objects.path(md5), silently=silently)

    assert published.manifest_file("dataset-0001") == good
    assert versions.objects.path(md5).read_bytes() == good
    assert [path.name.partition("-")[0] for path in versions.objects.damaged_folder.iterdir()] == [md5]


@pytest.mark.parametrize("spoiled", [b"", b"x" * 9, None], ids=["emptied", "other", "a folder"])
def test_whatever_stands_in_an_objects_place_is_replaced(versions: Versions, spoiled: bytes | None) -> None:
    good = checked_out(versions, "dataset-0002")
    path = versions.objects.path(versions.workspace.tracked(versions.objects)[str(MANIFEST)])
    path.unlink()
    if spoiled is None:
        path.mkdir()
    else:
        path.write_bytes(spoiled)
    assert checked_out(versions, "dataset-0002") == good


def test_without_a_good_copy_the_file_is_named(versions: Versions) -> None:
    files = versions.workspace.tracked(versions.objects, "dataset-0002")
    photo = next(path for path in files if path.startswith("data/images/"))
    damage(versions.objects.path(files[photo]))
    versions.delete_remote(files[photo])
    with pytest.raises(DatasetError, match=rf"1 files of dataset-0002 .* {photo}: .*maskloop verify dataset-0002"):
        checked_out(versions, "dataset-0002")
    assert versions.objects.path(files[photo]).exists(), "the only copy stays, however damaged"


def test_a_hundred_flipped_bits_hand_on_nothing(versions: Versions) -> None:
    good = {tag: checked_out(versions, tag) for tag in ("dataset-0001", "dataset-0002")}
    flip_some(versions.cached(), 100, seed=1)

    restore_workspace(versions.workspace, versions.bucket)
    versions.add()  # what a sync does between reading and pushing
    push_and_audit(versions.workspace, versions.bucket)

    assert contents(versions.dataset) == good["dataset-0002"]
    assert versions.workspace.git("status", "--porcelain") == "", "DVC recorded no damaged file"
    assert versions.damaged_on_remote() == []
    assert {tag: checked_out(versions, tag) for tag in good} == good
    assert verify(versions.workspace, versions.objects, versions.workspace.dataset_tags()).unrepaired == 0
    assert versions.damaged_in_cache() == []


def test_a_damaged_object_that_many_threads_restore_is_replaced_once(versions: Versions) -> None:
    objects = versions.objects
    md5 = versions.workspace.tracked(objects)[str(MANIFEST)]
    good = objects.path(md5).read_bytes()
    at_once = threading.Barrier(8)

    def brought_by_all_at_once(_: str) -> bytes:
        at_once.wait(timeout=60)
        return good

    for round_number in range(20):
        damage(objects.path(md5), silently=bool(round_number % 2))
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: objects.restore([md5], brought_by_all_at_once), range(8))) == [{}] * 8
        assert objects.path(md5).read_bytes() == good
    assert len(list(objects.damaged_folder.iterdir())) == 20, "each damaged file is kept, and no good one with them"


def test_a_hundred_flipped_bits_between_reading_and_pushing(versions: Versions) -> None:
    """Only new objects are unprotected then: the remote holds all others."""
    versions.write(dict.fromkeys(range(14), COAT))
    versions.add()
    flip_some(versions.cached(), 100, seed=2)

    with pytest.raises(DatasetError, match="holds bytes with this MD5"):
        push_and_audit(versions.workspace, versions.bucket)
    assert versions.damaged_on_remote() == []

    assert restore_workspace(versions.workspace, versions.bucket), "what is new is lost, and everything is read again"
    versions.write(dict.fromkeys(range(14), COAT))
    versions.add()
    push_and_audit(versions.workspace, versions.bucket)
    assert versions.damaged_on_remote() == []
    assert not [path for path in versions.damaged_in_cache() if name_of(path) in versions.needed()]
    assert [sha256_hex(path.read_bytes()) == path.name for path in versions.dataset.path(IMAGES).iterdir()] == [
        True
    ] * 14


@pytest.mark.parametrize("silently", [True, False])
def test_a_new_photo_that_is_damaged_before_the_push_is_read_from_its_bucket_again(
    versions: Versions, silently: bool
) -> None:
    versions.write(dict.fromkeys(range(10), COAT))
    versions.add()
    files = versions.workspace.tracked(versions.objects)
    new = set(files.values()) - set(versions.workspace.tracked(versions.objects, "dataset-0002").values())
    [photo] = [path for path, md5 in files.items() if md5 in new and path.startswith("data/images/")]
    damage(versions.objects.path(files[photo]), silently=silently)

    push_and_audit(versions.workspace, versions.bucket, everything=False)

    for data in (versions.objects.path(files[photo]).read_bytes(), (versions.workspace.path / photo).read_bytes()):
        assert sha256_hex(data) == Path(photo).name
    assert sha256_hex(versions.remote(files[photo]) or b"") == Path(photo).name


def test_a_new_photo_that_is_damaged_everywhere_is_named_and_nothing_is_pushed(versions: Versions) -> None:
    versions.write(dict.fromkeys(range(10), COAT))
    versions.add()
    files = versions.workspace.tracked(versions.objects)
    new = set(files.values()) - set(versions.workspace.tracked(versions.objects, "dataset-0002").values())
    [photo] = [path for path, md5 in files.items() if md5 in new and path.startswith("data/images/")]
    damage(versions.objects.path(files[photo]))
    gcs.put(versions.bucket, versions.archive, "photos/9.png", b"another picture", "image/png")
    before = {ref.name for ref in gcs.list_objects(versions.bucket, versions.workspace.settings.dvc_bucket)}

    with pytest.raises(DatasetError, match=rf"1 files .*{photo} \(the photo gs://.*/photos/9.png\).*Upload the same"):
        push_and_audit(versions.workspace, versions.bucket, everything=False)

    assert {ref.name for ref in gcs.list_objects(versions.bucket, versions.workspace.settings.dvc_bucket)} == before


def test_a_photo_that_was_damaged_before_dvc_hashed_it_is_not_published(versions: Versions) -> None:
    versions.write(dict.fromkeys(range(10), COAT))
    known = {path.name for path in versions.dataset.path(IMAGES).iterdir()}
    versions.add()
    photo = versions.dataset.image_path(sorted(known)[0])
    good = photo.read_bytes()
    photo.unlink()
    photo.write_bytes(good[:-9] + b"differing")
    versions.add()

    with pytest.raises(DatasetError, match=r"1 photos were damaged in .* 1 were read again .* `maskloop sync` again"):
        push_and_audit(versions.workspace, versions.bucket, everything=False)
    assert photo.read_bytes() == good
    versions.add()
    push_and_audit(versions.workspace, versions.bucket, everything=False)


def test_what_has_no_good_copy_is_set_aside_before_everything_is_read_again(versions: Versions) -> None:
    files = versions.workspace.tracked(versions.objects)
    shard = next(path for path in files if path.startswith("data/annotations/"))
    damage(versions.objects.path(files[shard]))
    versions.delete_remote(files[shard])

    assert restore_workspace(versions.workspace, versions.bucket)

    assert not (versions.workspace.path / shard).exists()
    assert not versions.objects.path(files[shard]).exists()
    assert not restore_workspace(versions.workspace, versions.bucket), "once"


def test_a_damaged_object_of_the_remote_is_overwritten_and_good_ones_are_not_touched(versions: Versions) -> None:
    files = versions.workspace.tracked(versions.objects)
    photo = next(path for path in files if path.startswith("data/images/"))
    good = versions.remote(files[photo])
    bucket = versions.workspace.settings.dvc_bucket
    before = {ref.name: ref.generation for ref in gcs.list_objects(versions.bucket, bucket)}
    versions.put_remote(files[photo], b"damaged")

    push_and_audit(versions.workspace, versions.bucket)

    assert versions.remote(files[photo]) == good
    after = {ref.name: ref.generation for ref in gcs.list_objects(versions.bucket, bucket)}
    assert {name[-30:] for name in after if after[name] != before.get(name)} == {files[photo][2:]}


def test_a_flipped_bit_of_a_training_clone_is_not_trusted(versions: Versions, tmp_path: Path) -> None:
    clone = Workspace(tmp_path / "clone", versions.workspace.settings)
    clone.ensure(versions.workspace.path)
    for _ in range(2):
        clone.check_out("dataset-0002", versions.workspace.path, ANNOTATIONS, IMAGES, MASKS, MANIFEST)
        assert contents(Dataset(clone.path)) == contents(versions.dataset)
        flip_some(versions.cached(), 20, seed=3)
        versions.objects.require(versions.workspace.tracked(versions.objects), "it")
        versions.objects.relink(versions.workspace.path)


KILLED = """
import sys
from pathlib import Path
from pipelines.dataset.objects import Objects
from pipelines.dataset.verify import verify
from pipelines.dataset.remote import restore_workspace
from pipelines.dataset.workspace import Workspace
from pipelines.gcs.client import connect
from pipelines.settings import Settings
settings = Settings.model_validate_json(sys.argv[1])
workspace = Workspace(settings.workspace_path, settings)
client = connect(settings)
print("ready", flush=True)
with workspace.locked():
    restore_workspace(workspace, client)
verify(workspace, Objects(settings, client), workspace.dataset_tags())
"""


def test_killed_in_the_middle_of_repairs_nothing_is_lost(versions: Versions) -> None:
    good = {tag: checked_out(versions, tag) for tag in ("dataset-0001", "dataset-0002")}
    choices = random.Random(4)
    for seed in range(8):
        flip_some(versions.cached(), 20, seed=seed)
        command = [sys.executable, "-c", KILLED, versions.workspace.settings.model_dump_json()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(choices.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
        assert versions.damaged_on_remote() == []

    with versions.workspace.locked():
        restore_workspace(versions.workspace, versions.bucket)
    assert verify(versions.workspace, versions.objects, list(good)).unrepaired == 0
    assert contents(versions.dataset) == good["dataset-0002"]
    assert {tag: checked_out(versions, tag) for tag in good} == good
    assert versions.damaged_in_cache() == []


def test_a_remote_that_is_down_is_said_within_a_minute(versions: Versions, free_port: int) -> None:
    flip_some(versions.cached(), 60, seed=5)
    settings = versions.workspace.settings.model_copy(update={"storage_port": free_port})
    objects = Objects(settings)  # the client library reads the address when it is made
    begin = time.monotonic()
    with pytest.raises((DatasetError, StorageError), match=r"cannot reach the bucket server|no good copy"):
        objects.require({str(path): name_of(path) for path in versions.cached()}, "dataset-0002")
    assert time.monotonic() - begin < 60
