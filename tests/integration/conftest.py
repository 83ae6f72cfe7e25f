"""Archives of their own in the running stack, for tests that must not disturb each other."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from google.cloud.storage import Client

from pipelines.dataset.workspace import Workspace
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import LabelStudioClient, connect
from pipelines.labelstudio.interface import labeling_interface
from pipelines.params import load_params
from pipelines.records import CATALOG_COLUMNS
from pipelines.settings import Settings


@dataclass(frozen=True)
class Archive:
    """An archive of its own with a Label Studio project of its own."""

    settings: Settings
    bucket: Client
    labels: LabelStudioClient
    project: int

    def upload(self, name: str, data: bytes) -> None:
        gcs.put(self.bucket, self.settings.source_bucket, f"photos/{name}", data, "image/png")


MakeArchive = Callable[..., Archive]


@pytest.fixture(scope="session")
def make_archive(stack, tmp_path_factory) -> MakeArchive:
    """Make an archive by name: buckets with a catalogue of 300 rows, a workspace and a Label Studio project."""
    return lambda name: _make_archive(stack.settings, tmp_path_factory.mktemp(name), name)


@pytest.fixture(scope="session")
def make_workspace() -> Callable[[Settings, str], Workspace]:
    """Make a workspace whose project has this title."""
    return _make_workspace


def _make_archive(stack_settings: Settings, folder: Path, name: str) -> Archive:
    settings = stack_settings.model_copy(
        update={
            "var": folder / "var", "source_bucket": f"{name}-photos", "target_bucket": f"{name}-labels",
            "dvc_bucket": f"{name}-data",
        }
    )  # fmt: skip
    bucket, labels = gcs.connect(settings), connect(settings)
    for one in (settings.source_bucket, settings.target_bucket, settings.dvc_bucket):
        gcs.ensure_bucket(bucket, one)
    _make_workspace(settings, f"Archive {name}")
    params = load_params(settings.params_path)
    fields = {"title": params.project.title, "label_config": labeling_interface(params)}
    project = labels.post("/api/projects/", fields)["id"]
    rows = "".join(f"{name}-{n},1999,c{n % 7},,,,,,,\n" for n in range(300))
    catalog = f"{','.join(CATALOG_COLUMNS)}\n{rows}".encode()
    gcs.put(bucket, settings.source_bucket, settings.catalog, catalog, "text/csv")
    return Archive(settings, bucket, labels, project)


def _make_workspace(settings: Settings, title: str) -> Workspace:
    workspace = Workspace(settings.workspace_path, settings)
    workspace.ensure()
    document = yaml.safe_load((workspace.path / "params.yaml").read_text(encoding="utf-8"))
    document["project"]["title"] = title
    # What covers a label, or a split that chance left empty, depends on which photos came together.
    document["split"] |= {"min_label_photos": 10_000, "val_share": 0.0}
    # The stack's own project is checked; a check takes as long as the rest of a sync.
    document["check"]["severity"] = dict.fromkeys(document["check"]["severity"], "off")
    (workspace.path / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    workspace.git("commit", "--quiet", "--all", "-m", "A project of its own")
    return workspace
