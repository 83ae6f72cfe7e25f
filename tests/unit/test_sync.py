"""Station 3's parts on a real bucket server, git and DVC; the whole of it runs in tests/integration."""

import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from google.cloud.storage import Client
from PIL import Image

from pipelines import storage
from pipelines.dataset.files import ANNOTATIONS, IMAGES, annotation_json, image_path
from pipelines.dataset.remote import push_and_audit
from pipelines.dataset.workspace import Workspace
from pipelines.errors import StorageError
from pipelines.images import sha256_hex
from pipelines.records import Annotation, ImageRef
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.sync import _build, _differs, _mirror_bucket, _mirror_folder, _mirror_images, _publish, sync

Annotate = Callable[..., Annotation]


@pytest.fixture
def bucket(bucket_client: Client) -> str:
    name = f"archive-{uuid4().hex[:12]}"
    storage.ensure_bucket(bucket_client, name)
    return name


@pytest.fixture
def labelled(bucket_client: Client, bucket: str, annotate: Annotate) -> Annotate:
    """Put a photo of a shade into the bucket and annotate it."""

    def make(uuid: str, shade: int, rows: dict[str, slice] | None = None) -> Annotation:
        data = io.BytesIO()
        Image.fromarray(np.full((30, 20, 3), shade, np.uint8)).save(data, "PNG")
        ref = storage.put(bucket_client, bucket, f"{uuid}.png", data.getvalue(), "image/png")
        image = ImageRef(ref.uri, ref.generation, sha256_hex(data.getvalue()), 30, 20)
        return annotate(uuid, {"coat": slice(5, 20)} if rows is None else rows, image=image)

    return make


class TestMirrorFolder:
    def test_the_folder_holds_exactly_these_files(self, tmp_path: Path) -> None:
        (tmp_path / "gone.json").write_bytes(b"old")
        (tmp_path / ".half.json.part").write_bytes(b"a kill left this")
        _mirror_folder(tmp_path, {"a.json": b"1", "b.json": b"2"})
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"1", "b.json": b"2"}

    def test_equal_files_are_not_touched_and_others_replaced(self, tmp_path: Path) -> None:
        _mirror_folder(tmp_path, {"a.json": b"1", "b.json": b"2"})
        before = {path.name: path.stat() for path in tmp_path.iterdir()}
        _mirror_folder(tmp_path, {"a.json": b"1", "b.json": b"3"})
        after = {path.name: path.stat() for path in tmp_path.iterdir()}
        assert before["a.json"] == after["a.json"]
        assert before["b.json"].st_ino != after["b.json"].st_ino  # a new file: DVC's cache may be linked to the old one
        assert (tmp_path / "b.json").read_bytes() == b"3"

    def test_a_missing_folder_is_made(self, tmp_path: Path) -> None:
        _mirror_folder(tmp_path / "data" / "annotations", {})
        assert list((tmp_path / "data" / "annotations").iterdir()) == []


