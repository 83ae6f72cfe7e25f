"""`maskloop doctor`: check every connection and every known trap, and say how to fix what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx
from rich.console import Console
from rich.table import Table

from pipelines.airflow_api import Airflow
from pipelines.contract import DAG_IDS, POOLS, SEGMENT_ANYTHING, SEGMENTATION
from pipelines.dataset.workspace import Workspace
from pipelines.errors import MaskloopError
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect, is_personal_token
from pipelines.labelstudio.interface import require_same_labels
from pipelines.labelstudio.project import (
    SEGMENT_ANYTHING_TITLE,
    SEGMENTATION_TITLE,
    find_project,
    list_backends,
    project_labels,
    read_project,
)
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, tasks_with_masks
from pipelines.local_stack.backup_age import is_bucket, newest_backup
from pipelines.local_stack.disk import measure
from pipelines.local_stack.services import Service, get_health, is_healthy, services_in
from pipelines.params import load_params
from pipelines.prelabel.pipeline import serving_model
from pipelines.records import NO_MODEL
from pipelines.segmentation.sam_loader import is_failure
from pipelines.services import ask_service
from pipelines.settings import PROJECT_ROOT, Settings


@dataclass(frozen=True)
class Failure:
    """What is wrong, and how to fix it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Notice:
    """What works but may be surprising, and what to do about it."""

    what: str
    remedy: str


Answer = str | Notice | Failure  # a text when all is well
Check = Callable[[Settings], Answer]


def examine(settings: Settings, console: Console) -> bool:
    """Run every check, print a table, and return whether nothing is wrong."""
    table = Table(title="Maskloop doctor", title_justify="left", show_lines=True)
    for heading in ("", "check", "finding", "how to fix it"):
        table.add_column(heading, overflow="fold")
    healthy = True
    for name, answer in findings(settings):
        if isinstance(answer, Failure):
            healthy = False
            table.add_row("[red]✗", name, answer.what, answer.remedy)
        elif isinstance(answer, Notice):
            table.add_row("[yellow]!", name, answer.what, answer.remedy)
        else:
            table.add_row("[green]✓", name, answer, "")
    console.print(table)
    return healthy


def findings(settings: Settings) -> list[tuple[str, Answer]]:
    """Return each check's name and answer; a check that raises an error is answered by a failure."""
    answers: list[tuple[str, Answer]] = [
        (f"{service.name} answers", _service(settings, service)) for service in services_in(settings)
    ]
    for name, check in CHECKS.items():
        try:
            answers.append((name, check(settings)))
        except MaskloopError as error:
            answers.append((name, Failure(str(error), "see the finding")))
        except (LookupError, ValueError, OSError) as error:  # another program answered, or a file is gone
            answers.append((name, Failure(f"{type(error).__name__}: {error}", "see what runs at the addresses above")))
    return answers


def _service(settings: Settings, service: Service) -> Answer:
    healthy, why = is_healthy(service, settings)
    return "healthy" if healthy else Failure(why, "`maskloop up`; its log is in var/logs")


def _token(settings: Settings) -> Answer:
    token = settings.label_studio_token.get_secret_value()
    who = connect(settings).get("/api/current-user/whoami")["email"]
    kind = "personal access token, refreshed automatically" if is_personal_token(token) else "legacy token"
    return f"{kind} of {who}"


def _project(settings: Settings) -> Answer:
    labels, params = connect(settings), load_params(settings.params_path)
    offered = project_labels(labels, find_project(labels, params))
    require_same_labels(params, offered=offered)
    if params.ignore.name not in offered:
        return Notice(f"the project does not offer the ignore label {params.ignore.name!r}", "`maskloop setup` adds it")
    return f"{len(params.labels)} labels in project and params.yaml"


