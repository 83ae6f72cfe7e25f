"""The workspace: a clone that follows the project's commits, has one writer, and is never left half merged."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.dataset.workspace import BRANCH, Workspace
from pipelines.errors import ConfigurationError, DatasetError
from pipelines.settings import Settings

Commit = Callable[..., str]


@pytest.fixture
def workspace_with_a_dataset(workspace: Workspace) -> Workspace:
    """A workspace that is one dataset commit ahead of the project."""
    commit_here(workspace, "dvc.lock", "schema: '2.0'\n")
    workspace.git("tag", "--annotate", "dataset-0001", "-m", "+3 photos")
    return workspace


def read(workspace: Workspace, name: str) -> str:
    return (workspace.path / name).read_text(encoding="utf-8")


def commit_here(workspace: Workspace, name: str, text: str) -> None:
    (workspace.path / name).write_text(text, encoding="utf-8")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "-m", f"Change {name}")


class TestEnsure:
    def test_a_clone_on_its_own_branch_with_dvc_pointed_at_the_bucket(
        self, workspace: Workspace, settings: Settings
    ) -> None:
        assert workspace.git("branch", "--show-current") == BRANCH
        assert workspace.git("status", "--porcelain") == ""
        config = read(workspace, ".dvc/config.local")
        assert f"url = gs://{settings.dvc_bucket}/dvc\n    endpointurl = {settings.storage_endpoint}" in config
        assert f"dir = {settings.var / 'dvc-cache'}" in config

    def test_a_second_time_changes_nothing(self, workspace_with_a_dataset: Workspace, project: Path) -> None:
        before = workspace_with_a_dataset.git("rev-parse", "HEAD")
        workspace_with_a_dataset.ensure(project)
        assert workspace_with_a_dataset.git("rev-parse", "HEAD") == before

    def test_another_bucket_is_followed(self, workspace: Workspace, project: Path, settings: Settings) -> None:
        moved = settings.model_copy(update={"dvc_bucket": "elsewhere", "storage_emulator": False})
        Workspace(workspace.path, moved).ensure(project)
        assert "url = gs://elsewhere/dvc\n" in read(workspace, ".dvc/config.local")
        assert "endpointurl" not in read(workspace, ".dvc/config.local")

    def test_a_folder_without_git_is_refused_and_leaves_nothing(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        with pytest.raises(ConfigurationError, match=r"plain is no git repository with a commit, .*git init"):
            Workspace(settings.workspace_path, settings).ensure(tmp_path / "plain")
        assert not settings.workspace_path.exists()

    def test_a_project_without_a_commit_is_refused(self, settings: Settings, tmp_path: Path) -> None:
        subprocess.run(["git", "init", "--quiet", tmp_path / "new"], check=True)
        with pytest.raises(ConfigurationError, match="no git repository with a commit"):
            Workspace(settings.workspace_path, settings).ensure(tmp_path / "new")
        assert not settings.workspace_path.exists()

    def test_a_checkout_of_a_commit_will_do(self, settings: Settings, project: Path) -> None:
        subprocess.run(["git", "checkout", "--quiet", "--detach"], cwd=project, check=True)
        workspace = Workspace(settings.workspace_path, settings)
        workspace.ensure(project)
        assert workspace.git("branch", "--show-current") == BRANCH


class TestMergeSource:
    def test_nothing_new_moves_nothing(self, workspace: Workspace, project: Path) -> None:
        assert not workspace.merge_source(project)

    def test_commits_are_merged_beside_datasets(
        self, workspace_with_a_dataset: Workspace, project: Path, commit: Commit
    ) -> None:
        newest = commit("params.yaml", "train: {epochs: 3}\n")
        assert workspace_with_a_dataset.merge_source(project)
        assert read(workspace_with_a_dataset, "params.yaml") == "train: {epochs: 3}\n"
        assert read(workspace_with_a_dataset, "dvc.lock") == "schema: '2.0'\n"
        assert workspace_with_a_dataset.git("merge-base", "HEAD", newest) == newest

    def test_uncommitted_changes_do_not_count(self, workspace: Workspace, project: Path) -> None:
        (project / "params.yaml").write_text("unsaved: true\n", encoding="utf-8")
        assert not workspace.merge_source(project)

    def test_elsewhere_nothing_is_merged(self, workspace: Workspace, project: Path, commit: Commit) -> None:
        workspace.git("checkout", "--quiet", "--detach")
        commit("params.yaml", "train: {epochs: 3}\n")
        assert not workspace.merge_source(project)
        assert not workspace.is_on_branch()
        workspace.checkout_branch()
        assert workspace.merge_source(project)

    def test_a_conflict_is_named_and_leaves_the_workspace_as_it_was(
        self, workspace: Workspace, project: Path, commit: Commit
    ) -> None:
        commit_here(workspace, "params.yaml", "train: {epochs: 5}\n")
        before = workspace.git("rev-parse", "HEAD")
        commit("params.yaml", "train: {epochs: 3}\n")
        with pytest.raises(DatasetError, match=r"(?s)cannot be merged into .*params\.yaml.*merge them there by hand"):
            workspace.merge_source(project)
        assert workspace.git("rev-parse", "HEAD") == before
        assert workspace.git("status", "--porcelain") == ""
        assert read(workspace, "params.yaml") == "train: {epochs: 5}\n"

    def test_what_an_unfinished_sync_left_stays(self, workspace: Workspace, project: Path, commit: Commit) -> None:
        (workspace.path / "dvc.lock").write_text("half: done\n", encoding="utf-8")
        commit("params.yaml", "train: {epochs: 3}\n")
        assert workspace.merge_source(project)
        assert read(workspace, "dvc.lock") == "half: done\n"


class TestCheckoutBranch:
    def test_on_its_branch_nothing_happens(self, workspace_with_a_dataset: Workspace) -> None:
        (workspace_with_a_dataset.path / "dvc.lock").write_text("half: done\n", encoding="utf-8")
        assert workspace_with_a_dataset.is_on_branch()
        assert read(workspace_with_a_dataset, "dvc.lock") == "half: done\n"

    def test_from_an_older_dataset_it_returns_and_keeps_what_a_person_changed(
        self, workspace_with_a_dataset: Workspace, caplog: pytest.LogCaptureFixture
    ) -> None:
        workspace = workspace_with_a_dataset
        commit_here(workspace, "params.yaml", "train: {epochs: 5}\n")
        workspace.git("checkout", "--quiet", "dataset-0001")
        (workspace.path / "dvc.lock").write_text("tried: by hand\n", encoding="utf-8")
        assert not workspace.is_on_branch()
        workspace.checkout_branch()
        assert workspace.git("branch", "--show-current") == BRANCH
        assert (read(workspace, "params.yaml"), read(workspace, "dvc.lock")) == (
            "train: {epochs: 5}\n",
            "schema: '2.0'\n",
        )
        assert "git stash pop" in caplog.text
        assert "tried: by hand" in workspace.git("stash", "show", "--patch")


class TestTags:
    def test_tags_come_oldest_first_even_beyond_four_digits(self, workspace: Workspace) -> None:
        for number in (2, 10_000, 9_999, 1):
            workspace.git("tag", f"dataset-{number:04d}")
        workspace.git("tag", "v1.0")
        assert workspace.dataset_tags() == ["dataset-0001", "dataset-0002", "dataset-9999", "dataset-10000"]

    def test_a_file_is_read_as_it_was_at_a_tag(self, workspace_with_a_dataset: Workspace) -> None:
        commit_here(workspace_with_a_dataset, "dvc.lock", "newer\n")
        assert workspace_with_a_dataset.show("dataset-0001", "dvc.lock") == "schema: '2.0'"
        assert read(workspace_with_a_dataset, "dvc.lock") == "newer\n"

    def test_a_file_that_is_not_there_is_empty(self, workspace: Workspace) -> None:
        assert workspace.show("HEAD", "nothing") == ""


class TestLock:
    PROGRAM = (
        "import sys; from pathlib import Path; from pipelines.dataset.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1]), None).locked(): print('in', flush=True); sys.stdin.read()"
    )

    def test_a_second_process_waits_until_the_first_is_done(self, tmp_path: Path, settings: Settings) -> None:
        workspace = Workspace(tmp_path / "workspace", settings)
        with self.other_process(workspace) as other:
            with workspace.locked():
                other.stdin.close()
                with pytest.raises(subprocess.TimeoutExpired):
                    other.wait(0.7)
            assert other.stdout.read() == "in\n"

    def test_a_killed_process_leaves_no_lock(self, tmp_path: Path, settings: Settings) -> None:
        workspace = Workspace(tmp_path / "workspace", settings)
        with self.other_process(workspace) as other:
            assert other.stdout.readline() == "in\n"
            other.kill()
            with workspace.locked():
                pass

    def test_after_a_kill_what_was_half_written_is_restored(self, workspace_with_a_dataset: Workspace) -> None:
        workspace = workspace_with_a_dataset
        with self.other_process(workspace) as other:
            assert other.stdout.readline() == "in\n"
            for name in ("dvc.lock", "data/images.dvc", ".dvc/tmp/rwlock", ".git/index.lock"):
                (workspace.path / name).parent.mkdir(exist_ok=True)
                (workspace.path / name).write_text("", encoding="utf-8")
            (workspace.path / "params.yaml").write_text("train: {epo", encoding="utf-8")
            other.kill()
        with workspace.locked():
            assert workspace.git("status", "--porcelain") == ""
            assert read(workspace, "dvc.lock") == "schema: '2.0'\n"
            assert not (workspace.path / "data" / "images.dvc").exists()
            assert not (workspace.path / ".dvc" / "tmp" / "rwlock").exists()

    def test_what_a_holder_that_was_done_left_stays(self, workspace_with_a_dataset: Workspace) -> None:
        workspace = workspace_with_a_dataset
        with workspace.locked():
            (workspace.path / "dvc.lock").write_text("half: done\n", encoding="utf-8")
        with workspace.locked():
            assert read(workspace, "dvc.lock") == "half: done\n"

    def other_process(self, workspace: Workspace) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", self.PROGRAM, str(workspace.path)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_failure_carries_the_message_of_git(workspace: Workspace) -> None:
    with pytest.raises(DatasetError, match=r"`checkout nowhere` failed in .*workspace: error: pathspec 'nowhere'"):
        workspace.git("checkout", "nowhere")


def test_a_failure_carries_the_message_of_dvc(workspace: Workspace) -> None:
    with pytest.raises(DatasetError, match=r"dvc checkout nowhere` failed in .*nowhere"):
        workspace.dvc("checkout", "nowhere")


def test_what_runs_in_a_terminal_can_draw_there_and_waits_for_nobodys_answer(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    program = (
        "import pathlib; from pipelines.dataset.commands import run;"
        "command = 'test -t 1 && echo it is a terminal; read answer || echo no answer';"
        f"run(['sh', '-c', command], pathlib.Path({str(tmp_path)!r}), show=True)"
    )

    subprocess.run([sys.executable, "-c", program], stdin=terminal, stdout=terminal, check=True, timeout=60)
    os.close(terminal)

    said = os.read(master, 4096).decode()
    os.close(master)
    assert said.split("\r\n") == ["it is a terminal", "no answer", ""]
