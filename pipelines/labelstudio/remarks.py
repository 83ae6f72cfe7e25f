"""What labelers say about photos: doubts in words, and the reasons of skips; and how both reach the tab "Review".

A doubt is the text of a field of the labeling interface, and a part of the annotation. A skip is a cancelled
annotation; its reason is the text of a hidden field, for which the page asks. Both are read from Label Studio and not
from a dataset: datasets hold no skips, and a question should not wait for the next version.

The text that a task shows in "Review" is `rank · remark · reason`, of which the remark or the reason may be missing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.labelstudio.annotations import export_tasks
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.controls import DOUBT, SKIP_REASON
from pipelines.labelstudio.schema import RegionJson, TaskJson
from pipelines.labelstudio.tasks import REVIEW, is_maskloop_task, list_task_json

NO_REASON = "none given"
_SEPARATOR = " · "
_IN_DOUBT, _SKIPPED = "doubt: ", "skipped: "
_FIRST, _LAST = "0", "9"  # ranks of remarks that came after the last review
_LONGEST_TEXT = 200  # characters
_PAGE = 500


@dataclass(frozen=True)
class Remark:
    """What people say about one photo: the task's id, the photo's SHA-256, and their words; either may be empty."""

    task: int
    photo: str
    doubts: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()  # the reasons

    @property
    def is_doubt(self) -> bool:
        """Return whether somebody is in doubt, and not only skipped the photo."""
        return bool(self.doubts)

    def __str__(self) -> str:
        """Return the words as a task shows them, such as "doubt: dress or skirt?"."""
        doubts, skips = ("; ".join(dict.fromkeys(texts)) for texts in (self.doubts, self.skips))
        return f"{_IN_DOUBT}{doubts}" + f"; {_SKIPPED}{skips}" * bool(skips) if doubts else f"{_SKIPPED}{skips}"


def read_remarks(client: LabelStudioClient, project_id: int) -> list[Remark]:
    """Return all doubts and skips of the project, doubts first, in the order of the tasks' ids."""
    return _read(client, project_id, [int(task["id"]) for task in _remarked(client, project_id)])


def count_remarks(client: LabelStudioClient, project_id: int) -> tuple[int, int]:
    """Return how many photos somebody is in doubt about, and how many somebody skipped, without reading the words."""
    doubted, skipped = (
        sum(map(is_maskloop_task, _matching(client, project_id, [item]))) for item in (_DOUBTED, _CANCELLED)
    )
    return doubted, skipped


def show_remarks(client: LabelStudioClient, project_id: int) -> list[Remark]:
    """Show new doubts and skips in the tab "Review", and take away those that are gone; return the new ones.

    All other parts of the tasks' texts stay, so that this may run between two reviews. Skips that are shown already are
    not read again. No other writer of task data (ingest) may run meanwhile.
    """
    remarked = {int(task["id"]): task for task in _remarked(client, project_id)}
    read_again = [number for number, task in remarked.items() if not _shown(task).startswith(_SKIPPED)]
    remarks = {remark.task: remark for remark in _read(client, project_id, read_again)}
    new = [remark for remark in remarks.values() if _shown(remarked[remark.task]) != str(remark)]
    for remark in new:
        _write(client, project_id, remark.task, remark)
    valid = remarks.keys() | remarked.keys() - set(read_again)
    for task in list(_matching(client, project_id, [_WITH_TEXT])):
        if _shown(task) and task["id"] not in valid:
            _write(client, project_id, task["id"], None)
    return new


def serve_skipped_again(client: LabelStudioClient, project_id: int, tasks: Collection[int]) -> list[int]:
    """Delete the skips of these tasks, so that the label stream serves them; return the ids of those that had one."""
    served = []
    for task in export_tasks(client, project_id, sorted(tasks)):
        skips = [raw for raw in task.get("annotations", ()) if raw["was_cancelled"]]
        for raw in skips:
            client.delete(f"/api/annotations/{raw['id']}/")
        if skips:
            served.append(int(task["id"]))
    return served