def _backends(settings: Settings) -> Answer:
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    backends = list_backends(labels, project)
    wanted = [settings.url(SEGMENTATION), settings.url(SEGMENT_ANYTHING)]
    own = [backend for backend in backends if backend["title"] in (SEGMENTATION_TITLE, SEGMENT_ANYTHING_TITLE)]
    if [backend["url"].rstrip("/") for backend in own] != wanted:
        connected = ", ".join(backend["url"] for backend in backends)
        return Failure(
            f"connected: {connected or 'none'}; wanted, in this order: {', '.join(wanted)}", "`maskloop setup`"
        )
    if backends[0] is not own[0]:
        return Failure(
            f"{backends[0]['title']!r} is connected before Maskloop's, and Label Studio pre-labels with the first",
            "remove it in the project's settings, under Model",
        )
    config = read_project(labels, project)["label_config"]
    ask_service(settings, SEGMENTATION, "/setup", {"schema": config}, timeout_s=10)  # says which labels disagree
    if off := [f"{b['title']} ({b.get('error_message') or 'no reason'})" for b in own if b["state"] != "CO"]:
        return Failure(
            f"Label Studio calls disconnected: {', '.join(off)}",
            "`maskloop setup` sets their login again; a banned address must be removed from "
            "USER_ADDITIONAL_BANNED_SUBNETS in Label Studio's environment",
        )
    return "segmentation first, segment-anything interactive, both connected"


def _queue(settings: Settings) -> Answer:
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    held = locked_tasks(labels, project)
    waiting = [t for t in list_tasks(labels, project) if t.prediction_versions and not t.opened and t.id not in held]
    shown = read_project(labels, project).get("model_version") or "none"
    if waiting and all(shown not in task.prediction_versions for task in waiting):
        return Failure(f"{len(waiting)} photos wait, none with {shown}, which the project shows", "`maskloop prelabel`")
    masks = tasks_with_masks(labels, project, [task.id for task in waiting])
    return (
        f"{len(waiting)} photos wait, {len(masks)} with masks and {len(waiting) - len(masks)} without; {len(held)} are "
        "assigned to people"
    )


