"""Two machines, each with a workspace of its own, and one bucket; with and without one git remote."""

import json
import subprocess
from pathlib import Path

import pytest
from google.cloud.storage import Client
from pydantic import SecretStr

from pipelines.dataset.history import NEWEST, announce, follow_git_remote, push_git, require_newest
from pipelines.dataset.workspace import Workspace
from pipelines.errors import DatasetError
from pipelines.gcs import client as gcs
from pipelines.settings import Settings
from tests.unit.dataset.conftest import git


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """An empty git repository that both machines reach."""
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "remote.git"], check=True)
    return tmp_path / "remote.git"


@pytest.fixture
def machines(project: Path, settings: Settings, bucket_client: Client, tmp_path: Path) -> list[Workspace]:
    """Two workspaces of one project with state folders of their own."""
    gcs.ensure_bucket(bucket_client, settings.dvc_bucket)
    found = []
    for name in ("one", "two"):
        own = settings.model_copy(update={"var": tmp_path / name})
        found.append(Workspace(own.workspace_path, own))
        found[-1].ensure(project)
    return found


@pytest.fixture
def joined(machines: list[Workspace], remote: Path) -> list[Workspace]:
    """The two machines with one git remote."""
    for machine in machines:
        machine.settings = machine.settings.model_copy(update={"git_remote": SecretStr(str(remote))})
    return machines


def commit(workspace: Workspace, text: str) -> None:
    (workspace.path / "data" / "version.json").write_text(text, encoding="utf-8")
    workspace.git("add", "--force", "data/version.json")
    workspace.git("commit", "--quiet", "-m", text)


def publish(workspace: Workspace, bucket: Client, tag: str, text: str = "") -> None:
    """Do what a sync does at its end."""
    commit(workspace, text or tag)
    push_git(workspace)
    announce(workspace, bucket, tag)
    workspace.git("tag", "--annotate", tag, "-m", tag)
    push_git(workspace)


def named(workspace: Workspace, bucket: Client) -> tuple[str, str]:
    ref = gcs.stat(bucket, workspace.settings.dvc_bucket, NEWEST)
    assert ref is not None
    fields = json.loads(gcs.read(bucket, ref))
    return fields["version"], fields["commit"]