def with_remark(text: str, remark: Remark | None) -> str:
    """Return the text of a task in "Review" with this remark in place of the one it has; None takes it away."""
    rank, reasons = _split(text)
    parts = [str(remark), *reasons] if remark else reasons
    if remark and (remark.is_doubt or not rank):
        rank = _FIRST if remark.is_doubt else _LAST
    return _SEPARATOR.join([rank, *parts]) if parts else ""


def remark_of(task: TaskJson) -> Remark:
    """Return what people say about the photo of a task's export JSON."""
    doubts: list[str] = []
    skips: list[str] = []
    for raw in task.get("annotations", ()):
        doubts += _texts(raw["result"] or (), DOUBT)
        if raw["was_cancelled"]:
            skips.append(next(iter(_texts(raw["result"] or (), SKIP_REASON)), NO_REASON))
    return Remark(int(task["id"]), str(task["data"]["sha256"]), tuple(doubts), tuple(skips))


def _read(client: LabelStudioClient, project_id: int, tasks: Sequence[int]) -> list[Remark]:
    exported = filter(is_maskloop_task, export_tasks(client, project_id, tasks))
    remarks = [remark for remark in map(remark_of, exported) if remark.doubts or remark.skips]
    return sorted(remarks, key=lambda remark: (not remark.is_doubt, remark.task))


# Label Studio searches the annotations itself, so that only those that say something travel.
_DOUBTED = {
    "filter": "filter:tasks:annotations_results",
    "operator": "contains",
    "type": "String",
    "value": f'"{DOUBT}"',
}
_CANCELLED = {"filter": "filter:tasks:cancelled_annotations", "operator": "greater", "type": "Number", "value": 0}
_WITH_TEXT = {"filter": f"filter:tasks:data.{REVIEW}", "operator": "regex", "type": "String", "value": "."}


def _remarked(client: LabelStudioClient, project_id: int) -> Iterator[TaskJson]:
    return filter(is_maskloop_task, _matching(client, project_id, [_DOUBTED, _CANCELLED]))


def _matching(client: LabelStudioClient, project_id: int, items: Sequence[Mapping[str, Any]]) -> Iterator[TaskJson]:
    query = {"filters": {"conjunction": "or", "items": list(items)}}
    return list_task_json(client, project_id, page_size=_PAGE, query=query)


def _write(client: LabelStudioClient, project_id: int, task_id: int, remark: Remark | None) -> None:
    """Write a remark to the data of a task, which is read right before, because it is written as a whole."""
    only = {"selectedItems": {"all": False, "included": [task_id]}}
    for task in list(list_task_json(client, project_id, page_size=1, query=only)):
        data = {**task["data"], REVIEW: with_remark(_text(task), remark)}
        client.patch(f"/api/tasks/{task_id}/", {"data": data})


def _texts(result: Iterable[RegionJson], field: str) -> Iterator[str]:
    """Yield the texts of a field, on one line each and without the sign that separates the parts of a review."""
    for item in result:
        value = item.get("value") if isinstance(item, Mapping) and item.get("from_name") == field else None
        texts: Any = value.get("text") if isinstance(value, Mapping) else None
        for text in texts if isinstance(texts, list) else filter(None, [texts]):
            if words := " ".join(str(text).replace("·", "-").split()):
                yield words if len(words) <= _LONGEST_TEXT else f"{words[:_LONGEST_TEXT]}…"


def _text(task: TaskJson) -> str:
    return str(task["data"].get(REVIEW) or "")


def _shown(task: TaskJson) -> str:
    """Return the remark that a task shows in "Review"."""
    parts = _text(task).split(_SEPARATOR)
    return parts[1] if len(parts) > 1 and parts[1].startswith((_IN_DOUBT, _SKIPPED)) else ""


def _split(text: str) -> tuple[str, list[str]]:
    """Return the rank of a task's text, and its parts that are no remark."""
    rank, *parts = text.split(_SEPARATOR)
    return rank, [part for part in parts if not part.startswith((_IN_DOUBT, _SKIPPED))]
