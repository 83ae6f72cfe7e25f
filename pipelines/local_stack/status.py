"""`maskloop status`: services and the state of the loop on one screen."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from pipelines.contract import SEGMENT_ANYTHING
from pipelines.dataset.workspace import Workspace
from pipelines.errors import MaskloopError
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.remarks import count_remarks
from pipelines.labelstudio.tasks import list_tasks
from pipelines.local_stack import supervisor
from pipelines.local_stack.backup_age import is_bucket, newest_backup
from pipelines.local_stack.disk import measure
from pipelines.local_stack.services import get_health, is_healthy, services_in
from pipelines.params import load_params
from pipelines.prelabel.embed import count_ready
from pipelines.prelabel.pipeline import serving_model
from pipelines.prelabel.strategies import describe as describe_queue
from pipelines.settings import Settings


def show_status(settings: Settings, console: Console) -> None:
    """Print services with their memory, then the loop: tasks, remarks, dataset, blind tasks, model, segmenter."""
    memory = supervisor.memory_mb(settings)
    states = supervisor.states(settings)
    default = "container" if settings.composed else "not supervised"
    table = Table(title="Services", title_justify="left")
    for heading in ("service", "process", "healthy", "memory", "address"):
        table.add_column(heading, justify="right" if heading == "memory" else "left")
    for service in services_in(settings):
        healthy, why = is_healthy(service, settings)
        state = ", ".join(sorted({states.get(name, (default, 0))[0].lower() for name in service.processes}))
        used = sum(memory.get(name, 0) for name in service.processes)
        mark = "[green]yes" if healthy else f"[red]no: {why}"
        table.add_row(service.name, state, mark, f"{used:,.0f} MB" if used else "–", service.url(settings))
    console.print(table)
    if memory:
        console.print(f"{sum(memory.values()) / 1000:.1f} GB of memory in total (shared pages counted once)")
    console.print(_loop(settings))


def who_draws(settings: Settings) -> dict[str, str]:
    """Return who draws pre-labels and who answers clicks, as `show_status` says it, or why that cannot be told."""
    texts = {}
    for name, describe in (("pre-labels by", _model), ("clicks by", _segmenter)):
        try:
            texts[name] = describe(settings)
        except MaskloopError as error:
            texts[name] = str(error)
    return texts


def _loop(settings: Settings) -> Table:
    table = Table(title="The loop", title_justify="left", show_header=False)
    rows = (
        ("tasks", _tasks), ("queue", _queue), ("remarks", _remarks), ("dataset", _dataset), ("blind", _blind),
        ("pre-labels by", _model), ("clicks by", _segmenter), ("disk", _disk),
        ("backup", _backup),
    )  # fmt: skip
    for name, describe in rows:
        try:
            table.add_row(name, describe(settings))
        except MaskloopError as error:
            table.add_row(name, f"[red]{error}")
    return table


def _tasks(settings: Settings) -> str:
    labels, params = connect(settings), load_params(settings.params_path)
    tasks = list(list_tasks(labels, find_project(labels, params)))
    annotated = sum(task.annotation_count > 0 for task in tasks)
    waiting = sum(not task.opened and not task.prediction_versions for task in tasks)
    return f"{len(tasks)}: {annotated} annotated, {len(tasks) - annotated} open, {waiting} of them not in the queue yet"


def _queue(settings: Settings) -> str:
    return describe_queue(load_params(settings.params_path).prelabel)


def _remarks(settings: Settings) -> str:
    labels, params = connect(settings), load_params(settings.params_path)
    doubts, skips = count_remarks(labels, find_project(labels, params))
    return f"{doubts} photos with a doubt, {skips} skipped" + "; see `maskloop remarks`" * bool(doubts + skips)


def _dataset(settings: Settings) -> str:
    workspace = Workspace(settings.workspace_path, settings)
    tags = workspace.dataset_tags() if settings.workspace_path.exists() else []
    if not tags:
        return "none yet"
    return f"{tags[-1]}: {workspace.git('tag', '--list', '--format=%(contents:subject)', tags[-1])}"


def _blind(settings: Settings) -> str:
    """Describe how many tasks are blind, and how many photos can judge models so far."""
    from pipelines.prelabel.blind import read_blindness

    labels, params = connect(settings), load_params(settings.params_path)
    tasks = list(list_tasks(labels, find_project(labels, params)))
    blindness = read_blindness(settings, params, tasks)
    unopened = [task for task in tasks if not task.opened]
    blind = sum(blindness.is_blind(task) for task in unopened)
    text = f"{blindness}; {blind} of {len(unopened)} open ones ({blind / max(1, len(unopened)):.0%})"
    if dirty := len(blindness.drawn_from_masks):
        text += f"; {dirty} test photos were drawn from masks and are served once more without"
    return text


def _backup(settings: Settings) -> str:
    if not is_bucket(settings.backup):
        return "none in a bucket; MASKLOOP_BACKUP names one"
    age = newest_backup(settings)
    return f"[red]{age}" if age.is_too_old else str(age)


def _disk(settings: Settings) -> str:
    disk = measure(settings)
    return f"[red]{disk}" if disk.is_low else str(disk)


def _model(settings: Settings) -> str:
    from pipelines.prelabel.blind import pause_reason

    version, labels = serving_model(settings)
    if not labels:
        return "no champion yet"
    paused = pause_reason(settings, version)
    return f"{version}, {len(labels)} labels" + (f"; paused, draws no masks: {paused}" if paused else "")


def _segmenter(settings: Settings) -> str:
    answer = get_health(settings.url(SEGMENT_ANYTHING))
    report = count_ready(connect(settings), settings, load_params(settings.params_path))
    ready = f"{_who_answers(answer['answers'])}; {report.ready} of the next {report.queued} photos are ready for clicks"
    if answer["measured"]:
        ready += f"; {answer['measured']}"
    return f"{ready} ({answer['fallback']})" if answer["fallback"] else ready


def _who_answers(by_kind: Mapping[str, str]) -> str:
    """Return who answers clicks, or who answers what where they are several."""
    if len(set(by_kind.values())) == 1:
        return next(iter(by_kind.values()))
    return ", ".join(f"{kind}: {version}" for kind, version in by_kind.items())
