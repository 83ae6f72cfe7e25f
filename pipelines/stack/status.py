"""`maskloop status`: where the loop stands, in one screen."""

from rich.console import Console
from rich.table import Table

from pipelines.dataset.workspace import Workspace
from pipelines.embed import count_ready
from pipelines.errors import MaskloopError
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params
from pipelines.prelabel import serving_model
from pipelines.settings import Settings
from pipelines.stack import supervisor
from pipelines.stack.services import get_health, is_healthy, services_in


def show_status(settings: Settings, console: Console) -> None:
    """Print services with their memory, then the loop: tasks, dataset, model, segmenter."""
    memory = supervisor.memory_mb(settings)
    states = supervisor.states(settings)
    elsewhere = "container" if settings.composed else "not ours"
    table = Table(title="Services", title_justify="left")
    for heading in ("service", "process", "healthy", "memory", "address"):
        table.add_column(heading, justify="right" if heading == "memory" else "left")
    for service in services_in(settings):
        healthy, why = is_healthy(service, settings)
        state = ", ".join(sorted({states.get(name, (elsewhere, 0))[0].lower() for name in service.processes}))
        used = sum(memory.get(name, 0) for name in service.processes)
        mark = "[green]yes" if healthy else f"[red]no: {why}"
        table.add_row(service.name, state, mark, f"{used:,.0f} MB" if used else "–", service.url(settings))
    console.print(table)
    if memory:
        console.print(f"{sum(memory.values()) / 1000:.1f} GB of memory in all (shared pages counted once)")
    console.print(_loop(settings))


def _loop(settings: Settings) -> Table:
    table = Table(title="The loop", title_justify="left", show_header=False)
    for name, ask in (("tasks", _tasks), ("dataset", _dataset), ("pre-labels by", _model), ("clicks by", _segmenter)):
        try:
            table.add_row(name, ask(settings))
        except MaskloopError as error:
            table.add_row(name, f"[red]{error}")
    return table


def _tasks(settings: Settings) -> str:
    labels, params = connect(settings), load_params(settings.params_path)
    tasks = list(list_tasks(labels, find_project(labels, params)))
    annotated = sum(task.annotation_count > 0 for task in tasks)
    waiting = sum(not task.opened and not task.prediction_versions for task in tasks)
    return f"{len(tasks)}: {annotated} annotated, {len(tasks) - annotated} open, {waiting} of them without a pre-label"


def _dataset(settings: Settings) -> str:
    workspace = Workspace(settings.workspace_path, settings)
    tags = workspace.dataset_tags() if settings.workspace_path.exists() else []
    if not tags:
        return "none yet"
    return f"{tags[-1]}: {workspace.git('tag', '--list', '--format=%(contents:subject)', tags[-1])}"


def _model(settings: Settings) -> str:
    version, labels = serving_model(settings)
    return f"{version}, {len(labels)} labels" if labels else "no champion yet"


def _segmenter(settings: Settings) -> str:
    answer = get_health(settings.url("segment_anything"))
    report = count_ready(connect(settings), settings, load_params(settings.params_path))
    ready = f"{answer['model_version']}; {report.ready} of the next {report.queued} photos are ready for clicks"
    return f"{ready} ({answer['fallback']})" if answer["fallback"] else ready
