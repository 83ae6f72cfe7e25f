"""An archive with two published versions, in real buckets, git and DVC; Label Studio is a stand-in."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from google.cloud.storage import Client

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.mirror import SyncState, reconcile
from pipelines.dataset.pipeline import build_dataset, lay_out_version_before, publish_dataset
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.forget.forget import Stores
from pipelines.forget.ledger import Forgotten, load_forgotten
from pipelines.gcs import client as gcs
from pipelines.gcs.generations import list_generations
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.cursor import Changes, TaskCursor
from pipelines.labelstudio.tasks import task_data
from pipelines.models.registry import Registry
from pipelines.params import Params
from pipelines.records import CATALOG_COLUMNS, Annotation
from pipelines.settings import Settings

Annotate = Callable[..., Annotation]
ADA = "ada@example.org"


class Studio:
    """A Label Studio with one project: tasks, accounts and export snapshots."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.tasks: dict[int, dict[str, Any]] = {}
        self.exports: dict[int, list[Any]] = {}
        self.users: dict[int, dict[str, Any]] = {
            1: {"id": 1, "email": "admin@maskloop.local", "first_name": "", "last_name": "", "username": "admin"},
            7: {"id": 7, "email": ADA, "first_name": "Ada", "last_name": "Lovelace", "username": "ada"},
        }
        self.removed: set[int] = set()
        self.client = LabelStudioClient("http://label-studio.test", "token", transport=httpx.MockTransport(self))

    def show(self, annotation: Annotation) -> None:
        """Add the task of an annotation."""
        data = task_data(annotation.image, annotation.metadata)
        self.tasks[annotation.task_id] = {
            "id": annotation.task_id, "data": data, "total_annotations": 1, "updated_at": "2026-01-01T00:00:00Z",
        }  # fmt: skip

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body: dict[str, Any] = json.loads(request.content) if request.content else {}
        where = [request.method, *request.url.path.strip("/").split("/")[1:]]
        answer: Any = None
        match where:
            case ["GET", "projects"]:
                answer = {"results": [{"id": 3, "title": self.title}], "next": None}
            case ["GET", "tasks"]:
                query = json.loads(request.url.params["query"])
                wanted = query.get("selectedItems", {}).get("included", self.tasks)
                tasks = [task for number, task in self.tasks.items() if number in wanted]
                answer = {"total": len(tasks), "tasks": tasks}
            case ["DELETE", "tasks", number]:
                if self.tasks.pop(int(number), None) is None:
                    return httpx.Response(404, text="no such task")
            case ["GET", "projects", "3", "exports"]:
                answer = [{"id": number, "title": "by hand"} for number in self.exports]
            case ["GET", "projects", "3", "exports", number, "download"]:
                answer = self.exports[int(number)]
            case ["DELETE", "projects", "3", "exports", number]:
                del self.exports[int(number)]
            case ["GET", "users"]:
                hidden = {"email": "Deleted", "first_name": "Deleted", "last_name": "User", "username": "Deleted"}
                answer = [user | (hidden if user["id"] in self.removed else {}) for user in self.users.values()]
            case ["PATCH", "users", number]:
                assert "email" not in body, "Label Studio refuses to change it"
                self.users[int(number)] |= body
                answer = self.users[int(number)]
            case ["GET", "current-user", "whoami"]:
                answer = {"active_organization": 1}
            case ["DELETE", "organizations", "1", "memberships", number]:
                if int(number) in self.removed:
                    return httpx.Response(404, text="Member not found")
                self.removed.add(int(number))
            case _:
                return httpx.Response(404, text=request.url.path)
        return httpx.Response(200, json=answer)


class Archive:
    """A workspace with versions, its buckets, and the Label Studio whose tasks they come from."""

    def __init__(self, workspace: Workspace, bucket: Client, archive: str, params: Params, mlflow: str) -> None:
        target = f"target-{uuid4().hex[:12]}"
        gcs.ensure_bucket(bucket, target)
        update = {
            "target_bucket": target, "source_bucket": archive, "source_prefix": "", "mlflow_url": mlflow,
            "label_studio_url": "http://label-studio.test",
        }  # fmt: skip
        self.settings: Settings = workspace.settings.model_copy(update=update)
        self.workspace, self.bucket, self.params = Workspace(workspace.path, self.settings), bucket, params
        self.dataset, self.state = Dataset(workspace.path), SyncState("p")
        self.studio = Studio(params.project.title)
        self.published = Published(self.workspace)

    @property
    def stores(self) -> Stores:
        """All stores."""
        return Stores(self.bucket, self.studio.client, self.settings, self.params, lambda: Registry(self.settings))

    @property
    def forgotten(self) -> Forgotten:
        """The list of what must not come back."""
        return load_forgotten(self.bucket, self.settings.target_bucket)

    def sync(self, *annotations: Annotation) -> str:
        """Publish these annotations, which are all that there are; return the tag, or "" if nothing is new."""
        for annotation in annotations:
            self.studio.show(annotation)
        changes = Changes(annotations, frozenset(self.studio.tasks), frozenset(), TaskCursor(frozenset({1}), None))
        state = reconcile(self.bucket, self.dataset, SyncState("p"), self.forgotten.applied_to(changes))
        assert state is not None
        state.write(self.settings.var / "sync.json")
        lay_out_version_before(self.workspace, forgotten=self.forgotten)
        build_dataset(self.bucket, self.settings, "split")
        version = publish_dataset(self.bucket, self.settings)
        return version.tag if version else ""

    def objects(self) -> dict[str, str]:
        """Every generation of every object of the buckets, by address and generation, with its MD5."""
        buckets = (self.settings.source_bucket, self.settings.target_bucket, self.settings.dvc_bucket)
        return {
            f"{ref.uri}#{ref.generation}": ref.md5 for name in buckets for ref in list_generations(self.bucket, name)
        }


@pytest.fixture
def archive(
    unchecked_workspace: Workspace, bucket_client: Client, archive_bucket: str, params: Params, empty_mlflow: str
) -> Archive:
    """An archive without photos."""
    archive = Archive(unchecked_workspace, bucket_client, archive_bucket, params, empty_mlflow)
    header = ",".join(CATALOG_COLUMNS) + "\n" + "c,1999,Autumn,,,,,,,\n"
    gcs.put(bucket_client, archive_bucket, archive.settings.catalog, header.encode(), "text/csv")
    return archive


@pytest.fixture
def drawn(archive: Archive, annotated_photo: Annotate) -> dict[str, Annotation]:
    """Four annotated photos: a and b of Ada, c and d of Bob; two versions hold them, the first without d."""
    people = {"a": ADA, "b": ADA, "c": "bob@example.org", "d": "bob@example.org"}
    drawn = {}
    for task, (name, person) in enumerate(people.items(), start=1):
        annotation = annotated_photo(name, 20 * task, task_id=task, annotator=person)
        raw: Any = {**annotation.raw, "completed_by": 7 if person == ADA else 8}
        drawn[name] = replace(annotation, raw=raw)
    archive.sync(*(drawn[name] for name in "abc"))
    archive.sync(*drawn.values())
    return drawn
