"""`maskloop doctor`: every connection and every known trap, each with how to mend it."""

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
from pipelines.labelstudio.interface import label_differences
from pipelines.labelstudio.project import (
    SEGMENT_ANYTHING_TITLE,
    SEGMENTATION_TITLE,
    find_project,
    list_backends,
    project_labels,
)
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, tasks_with_masks
from pipelines.local_stack.services import Service, get_health, is_healthy, services_in
from pipelines.params import load_params
from pipelines.prelabel.pipeline import serving_model
from pipelines.records import NO_MODEL
from pipelines.services import ask_service
from pipelines.settings import PROJECT_ROOT, Settings


@dataclass(frozen=True)
class Ill:
    """What is wrong, and how to mend it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Note:
    """What works, but may surprise, and what to do about it."""

    what: str
    remedy: str


Answer = str | Note | Ill  # good news as text, something to know, or what is wrong
Check = Callable[[Settings], Answer]


def examine(settings: Settings, console: Console) -> bool:
    """Run every check and print a table; True when nothing is wrong."""
    table = Table(title="Maskloop doctor", title_justify="left", show_lines=True)
    for heading in ("", "check", "finding", "how to mend it"):
        table.add_column(heading, overflow="fold")
    well = True
    for name, answer in findings(settings):
        if isinstance(answer, Ill):
            well = False
            table.add_row("[red]✗", name, answer.what, answer.remedy)
        elif isinstance(answer, Note):
            table.add_row("[yellow]!", name, answer.what, answer.remedy)
        else:
            table.add_row("[green]✓", name, answer, "")
    console.print(table)
    return well


def findings(settings: Settings) -> list[tuple[str, Answer]]:
    """Give each check's name and answer; an error that Maskloop knows is an answer too."""
    answers: list[tuple[str, Answer]] = [
        (f"{service.name} answers", _service(settings, service)) for service in services_in(settings)
    ]
    for name, check in CHECKS.items():
        try:
            answers.append((name, check(settings)))
        except MaskloopError as error:
            answers.append((name, Ill(str(error), "see the finding")))
        except (LookupError, ValueError, OSError) as error:  # an answer of another program, or a file that is gone
            answers.append((name, Ill(f"{type(error).__name__}: {error}", "see what runs at the addresses above")))
    return answers


def _service(settings: Settings, service: Service) -> Answer:
    healthy, why = is_healthy(service, settings)
    return "healthy" if healthy else Ill(why, "`maskloop up`; its log is in var/logs")


def _token(settings: Settings) -> Answer:
    token = settings.label_studio_token.get_secret_value()
    who = connect(settings).get("/api/current-user/whoami")["email"]
    kind = "personal access token, refreshed by itself" if is_personal_token(token) else "legacy token"
    return f"{kind} of {who}"


def _project(settings: Settings) -> Answer:
    labels, params = connect(settings), load_params(settings.params_path)
    there, mend = project_labels(labels, find_project(labels, params)), "`maskloop setup` brings it in line"
    if differences := label_differences(there, params):
        return Ill(differences, mend)
    if params.ignore.name not in there:
        return Note(f"the project does not offer «{params.ignore.name}» for what nobody can name", mend)
    return f"{len(params.labels)} labels in project and params.yaml"


def _backends(settings: Settings) -> Answer:
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    backends = list_backends(labels, project)
    wanted = [settings.url(SEGMENTATION), settings.url(SEGMENT_ANYTHING)]
    ours = [backend for backend in backends if backend["title"] in (SEGMENTATION_TITLE, SEGMENT_ANYTHING_TITLE)]
    if [backend["url"].rstrip("/") for backend in ours] != wanted:
        there = ", ".join(backend["url"] for backend in backends)
        return Ill(f"connected: {there or 'none'}; wanted, in this order: {', '.join(wanted)}", "`maskloop setup`")
    if backends[0] is not ours[0]:
        return Ill(
            f"«{backends[0]['title']}» was connected before ours, and Label Studio pre-labels with the first",
            "remove it in the project's settings, under Model",
        )
    config = labels.get(f"/api/projects/{project}/")["label_config"]
    ask_service(settings, SEGMENTATION, "/setup", {"schema": config}, timeout_s=10)  # says which labels disagree
    if off := [f"{b['title']} ({b.get('error_message') or 'no reason'})" for b in ours if b["state"] != "CO"]:
        return Ill(
            f"Label Studio calls disconnected: {', '.join(off)}",
            "`maskloop setup` gives it their login again; a banned address must leave USER_ADDITIONAL_BANNED_SUBNETS "
            "in Label Studio's environment",
        )
    return "segmentation first, segment-anything interactive, both connected"