def _ports(settings: Settings) -> Answer:
    """Check that Label Studio has its own port; it silently takes the next one when that is taken."""
    try:
        page = httpx.get(f"{settings.url('label_studio')}/api/version", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        page = {}
    if "label-studio-os-package" not in page:
        return Failure(
            f"{settings.url('label_studio')} is not Label Studio",
            "another program has the port, so Label Studio took the next: free it or set MASKLOOP_LABEL_STUDIO_PORT",
        )
    return f"Label Studio {page['label-studio-os-package']['version']} at its own port"


def _buckets(settings: Settings) -> Answer:
    client = gcs.connect(settings)
    names = (settings.source_bucket, settings.target_bucket, settings.dvc_bucket)
    for name in names:
        gcs.require_bucket(client, name)
    if gcs.stat(client, settings.source_bucket, settings.catalog) is None:
        return Failure(
            f"gs://{settings.source_bucket} has no {settings.catalog}",
            "upload the catalogue CSV, or set MASKLOOP_CATALOG to its object name",
        )
    return ", ".join(f"gs://{name}" for name in names)


def _backup(settings: Settings) -> Answer:
    if not is_bucket(settings.backup):
        if not settings.composed:
            return "this machine is no server, and MASKLOOP_BACKUP names no bucket"
        return Notice("no backup leaves this machine", "name a bucket in MASKLOOP_BACKUP: docs/deploy.md")
    age = newest_backup(settings)
    if age.is_too_old:
        remedy = (
            "`deploy/maskloop backup` makes one, and says what stops it; `journalctl -u maskloop-backup` has the last"
        )
        return Failure(str(age), remedy)
    return str(age)


def _disk(settings: Settings) -> Answer:
    disk = measure(settings)
    if disk.is_low:
        remedy = "`maskloop gc` shows what may go, `retention` in params.yaml lets more go; or a larger disk"
        return Failure(f"{settings.var}: {disk}", remedy)
    return str(disk)


def _airflow(settings: Settings) -> Answer:
    airflow = Airflow(settings)
    if errors := airflow.import_errors():
        return Failure("; ".join(errors), "fix the DAG file named")
    if missing := DAG_IDS - airflow.dags():
        return Failure(f"Airflow has not read {', '.join(sorted(missing))}", "wait half a minute; see var/logs")
    if missing_pools := [name for name in POOLS if not airflow.has_pool(name)]:
        return Failure(f"there is no pool {', '.join(missing_pools)}", "`maskloop setup` creates it")
    return f"{len(DAG_IDS)} DAGs, pools {', '.join(POOLS)}"


def _champion(settings: Settings) -> Answer:
    from pipelines.models.registry import Registry

    champion = Registry(settings).champion()
    serving, known = serving_model(settings)
    wanted = champion.served_as if champion else NO_MODEL
    if serving != wanted:
        problem = get_health(settings.url(SEGMENTATION)).get("problem", "")
        return Failure(
            f"MLflow's champion is {wanted}, the service serves {serving}. {problem}", "see var/logs/segmentation.log"
        )
    require_same_labels(load_params(settings.params_path), model_labels=known, model=serving)
    if champion and champion.paused:
        return Notice(
            f"{serving} is paused and draws no masks: {champion.paused}",
            f"`maskloop promote {champion.version}` resumes it; the promotion of a better model ends the pause as well",
        )
    return serving if champion else "none yet: the first training creates one"


def _clicks(settings: Settings) -> Answer:
    health = get_health(settings.url(SEGMENT_ANYTHING))
    if is_failure(health["fallback"]):
        return Failure(
            f"{health['model_version']} answers: {health['fallback']}", "correct MASKLOOP_SAM_CHECKPOINT, then restart"
        )
    return health["model_version"] + (f": {health['fallback']}" if health["fallback"] else "")


def _workspace(settings: Settings) -> Answer:
    path = settings.workspace_path
    if not (path / ".git").exists():
        return Failure(f"there is no workspace {path}", "`maskloop up` creates it")
    workspace, project = Workspace(path, settings), Workspace(PROJECT_ROOT, settings)
    if "bucket" not in (path / ".dvc" / "config.local").read_text(encoding="utf-8"):
        return Failure("DVC has no remote", "`maskloop up` writes it")
    uncommitted = project.git("diff", "--name-only", "HEAD", "--", "params.yaml", "dvc.yaml", "pipelines")
    if uncommitted:
        names = ", ".join(uncommitted.splitlines()[:3])
        return Notice(f"the project has changes that no dataset version will see: {names}", "git commit them")
    dirty = workspace.git("status", "--porcelain", "--", "data", "params.yaml")
    tags = workspace.dataset_tags()
    note = "; the next sync completes an unfinished one" if dirty else ""
    return (f"{len(tags)} dataset versions, newest {tags[-1]}" if tags else "no dataset version yet") + note


def _dataset_files(settings: Settings) -> Answer:
    """Hash some files of the newest version in the cache, and ask the remote for all objects of all versions."""
    from pipelines.dataset.objects import Objects
    from pipelines.dataset.verify import sample

    path = settings.workspace_path
    if not (path / ".git").exists():
        return "no dataset version yet"
    hashed, damaged, incomplete = sample(Workspace(path, settings), Objects(settings))
    remedy = "`maskloop verify --all` repairs what has a good copy"
    if damaged:
        return Failure(f"{damaged} of {hashed} files of DVC's cache, chosen at random, are damaged", remedy)
    if incomplete:
        names = ", ".join(f"{tag} ({count} objects)" for tag, count in list(incomplete.items())[-3:])
        more = f" and {len(incomplete) - 3} more" if len(incomplete) > 3 else ""
        return Failure(
            f"gs://{settings.dvc_bucket} does not hold all of {names}{more}",
            f"{remedy}; after a move of the bucket: gcloud storage cp --recursive 'gs://OLD/dvc/*' "
            f"gs://{settings.dvc_bucket}/dvc",
        )
    return f"{hashed} files of the cache, chosen at random, are whole; the remote holds every version"


CHECKS: dict[str, Check] = {
    "Label Studio's port": _ports,
    "Label Studio's token": _token,
    "labels": _project,
    "ML backends": _backends,
    "queue": _queue,
    "buckets": _buckets,
    "disk": _disk,
    "backup": _backup,
    "Airflow": _airflow,
    "champion": _champion,
    "clicks": _clicks,
    "git and DVC": _workspace,
    "dataset files": _dataset_files,
}
