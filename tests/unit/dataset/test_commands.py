"""How the failure of a program becomes an error: of which class decides whether it is tried again."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from google.cloud.storage import Client

from pipelines import errors
from pipelines.dataset.commands import run, run_stages
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.mirror import SyncState, reconcile
from pipelines.dataset.pipeline import build_dataset, lay_out_version_before
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ChecksError, ConfigurationError, DataError, DatasetError, MaskloopError, TrainingError
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.records import Annotation
from pipelines.settings import PROJECT_ROOT

Annotate = Callable[..., Annotation]
Fill = Callable[..., Workspace]
Build = Callable[[Workspace], None]
STAGE = """
import os, signal, sys
from pipelines import errors
from pipelines.log import run_stage
def main():
    print("at work", flush=True)
    {body}
run_stage("bake", main)
"""


def fail(tmp_path: Path, body: str, *, show: bool = False) -> MaskloopError:
    (tmp_path / "stage.py").write_text(STAGE.format(body=body), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    with pytest.raises(MaskloopError) as caught:
        run_stages([sys.executable, "stage.py"], tmp_path, environment, show=show)
    return caught.value


@pytest.mark.parametrize(
    "kind", ["ChecksError", "TrainingError", "ConfigurationError", "ContractError", "ServiceError", "DatasetError"]
)
def test_what_a_stage_fails_with_is_raised_as_the_same_error(tmp_path: Path, kind: str) -> None:
    error = fail(tmp_path, f"raise errors.{kind}('too hot; open the window')")

    assert type(error) is getattr(errors, kind)
    assert str(error) == f"bake: too hot; open the window (`stage.py` in {tmp_path})"


def test_it_is_raised_while_the_output_is_shown_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert type(fail(tmp_path, "raise errors.ChecksError('too hot')", show=True)) is ChecksError
    assert capsys.readouterr().out == "at work\nbake: too hot\n"


def test_an_unusable_photo_is_unusable_data(tmp_path: Path) -> None:
    error = fail(tmp_path, "raise errors.ImageError('no-jpeg', 'no photo')")

    assert type(error) is DataError
    assert "bake: no photo" in str(error)


def test_what_nobody_expected_carries_the_message_of_the_stage(tmp_path: Path) -> None:
    error = fail(tmp_path, "raise ValueError('eggs')")

    assert type(error) is DatasetError
    assert "ValueError: eggs" in str(error)
    assert "killed" not in str(error)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_kill_is_named_first(tmp_path: Path, name: str) -> None:
    error = fail(tmp_path, f"os.kill(os.getpid(), signal.{name})")

    assert type(error) is DatasetError
    assert re.match(rf"`stage\.py` failed in .*: it was killed \({name}\), which often means", str(error))


@pytest.mark.parametrize("left", ["", "{", "[]", '{"class": "ChecksError"}'])
def test_what_was_left_half_written_is_as_good_as_nothing(tmp_path: Path, left: str) -> None:
    error = fail(tmp_path, f"open(os.environ['MASKLOOP_STAGE_ERROR'], 'w').write({left!r}); sys.exit('too hot')")

    assert type(error) is DatasetError
    assert "`stage.py` failed in" in str(error)


@pytest.mark.parametrize("kind", ["OvenError", "annotations", "MaskloopErrors"])
def test_an_error_of_another_version_of_the_code_becomes_a_dataset_error(tmp_path: Path, kind: str) -> None:
    told = f'{{"class": "{kind}", "message": "bake: too hot"}}'
    error = fail(tmp_path, f"open(os.environ['MASKLOOP_STAGE_ERROR'], 'w').write({told!r}); sys.exit(1)")

    assert type(error) is DatasetError
    assert str(error).startswith("bake: too hot (")


def test_a_usage_error_of_git_is_no_kill(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        run(["git", "init", "--no-such-option"], tmp_path)
    assert "killed" not in str(caught.value)


def test_a_program_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-program is not installed"):
        run(["no-such-program"], tmp_path)


class TestThroughDvc:
    @pytest.fixture
    def build(self, bucket_client: Client, archive_bucket: str) -> Callable[[Workspace], None]:
        """Build a workspace's dataset; the page of its checks goes to a bucket."""

        def run(workspace: Workspace) -> None:
            settings = workspace.settings.model_copy(update={"target_bucket": archive_bucket})
            build_dataset(bucket_client, settings, "split")

        return run

    @pytest.fixture
    def fill(self, project_workspace: Workspace, bucket_client, annotated_photo: Annotate) -> Callable[..., Workspace]:
        """Lay out annotations of so many photos, each drawn from nothing and in a collection of its own."""

        def make(count: int, rows: dict[str, slice] | None = None) -> Workspace:
            drawn = tuple(
                annotated_photo(
                    f"photo-{n}", 9 * n, rows, task_id=n, prediction_version="", metadata={"collection": f"Show {n}"}
                )
                for n in range(1, count + 1)
            )
            changes = Changes(drawn, frozenset(), frozenset(), TaskCursor(frozenset(range(1, count + 1)), None))
            reconcile(bucket_client, Dataset(project_workspace.path), SyncState("p"), changes)
            lay_out_version_before(project_workspace)
            return project_workspace

        return make

    def test_checks_that_stop_a_dataset_are_told_from_what_may_pass(
        self, fill: Callable[..., Workspace], build: Callable[[Workspace], None]
    ) -> None:
        workspace = fill(2, {})
        with pytest.raises(ChecksError, match=r"^check: the dataset is not published: more than 20% .* no garment"):
            build(workspace)

    def test_a_network_that_cannot_be_built_ends_a_training_for_good(
        self, fill: Callable[..., Workspace], build: Callable[[Workspace], None]
    ) -> None:
        workspace = fill(12)
        params = workspace.path / "params.yaml"
        document = yaml.safe_load(params.read_text(encoding="utf-8"))
        document["train"].update(architecture="Corset", encoder_weights="none")
        params.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        (workspace.path / "data" / "start").mkdir(exist_ok=True)
        build(workspace)
        with pytest.raises(TrainingError, match=r"^train: .*no architecture 'Corset'.*docs/params"):
            workspace.dvc("repro", "evaluate", show=True)

    def test_a_stage_that_was_killed_is_told_as_such(
        self, fill: Callable[..., Workspace], build: Callable[[Workspace], None]
    ) -> None:
        workspace = fill(1)
        pipeline = workspace.path / "dvc.yaml"
        text = pipeline.read_text(encoding="utf-8")
        pipeline.write_text(text.replace("cmd: python -m pipelines.dataset.compile", "cmd: kill -9 $$"))
        with pytest.raises(DatasetError, match=r"failed in .*: it was killed \(SIGKILL\)") as caught:
            build(workspace)
        assert type(caught.value) is DatasetError