def _queue(settings: Settings) -> Answer:
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    held = locked_tasks(labels, project)
    waiting = [t for t in list_tasks(labels, project) if t.prediction_versions and not t.opened and t.id not in held]
    shown = labels.get(f"/api/projects/{project}/").get("model_version") or "none"
    if waiting and all(shown not in task.prediction_versions for task in waiting):
        return Ill(f"{len(waiting)} photos wait, none with {shown}, which the project shows", "`maskloop prelabel`")
    masks = tasks_with_masks(labels, project, [task.id for task in waiting])
    return (
        f"{len(waiting)} photos wait, {len(masks)} with masks and {len(waiting) - len(masks)} without; {len(held)} are "
        "in people's hands"
    )


def _ports(settings: Settings) -> Answer:
    """Label Studio silently takes the next port when its own is taken."""
    try:
        page = httpx.get(f"{settings.url('label_studio')}/api/version", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        page = {}
    if "label-studio-os-package" not in page:
        return Ill(
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
        return Ill(
            f"gs://{settings.source_bucket} has no {settings.catalog}",
            "upload the catalogue CSV, or set MASKLOOP_CATALOG to its object name",
        )
    return ", ".join(f"gs://{name}" for name in names)


def _airflow(settings: Settings) -> Answer:
    airflow = Airflow(settings)
    if errors := airflow.import_errors():
        return Ill("; ".join(errors), "mend the DAG file named")
    if missing := DAG_IDS - airflow.dags():
        return Ill(f"Airflow has not read {', '.join(sorted(missing))}", "wait half a minute; see var/logs")
    if missing_pools := [name for name in POOLS if not airflow.has_pool(name)]:
        return Ill(f"there is no pool {', '.join(missing_pools)}", "`maskloop setup` creates it")
    return f"{len(DAG_IDS)} DAGs, pools {', '.join(POOLS)}"


def _champion(settings: Settings) -> Answer:
    from pipelines.models.registry import Registry

    champion = Registry(settings).champion()
    serving, known = serving_model(settings)
    wanted = champion.served_as if champion else NO_MODEL
    if serving != wanted:
        problem = get_health(settings.url(SEGMENTATION)).get("problem", "")
        return Ill(
            f"MLflow's champion is {wanted}, the service serves {serving}. {problem}", "see var/logs/segmentation.log"
        )
    unknown = sorted(set(known) - set(load_params(settings.params_path).label_ids))
    if unknown:
        return Ill(
            f"{serving} predicts labels that params.yaml lacks: {', '.join(unknown)}", "put them back, or retrain"
        )
    if champion and champion.paused:
        return Note(
            f"{serving} is paused and draws no masks for anybody: {champion.paused}",
            f"`maskloop promote {champion.version}` lets it draw again; a better model ends it by itself",
        )
    return serving if champion else "none yet: the first training makes one"


def _clicks(settings: Settings) -> Answer:
    health = get_health(settings.url(SEGMENT_ANYTHING))
    if health["fallback"] and settings.sam_checkpoint:
        return Ill(
            f"{health['model_version']} answers: {health['fallback']}", "mend MASKLOOP_SAM_CHECKPOINT, then restart"
        )
    return health["model_version"] + (f": {health['fallback']}" if health["fallback"] else "")


def _workspace(settings: Settings) -> Answer:
    path = settings.workspace_path
    if not (path / ".git").exists():
        return Ill(f"there is no workspace {path}", "`maskloop up` makes it")
    workspace, project = Workspace(path, settings), Workspace(PROJECT_ROOT, settings)
    if "bucket" not in (path / ".dvc" / "config.local").read_text(encoding="utf-8"):
        return Ill("DVC has no remote", "`maskloop up` writes it")
    uncommitted = project.git("diff", "--name-only", "HEAD", "--", "params.yaml", "dvc.yaml", "pipelines")
    if uncommitted:
        names = ", ".join(uncommitted.splitlines()[:3])
        return Note(f"the project has changes that no dataset version will see: {names}", "git commit them")
    dirty = workspace.git("status", "--porcelain", "--", "data", "params.yaml")
    tags = workspace.dataset_tags()
    note = "; an unfinished sync is taken up by the next one" if dirty else ""
    return (f"{len(tags)} dataset versions, newest {tags[-1]}" if tags else "no dataset version yet") + note


CHECKS: dict[str, Check] = {
    "Label Studio's port": _ports,
    "Label Studio's token": _token,
    "labels": _project,
    "ML backends": _backends,
    "queue": _queue,
    "buckets": _buckets,
    "Airflow": _airflow,
    "champion": _champion,
    "clicks": _clicks,
    "git and DVC": _workspace,
}