class TestMirrorImages:
    def test_each_photo_is_kept_by_its_content(self, bucket_client: Client, labelled: Annotate, tmp_path: Path) -> None:
        both = [labelled("a", 10), labelled("b", 20)]
        assert _mirror_images(bucket_client, tmp_path, both) == both
        for path in (tmp_path / IMAGES).iterdir():
            assert sha256_hex(path.read_bytes()) == path.name
        assert len(list((tmp_path / IMAGES).iterdir())) == 2

    def test_what_is_there_is_not_read_again(self, bucket_client: Client, labelled: Annotate, tmp_path: Path) -> None:
        one = labelled("a", 10)
        _mirror_images(bucket_client, tmp_path, [one])
        storage.delete(bucket_client, reference(one))
        assert _mirror_images(bucket_client, tmp_path, [one]) == [one]

    def test_an_annotation_whose_photo_is_gone_or_overwritten_is_left_out(
        self, bucket_client: Client, labelled: Annotate, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        gone, overwritten, good = labelled("gone", 10), labelled("overwritten", 20), labelled("good", 30)
        storage.delete(bucket_client, reference(gone))
        labelled("overwritten", 25)
        assert _mirror_images(bucket_client, tmp_path, [gone, overwritten, good]) == [good]
        assert "annotation gone is left out: " in caplog.text
        assert "annotation overwritten is left out: " in caplog.text

    def test_photos_that_nobody_labels_any_more_are_removed(
        self, bucket_client: Client, labelled: Annotate, tmp_path: Path
    ) -> None:
        one, two = labelled("a", 10), labelled("b", 20)
        _mirror_images(bucket_client, tmp_path, [one, two])
        _mirror_images(bucket_client, tmp_path, [two])
        assert [path.name for path in (tmp_path / IMAGES).iterdir()] == [two.image.sha256]

    def test_two_annotations_of_one_photo_share_its_bytes(
        self, bucket_client: Client, labelled: Annotate, tmp_path: Path
    ) -> None:
        one = labelled("a", 10)
        both = [one, replace(one, uuid="b")]
        assert _mirror_images(bucket_client, tmp_path, both) == both
        assert len(list((tmp_path / IMAGES).iterdir())) == 1

    def test_other_bytes_than_were_ingested_are_refused(
        self, bucket_client: Client, labelled: Annotate, tmp_path: Path
    ) -> None:
        one = labelled("a", 10)
        with pytest.raises(StorageError, match=r"a\.png: the bytes are not those that were ingested"):
            _mirror_images(bucket_client, tmp_path, [replace(one, image=replace(one.image, sha256="0" * 64))])
        assert not (tmp_path / image_path("0" * 64)).exists()


def reference(annotation: Annotation) -> storage.ObjectRef:
    return storage.ObjectRef(*storage.split_uri(annotation.image.uri), annotation.image.generation)


def test_the_target_bucket_holds_exactly_these_annotations(bucket_client: Client, bucket: str) -> None:
    def names() -> dict[str, str]:
        return {ref.name: ref.md5 for ref in storage.list_objects(bucket_client, bucket)}

    storage.put(bucket_client, bucket, "notes.txt", b"not ours", "text/plain")
    _mirror_bucket(bucket_client, bucket, {"a.json": b"1", "b.json": b"2"})
    first = storage.stat(bucket_client, bucket, "annotations/a.json")
    _mirror_bucket(bucket_client, bucket, {"a.json": b"1", "c.json": b"3"})
    assert names() == {
        "annotations/a.json": storage.md5_base64(b"1"),
        "annotations/c.json": storage.md5_base64(b"3"),
        "notes.txt": storage.md5_base64(b"not ours"),
    }
    assert storage.stat(bucket_client, bucket, "annotations/a.json") == first
    _mirror_bucket(bucket_client, bucket, {"a.json": b"changed"})
    assert names()["annotations/a.json"] == storage.md5_base64(b"changed")


def test_a_missing_bucket_stops_before_anything_is_made(bucket_client: Client, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, var=tmp_path / "var", target_bucket="no-such-bucket")
    with pytest.raises(StorageError, match="gs://no-such-bucket does not exist"):
        sync(bucket_client, None, settings)  # type: ignore[arg-type]  # never gets as far as asking it
    assert not settings.var.exists()


@pytest.fixture
def workspace(tmp_path: Path, bucket_server: str, bucket_client: Client) -> Workspace:
    """A workspace of the code as it is in this folder, committed or not, with a git remote and a dataset bucket."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "pipelines", project / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvc/config", ".dvc/.gitignore", "data/.gitignore", "dvc.yaml", "params.yaml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, project / name)
    for command in ("init --quiet", "add --all", "-c user.name=Ada -c user.email=ada@x.org commit --quiet -m Start"):
        subprocess.run(["git", *command.split()], cwd=project, check=True)
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "remote.git"], check=True)
    settings = Settings(
        _env_file=None, var=tmp_path / "var", storage_emulator=True, host="127.0.0.1",
        storage_port=int(bucket_server.rpartition(":")[2]), dvc_bucket=f"datasets-{uuid4().hex[:12]}",
        git_remote=str(tmp_path / "remote.git"),
    )  # fmt: skip
    storage.ensure_bucket(bucket_client, settings.dvc_bucket)
    workspace = Workspace(settings.workspace_path, settings)
    workspace.ensure(project)
    return workspace


def test_a_version_is_built_pushed_and_published_once(
    workspace: Workspace, bucket_client: Client, labelled: Annotate
) -> None:
    kept = [labelled("a", 10), labelled("b", 20, {"coat": slice(5, 9), "dress": slice(9, 30)})]
    assert _mirror_images(bucket_client, workspace.path, kept) == kept
    _mirror_folder(workspace.path / ANNOTATIONS, {f"{one.uuid}.json": annotation_json(one) for one in kept})
    _build(workspace)
    assert _differs(workspace)
    assert push_and_audit(workspace, bucket_client) == 11  # 2 annotations, 2 photos, 2 masks, 3 folders, 2 tables

    version = _publish(workspace, len(kept))

    assert (version.tag, version.photos, version.annotations) == ("dataset-0001", 2, 2)
    assert version.summary == "+2 photos; coat 0→2, dress 0→1"
    assert version.revision == workspace.git("rev-parse", "dataset-0001^{commit}")
    assert workspace.git("log", "-1", "--format=%s") == f"dataset-0001: {version.summary}"
    assert workspace.git("status", "--porcelain") == ""
    published = workspace.git("ls-remote", workspace.settings.git_remote)
    assert {line.split("\t")[1] for line in published.splitlines()} >= {"refs/heads/datasets", "refs/tags/dataset-0001"}
    assert not _differs(workspace)

    again = _publish(workspace, len(kept))  # as after a kill between commit and tag
    assert (again.tag, again.summary, again.revision) == ("dataset-0002", "+0 photos", version.revision)
