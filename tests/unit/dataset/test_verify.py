"""`maskloop verify` and the doctor's sample: what is damaged is named and repaired, wherever a good copy is."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from google.cloud.storage import Client
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.dataset.files import IMAGES, MANIFEST
from pipelines.dataset.objects import Objects
from pipelines.dataset.remote import incomplete_versions, push_and_audit
from pipelines.dataset.verify import sample, verify
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.gcs import client as gcs
from pipelines.local_stack.doctor import Failure, _dataset_files
from pipelines.records import Annotation
from tests.unit.dataset.versions import Versions, flip

COAT = {"coat": slice(5, 20)}
TAGS = ["dataset-0001", "dataset-0002"]


@pytest.fixture
def versions(
    workspace: Workspace, bucket_client: Client, archive_bucket: str, annotate: Callable[..., Annotation]
) -> Versions:
    """Two published versions."""
    versions = Versions(workspace, bucket_client, archive_bucket, annotate)
    (workspace.path / IMAGES).mkdir(parents=True)
    for count in (3, 4):
        versions.write(dict.fromkeys(range(count), COAT))
        versions.publish(record_remote=count == 4)
    return versions


def photos_of(versions: Versions) -> list[tuple[str, str]]:
    files = versions.workspace.tracked(versions.objects, "dataset-0001")
    return sorted((path, md5) for path, md5 in files.items() if path.startswith("data/images/"))


def test_what_is_whole_and_what_is_repaired_is_said(versions: Versions) -> None:
    assert not verify(versions.workspace, versions.objects, TAGS).damages
    (in_cache, _), (on_remote, lost_there), (everywhere, lost) = photos_of(versions)
    files = versions.workspace.tracked(versions.objects, "dataset-0001")
    flip(versions.objects.path(files[in_cache]), random.Random(1), silently=True)
    versions.delete_remote(lost_there)
    flip(versions.objects.path(lost), random.Random(2), silently=False)
    versions.put_remote(lost, b"damaged")  # the photo's own bucket still has it

    verification = verify(versions.workspace, versions.objects, TAGS)

    said = {damage.path: (damage.where, damage.done, damage.problem) for damage in verification.damages}
    assert said == {
        in_cache: ("damaged in the cache", "cache restored", ""),
        on_remote: ("missing or damaged on the remote", "uploaded", ""),
        everywhere: ("damaged in the cache and missing or damaged on the remote", "cache restored, uploaded", ""),
    }
    assert {damage.versions for damage in verification.damages} == {tuple(TAGS)}
    assert all(damage.photo.startswith(f"gs://{versions.archive}/photos/") for damage in verification.damages)
    assert str(verification).endswith("3 damaged or missing, 3 of them repaired")
    assert (versions.damaged_in_cache(), versions.damaged_on_remote()) == ([], [])
    assert not verify(versions.workspace, versions.objects, TAGS, deep=True).damages
    assert not [path for path in versions.dataset.path(IMAGES).iterdir() if path.samefile(_aside(versions))]


def _aside(versions: Versions) -> Path:
    return next(versions.objects.damaged_folder.iterdir())


def test_what_has_no_good_copy_is_named_and_stops_nothing_else(versions: Versions) -> None:
    (unrepaired, md5), (other, lost_there), _ = photos_of(versions)
    flip(versions.objects.path(md5), random.Random(1), silently=True)
    versions.delete_remote(md5)
    versions.delete_remote(lost_there)
    for ref in list(gcs.list_objects(versions.bucket, versions.archive)):
        gcs.delete(versions.bucket, ref)

    verification = verify(versions.workspace, versions.objects, TAGS)

    assert [damage.path for damage in verification.damages if damage.problem] == [unrepaired]
    assert [damage.path for damage in verification.damages if not damage.problem] == [other]
    console = Console(record=True, width=160)
    console.print(verification.as_table())
    assert "not repaired: neither" in console.export_text()
    with pytest.raises(DatasetError, match="there is no dataset dataset-0009"):
        verify(versions.workspace, versions.objects, ["dataset-0009"])


def test_a_lost_list_of_a_folder_is_named(versions: Versions) -> None:
    files = versions.workspace.tracked(versions.objects, "dataset-0001")
    md5 = files[str(IMAGES)]
    versions.objects.path(md5).unlink()
    versions.delete_remote(md5)
    verification = verify(versions.workspace, versions.objects, TAGS)
    assert [(damage.path, bool(damage.problem)) for damage in verification.damages] == [(str(IMAGES), True)]


def test_a_bit_that_only_a_download_shows_is_found_deep(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = versions.workspace.tracked(versions.objects)[str(MANIFEST)]
    good = versions.remote(md5)
    versions.put_remote(md5, b"damaged")
    objects = versions.objects
    monkeypatch.setattr(objects, "missing_on_remote", lambda md5s: set())  # as if the bucket listed the right MD5
    assert not verify(versions.workspace, objects, TAGS).damages
    assert [damage.path for damage in verify(versions.workspace, objects, TAGS, deep=True).damages] == [str(MANIFEST)]
    assert versions.remote(md5) == good


def test_an_empty_cache_is_no_damage(versions: Versions) -> None:
    for path in versions.cached():
        path.unlink()
    assert not verify(versions.workspace, versions.objects, TAGS).damages


def test_the_doctors_sample_finds_damage_and_what_the_remote_lacks(versions: Versions) -> None:
    hashed, damaged, incomplete = sample(versions.workspace, versions.objects)
    assert (hashed > 10, damaged, incomplete) == (True, 0, {})
    _, md5 = photos_of(versions)[0]
    flip(versions.objects.path(md5), random.Random(1), silently=True)
    versions.delete_remote(md5)
    assert sample(versions.workspace, versions.objects, 1000)[1:] == (1, {"dataset-0001": 1, "dataset-0002": 1})


def test_after_a_move_of_the_bucket_older_versions_are_named_and_copied(
    versions: Versions, empty_bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    versions.write(dict.fromkeys(range(2, 6), COAT))
    versions.add()
    moved = Workspace(
        versions.workspace.path, versions.workspace.settings.model_copy(update={"dvc_bucket": empty_bucket})
    )
    moved.ensure(moved.path)
    objects = Objects(moved.settings, versions.bucket)

    push_and_audit(moved, versions.bucket)

    assert "dataset-0001, dataset-0002: copy them with `gcloud storage cp" in caplog.text
    assert objects.missing_on_remote(set(moved.tracked(objects).values())) == set(), "the newest is complete"
    assert set(incomplete_versions(moved, objects, TAGS)) == set(TAGS)
    assert verify(moved, objects, TAGS).unrepaired == 0
    assert incomplete_versions(moved, objects, TAGS) == {}


def test_the_commands_and_the_doctor_say_it(
    versions: Versions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = versions.workspace.settings
    monkeypatch.setattr("pipelines.cli.data.get_settings", lambda: settings)
    runner = CliRunner()
    whole = runner.invoke(app, ["verify", "--all"])
    assert (whole.exit_code, "2 versions: all whole" in whole.output) == (0, True), whole.output
    assert str(_dataset_files(settings)).endswith("the remote holds every version")

    _, md5 = photos_of(versions)[0]
    versions.delete_remote(md5)
    failure = _dataset_files(settings)
    assert isinstance(failure, Failure)
    assert "dataset-0001 (1 objects), dataset-0002 (1 objects)" in failure.what
    flip(versions.objects.path(md5), random.Random(1), silently=True)
    for ref in list(gcs.list_objects(versions.bucket, versions.archive)):
        gcs.delete(versions.bucket, ref)
    lost = runner.invoke(app, ["verify", "dataset-0001"])
    assert (lost.exit_code, "not repaired" in lost.output) == (1, True), lost.output

    page = tmp_path / "diff.html"
    shown = runner.invoke(app, ["diff", "dataset-0001", "dataset-0002", "--html", str(page)])
    assert (shown.exit_code, "1 came" in shown.output, page.exists()) == (0, True, True), shown.output
