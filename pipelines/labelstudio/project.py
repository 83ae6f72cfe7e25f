"""The Label Studio project as code: created from params.yaml, and updated by every later run.

Only what differs is written, and nothing here ever touches tasks, predictions or annotations.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.contract import SEGMENT_ANYTHING, SEGMENTATION
from pipelines.errors import ServiceError
from pipelines.gcs.client import COPIES
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.controls import BRUSH
from pipelines.labelstudio.interface import labeling_interface
from pipelines.labelstudio.schema import BackendJson, ProjectJson
from pipelines.labelstudio.tasks import REVIEW
from pipelines.params import Params
from pipelines.records import CATALOG_COLUMNS
from pipelines.services import ask_service
from pipelines.settings import Settings

STORAGE_TITLE = "maskloop source"
COPIES_TITLE = "maskloop copies"
SEGMENTATION_TITLE = "segmentation"
SEGMENT_ANYTHING_TITLE = "segment-anything"
QUEUE_TITLE = "Queue"
REVIEW_TITLE = "Review"
# Columns that a labeler does not need; people can show them again.
_HIDDEN = [
    f"tasks:{name}"
    for name in (
        "inner_id", "completed_at", "cancelled_annotations", "total_predictions", "annotations_results",
        "annotations_ids", "predictions_results", "file_upload", "storage_filename", "created_at", "updated_by",
        "avg_lead_time", "draft_exists", "data.generation", "data.sha256", "data.phash", "data.height", "data.width",
        "data.shown_height", "data.shown_width",
    )
]  # fmt: skip


def find_project(client: LabelStudioClient, params: Params) -> int:
    """Return the id of the project with the title of params.yaml.

    Raises ServiceError with the remedy when there is none.
    """
    project = _project_named(client, params.project.title)
    if project is None:
        raise ServiceError(
            f'Label Studio at {client.url} has no project "{params.project.title}"; create it with `maskloop setup`'
        )
    return int(project["id"])


def read_project(client: LabelStudioClient, project_id: int) -> ProjectJson:
    """Return the project with all its settings."""
    project: ProjectJson = client.get(f"/api/projects/{project_id}/")
    return project


def ensure_project(client: LabelStudioClient, params: Params, settings: Settings) -> list[str]:
    """Create or correct project, source storage and both backends; returns a line per change.

    Label Studio pre-labels with the backend of the lowest id, so the segmentation service is connected first, and both
    are connected anew when the order is wrong.
    """
    changes: list[str] = []
    project = _project_named(client, params.project.title)
    wanted = _project_fields(params)
    if project is None:
        with client.explained():
            created = client.sdk.projects.create(title=params.project.title, **wanted)
        assert created.id is not None
        project_id = created.id
        changes.append(f'created project "{params.project.title}"')
    else:
        project_id = int(project["id"])
        current = read_project(client, project_id)
        different = {
            key: value for key, value in wanted.items() if _without_spaces(current.get(key)) != _without_spaces(value)
        }
        if different:
            client.patch(f"/api/projects/{project_id}/", different)
            changes.append(f"updated project: {', '.join(sorted(different))}")
    changes += _ensure_tabs(client, project_id)
    changes += _ensure_storage(client, project_id, settings)
    changes += _ensure_backends(client, project_id, settings, wanted["label_config"])
    return changes


def project_labels(client: LabelStudioClient, project_id: int) -> set[str]:
    """Return the brush labels that the project offers to labelers."""
    controls = read_project(client, project_id)["parsed_label_config"]
    return set(controls.get(BRUSH, {}).get("labels", ()))


def list_backends(client: LabelStudioClient, project_id: int) -> list[BackendJson]:
    """Return the connected backends, the one that pre-labels first."""
    backends: list[BackendJson] = client.get("/api/ml", project=project_id)
    return sorted(backends, key=lambda backend: backend["id"])


def show_predictions_of(client: LabelStudioClient, project_id: int, model_version: str) -> None:
    """Make the label stream start from this model version's predictions; some task must already have one."""
    if read_project(client, project_id).get("model_version") != model_version:
        client.patch(f"/api/projects/{project_id}/", {"model_version": model_version})