class TestWithoutAGitRemote:
    def test_before_a_version_anybody_may_publish(self, machines: list[Workspace], bucket_client: Client) -> None:
        for machine in machines:
            require_newest(machine, bucket_client)

    def test_who_published_goes_on_and_who_does_not_have_it_is_refused(
        self, machines: list[Workspace], bucket_client: Client
    ) -> None:
        one, two = machines
        publish(one, bucket_client, "dataset-0001")
        require_newest(one, bucket_client)
        with pytest.raises(DatasetError, match=r"dataset-0001 \(commit \w+\) was published by another machine.*none"):
            require_newest(two, bucket_client)
        with pytest.raises(DatasetError, match="MASKLOOP_GIT_REMOTE"):
            publish(two, bucket_client, "dataset-0001", "of two")
        assert two.dataset_tags() == []
        publish(one, bucket_client, "dataset-0002")
        assert named(one, bucket_client) == ("dataset-0002", one.git("rev-parse", "HEAD"))

    def test_of_two_at_once_one_succeeds(
        self, machines: list[Workspace], bucket_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = machines
        commit(one, "of one")
        commit(two, "of two")
        written = gcs.write

        def after_the_other(*arguments: object, **options: object) -> object:
            monkeypatch.setattr("pipelines.dataset.history.write", written)
            announce(one, bucket_client, "dataset-0001")
            return written(*arguments, **options)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr("pipelines.dataset.history.write", after_the_other)
        with pytest.raises(DatasetError, match="at the same moment"):
            announce(two, bucket_client, "dataset-0001")
        assert named(one, bucket_client) == ("dataset-0001", one.git("rev-parse", "HEAD"))

    def test_after_a_kill_before_the_tag_the_same_machine_goes_on(
        self, machines: list[Workspace], bucket_client: Client
    ) -> None:
        commit(machines[0], "first")
        announce(machines[0], bucket_client, "dataset-0001")
        require_newest(machines[0], bucket_client)
        publish(machines[0], bucket_client, "dataset-0001")
        assert machines[0].dataset_tags() == ["dataset-0001"]

    def test_announcing_it_again_writes_nothing(self, machines: list[Workspace], bucket_client: Client) -> None:
        one = machines[0]
        publish(one, bucket_client, "dataset-0001")
        before = gcs.stat(bucket_client, one.settings.dvc_bucket, NEWEST)
        announce(one, bucket_client, "dataset-0001")
        assert gcs.stat(bucket_client, one.settings.dvc_bucket, NEWEST) == before

    @pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff"])
    def test_a_damaged_object_is_named(self, machines: list[Workspace], bucket_client: Client, data: bytes) -> None:
        gcs.put(bucket_client, machines[0].settings.dvc_bucket, NEWEST, data, "application/json")
        with pytest.raises(DatasetError, match=rf"gs://.*/{NEWEST} does not name a version"):
            require_newest(machines[0], bucket_client)

    def test_once_the_object_is_deleted_another_machine_goes_on(
        self, machines: list[Workspace], bucket_client: Client
    ) -> None:
        one, two = machines
        publish(one, bucket_client, "dataset-0001")
        ref = gcs.stat(bucket_client, two.settings.dvc_bucket, NEWEST)
        assert ref is not None
        gcs.delete(bucket_client, ref)
        publish(two, bucket_client, "dataset-0001", "of two")
        with pytest.raises(DatasetError, match="another machine"):
            require_newest(one, bucket_client)


class TestWithOneGitRemote:
    def test_versions_of_one_machine_are_taken_over_by_the_other(
        self, joined: list[Workspace], bucket_client: Client, tmp_path: Path
    ) -> None:
        one, two = joined
        assert not follow_git_remote(one), "nothing is there yet"
        publish(one, bucket_client, "dataset-0001")
        assert follow_git_remote(two)
        require_newest(two, bucket_client)
        assert two.dataset_tags() == ["dataset-0001"]
        publish(two, bucket_client, "dataset-0002")
        assert follow_git_remote(one)
        assert not follow_git_remote(one)
        require_newest(one, bucket_client)
        assert one.dataset_tags() == ["dataset-0001", "dataset-0002"]
        assert one.git("rev-parse", "HEAD") == two.git("rev-parse", "HEAD")
        assert one.is_on_branch()

    def test_a_version_that_was_not_pushed_gives_way_to_one_that_was(
        self, joined: list[Workspace], bucket_client: Client
    ) -> None:
        one, two = joined
        publish(one, bucket_client, "dataset-0001")
        commit(two, "of two")
        with pytest.raises(DatasetError, match="push"):
            push_git(two)
        (two.path / "data" / "version.json").write_text("half", encoding="utf-8")
        assert follow_git_remote(two)
        assert (two.path / "data" / "version.json").read_text(encoding="utf-8") == "dataset-0001"
        publish(two, bucket_client, "dataset-0002")

    def test_own_commits_beside_the_remote_are_no_reason_to_follow(
        self, joined: list[Workspace], bucket_client: Client
    ) -> None:
        publish(joined[0], bucket_client, "dataset-0001")
        commit(joined[0], "not pushed yet")
        head = joined[0].git("rev-parse", "HEAD")
        assert not follow_git_remote(joined[0])
        assert joined[0].git("rev-parse", "HEAD") == head

    def test_a_version_that_the_remote_never_had_stops_it(
        self, machines: list[Workspace], remote: Path, bucket_client: Client
    ) -> None:
        one, two = machines
        commit(two, "published before there was a remote")
        two.git("tag", "--annotate", "dataset-0001", "-m", "of two")
        for machine in machines:
            machine.settings = machine.settings.model_copy(update={"git_remote": SecretStr(str(remote))})
        publish(one, bucket_client, "dataset-0001")
        head = two.git("rev-parse", "HEAD")
        with pytest.raises(DatasetError, match=r"dataset-0001 of .* is not in the history of the git remote"):
            follow_git_remote(two)
        assert (two.git("rev-parse", "HEAD"), two.dataset_tags()) == (head, ["dataset-0001"])

    def test_versions_that_were_removed_or_rewritten_elsewhere_are_here_as_well(
        self, joined: list[Workspace], remote: Path, bucket_client: Client
    ) -> None:
        one, two = joined
        for tag in ("dataset-0001", "dataset-0002", "dataset-0003"):
            publish(one, bucket_client, tag)
        follow_git_remote(two)
        one.git("push", "--quiet", str(remote), ":refs/tags/dataset-0001")
        one.git("tag", "--delete", "dataset-0001")
        one.git("checkout", "--quiet", "--detach", "dataset-0002")
        commit(one, "without a row")
        one.git("tag", "--force", "--annotate", "dataset-0002", "-m", "dataset-0002")
        one.git("push", "--quiet", str(remote), "+refs/tags/dataset-0002")
        one.git("checkout", "--quiet", "datasets")
        publish(one, bucket_client, "dataset-0004")
        assert follow_git_remote(two)
        assert two.dataset_tags() == ["dataset-0002", "dataset-0003", "dataset-0004"]
        assert two.show("dataset-0002", "data/version.json") == "without a row"

    def test_a_version_that_was_rewritten_here_stays_so(self, joined: list[Workspace], bucket_client: Client) -> None:
        one, two = joined
        publish(one, bucket_client, "dataset-0001")
        follow_git_remote(two)
        two.git("checkout", "--quiet", "--detach", "dataset-0001")
        commit(two, "without a row")
        two.git("tag", "--force", "--annotate", "dataset-0001", "-m", "dataset-0001")
        two.git("checkout", "--quiet", "datasets")
        publish(one, bucket_client, "dataset-0002")
        assert follow_git_remote(two)
        assert two.show("dataset-0001", "data/version.json") == "without a row"
        assert two.dataset_tags() == ["dataset-0001", "dataset-0002"]


def test_a_token_is_in_no_message(machines: list[Workspace]) -> None:
    address = "https://ada:hunter2@127.0.0.1:1/datasets.git"
    machines[0].settings = machines[0].settings.model_copy(update={"git_remote": SecretStr(address)})
    with pytest.raises(DatasetError) as caught:
        follow_git_remote(machines[0])
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(machines[0].settings)


def test_branches_of_other_names_are_left_alone(joined: list[Workspace], remote: Path, project: Path) -> None:
    git(project, "push", "--quiet", str(remote), "main")
    assert not follow_git_remote(joined[0])
