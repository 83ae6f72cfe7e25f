"""Which photos come next: the least certain ones first, with a share that chance chose.

Label Studio's labeling stream serves, to several people at once and each task to one of them, the tasks that hold a
prediction of the project's model version («uncertainty sampling»; with more than one person it picks among them by
chance). So the queue is made by giving predictions to the next tasks only, and by topping them up. The tab «Queue» of
the Data Manager shows these by score; who labels «as displayed» from it gets them exactly in that order.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.cloud.storage import Client

from pipelines import storage
from pipelines.images import sha256_hex
from pipelines.params import PrelabelParams
from pipelines.records import Task

_FOLDER = "scores/"


def is_random(task: Task, share: float) -> bool:
    """Tell whether chance chose this photo: a property of its content, so that it holds for every model and run."""
    return _chance("random", task) < share


def next_tasks(tasks: Sequence[Task], scores: Mapping[str, float], params: PrelabelParams) -> list[Task]:
    """Choose which of the unopened `tasks` are to hold predictions.

    `scores` gives what the serving model thinks of its own masks, by photo (0..1, low is uncertain). Photos without a
    score come after those with one. The same tasks and scores always give the same choice.
    """
    random = sorted((t for t in tasks if is_random(t, params.random_share)), key=lambda t: _chance("order", t))
    certain = [t for t in tasks if not is_random(t, params.random_share)]
    certain.sort(key=lambda t: (scores.get(t.image.sha256, 1.0), _chance("order", t)))
    wanted = round(params.ahead * params.random_share)
    by_chance = random[: max(wanted, params.ahead - len(certain))]
    return [*by_chance, *certain[: params.ahead - len(by_chance)]]


def to_score(tasks: Iterable[Task], scores: Mapping[str, float], params: PrelabelParams) -> list[Task]:
    """Choose which tasks to score: those of the pool, which chance chose once, that have no score yet."""
    candidates = [t for t in tasks if not is_random(t, params.random_share)]
    pool = sorted(candidates, key=lambda t: _chance("pool", t))[: params.pool]
    return [task for task in pool if task.image.sha256 not in scores]


@dataclass(frozen=True)
class ScoreLedger:
    """Scores of one model version, kept in the target bucket so that no photo is scored twice."""

    client: Client
    bucket: str
    version: str

    def read(self) -> dict[str, float]:
        """Give score (0..1) by the photo's sha256."""
        there = storage.stat(self.client, self.bucket, self._name)
        return dict(json.loads(storage.read(self.client, there))) if there else {}

    def write(self, scores: Mapping[str, float]) -> None:
        """Keep these scores instead."""
        text = json.dumps({key: round(score, 5) for key, score in sorted(scores.items())}, indent=0)
        storage.put(self.client, self.bucket, self._name, text.encode(), "application/json")

    @property
    def _name(self) -> str:
        return f"{_FOLDER}{self.version.replace(':', '-')}.json"


def _chance(purpose: str, task: Task) -> float:
    return int(sha256_hex(f"{purpose} {task.image.sha256}".encode())[:13], 16) / 16**13