def _project_named(client: LabelStudioClient, title: str) -> ProjectJson | None:
    """Return the oldest project with the title: anybody may create others of that title later."""
    page, same_title = 1, list[ProjectJson]()
    while True:
        answer = client.get("/api/projects/", page=page, page_size=100)
        projects: list[ProjectJson] = answer["results"]
        same_title += [project for project in projects if project["title"] == title]
        if not answer.get("next"):
            return min(same_title, key=lambda project: int(project["id"]), default=None)
        page += 1


def _project_fields(params: Params) -> dict[str, Any]:
    return {
        "label_config": labeling_interface(params),
        "expert_instruction": params.project.instruction,
        "show_instruction": False,
        "show_collab_predictions": True,
        "evaluate_predictions_automatically": False,  # the prelabel DAG pushes predictions; opening a list never waits
        **overlap_fields(params.quality.overlap_share),
        "sampling": "Uncertainty sampling",  # tasks with current predictions first: prelabel.strategies
        "enable_empty_annotation": True,
        "show_skip_button": True,
        "skip_queue": "IGNORE_SKIPPED",  # nobody gets a photo that somebody skipped
    }


def overlap_fields(share: float) -> dict[str, int]:
    """Return the settings that make Label Studio serve this share of the photos (0..1) to two people instead of one.

    Label Studio counts in whole per cent.
    """
    return {"maximum_annotations": 2 if share else 1, "overlap_cohort_percentage": round(100 * share) if share else 100}


def _without_spaces(value: object) -> object:
    return "".join(value.split()) if isinstance(value, str) else value


def tabs() -> list[dict[str, Any]]:
    """Return the Data Manager's tabs: all photos; the queue, in the order of its scores; and photos for review.

    Photos for review are those whose masks look wrong; the tab shows the reason, the worst first.
    """

    def where(column: str, operator: str) -> dict[str, Any]:
        return {"filter": f"filter:tasks:{column}", "operator": operator, "type": "Number", "value": 0}

    untouched = [where(name, "equal") for name in ("total_annotations", "cancelled_annotations")]
    queue = {"conjunction": "and", "items": [*untouched, where("total_predictions", "greater")]}

    def without(columns: Iterable[str]) -> dict[str, Any]:
        hidden = [*_HIDDEN, *(f"tasks:{name}" for name in columns)]
        return {"type": "list", "target": "tasks", "hiddenColumns": {"explore": hidden, "labeling": hidden}}

    table = without([f"data.{REVIEW}"])
    return [
        {**table, "title": "All photos"},
        {
            # The reason is what matters here, and must be seen without scrolling.
            **without(
                ["predictions_score", "predictions_model_versions", *(f"data.{name}" for name in CATALOG_COLUMNS)]
            ),
            "title": REVIEW_TITLE,
            "ordering": [f"tasks:data.{REVIEW}"],
            "filters": {
                "conjunction": "and",
                "items": [
                    {"filter": f"filter:tasks:data.{REVIEW}", "operator": "regex", "type": "String", "value": "."}
                ],
            },
        },
        {**table, "title": QUEUE_TITLE, "ordering": ["tasks:predictions_score"], "filters": queue},
    ]


def _ensure_tabs(client: LabelStudioClient, project_id: int) -> list[str]:
    """Create the tabs that are missing; columns and filters that people changed in existing ones stay."""
    existing = {view["data"].get("title") for view in client.get("/api/dm/views", project=project_id)}
    missing = [tab for tab in tabs() if tab["title"] not in existing]
    for tab in missing:
        client.post("/api/dm/views", {"project": project_id, "data": tab})
    return [f'made the tab "{tab["title"]}"' for tab in missing]


def _ensure_storage(client: LabelStudioClient, project_id: int, settings: Settings) -> list[str]:
    return _connect_bucket(client, project_id, settings, STORAGE_TITLE, settings.source_bucket)


def connect_copies(client: LabelStudioClient, project_id: int, settings: Settings) -> list[str]:
    """Let Label Studio show the copies of photos that browsers do not show; return what changed.

    It is connected once there are such copies, because Label Studio refuses to connect an empty folder.
    """
    return _connect_bucket(client, project_id, settings, COPIES_TITLE, settings.target_bucket, COPIES)


def _connect_bucket(
    client: LabelStudioClient, project_id: int, settings: Settings, title: str, bucket: str, prefix: str = ""
) -> list[str]:
    wanted = {"bucket": bucket, "presign": False, "use_blob_urls": True, "title": title}
    if prefix:
        wanted["prefix"] = prefix
    if settings.storage_emulator:
        wanted["google_project_id"] = "maskloop"
    with client.explained():
        storages = [s for s in client.sdk.import_storage.gcs.list(project=project_id) if s.title == title]
        if not storages:
            client.sdk.import_storage.gcs.create(project=project_id, **wanted)
            return [f"connected gs://{bucket}"]
        if (storages[0].bucket, storages[0].presign) != (bucket, False):
            client.sdk.import_storage.gcs.update(id=storages[0].id, project=project_id, **wanted)
            return [f"pointed the source storage to gs://{bucket}"]
    return []


def _ensure_backends(client: LabelStudioClient, project_id: int, settings: Settings, label_config: str) -> list[str]:
    wanted = (
        (SEGMENTATION_TITLE, settings.url(SEGMENTATION), False),
        (SEGMENT_ANYTHING_TITLE, settings.url(SEGMENT_ANYTHING), True),
    )
    password = settings.service_password.get_secret_value()
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": settings.service_user, "basic_auth_pass": password}
    mode = login if password else {"auth_method": "NONE"}
    connected = [
        backend
        for backend in list_backends(client, project_id)
        if backend["title"] in (SEGMENTATION_TITLE, SEGMENT_ANYTHING_TITLE)
    ]
    changes = []
    if [(b["title"], b["url"].rstrip("/"), b["is_interactive"]) for b in connected] != list(wanted):
        for backend in connected:
            client.delete(f"/api/ml/{backend['id']}")
        # Label Studio does not say why a service refuses the project, so the service is asked first.
        ask_service(settings, SEGMENTATION, "/setup", {"schema": label_config}, timeout_s=10)
        for title, url, interactive in wanted:
            fields = {"project": project_id, "url": url, "title": title, "is_interactive": interactive}
            client.post("/api/ml", {**fields, **mode})
        changes.append("connected the segmentation and segment-anything services")
    elif any(b["auth_method"] != mode["auth_method"] or "401" in str(b.get("error_message")) for b in connected):
        for backend in connected:
            client.patch(f"/api/ml/{backend['id']}", {"project": project_id, "url": backend["url"], **mode})
        changes.append("gave the model services' login to Label Studio")
    return changes + _ensure_webhooks(client, project_id, [url for _, url, _ in wanted], login if password else None)


def _ensure_webhooks(
    client: LabelStudioClient, project_id: int, services: Sequence[str], login: Mapping[str, str] | None
) -> list[str]:
    """Add the services' login to the webhooks of Label Studio's backends; it creates them without one."""
    headers = {}
    if login:
        pair = base64.b64encode(f"{login['basic_auth_user']}:{login['basic_auth_pass']}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}"}
    changed = False
    for hook in client.get("/api/webhooks/", project=project_id):
        if hook["url"] in {f"{url}/webhook" for url in services} and (hook["headers"] or {}) != headers:
            client.patch(f"/api/webhooks/{hook['id']}/", {"headers": headers})
            changed = True
    return ["gave the events of Label Studio their login"] if changed else []
