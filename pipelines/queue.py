"""Which photos come next: the least certain ones first, with a share that chance chose.

Label Studio's labeling stream serves, to several people at once and each task to one of them, the tasks that hold a
prediction of the project's model version («uncertainty sampling»; with more than one person it picks among them by
chance). So the queue is made by giving predictions to the next tasks only, and by topping them up. The tab «Queue» of
the Data Manager shows these by score; who labels «as displayed» from it gets them exactly in that order.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.cloud.storage import Client

from pipelines import storage
from pipelines.images import sha256_hex
from pipelines.params import PrelabelParams
from pipelines.records import Task

_FOLDER = "scores/"
_TRY_AGAIN_S = 6 * 3600


def is_random(task: Task, share: float) -> bool:
    """Tell whether chance chose this photo: a property of its content, so that it holds for every model and run."""
    return _chance("random", task) < share


def next_tasks(tasks: Sequence[Task], ledger: "Ledger", params: PrelabelParams) -> list[Task]:
    """Choose which of the unopened `tasks` join those that hold predictions already.

    The queue is filled up to `ahead`, its random share and the rest each by themselves. Photos without a score come
    after those with one; photos that could not be predicted lately are left out. The same tasks and scores always give
    the same choice.
    """
    waiting = [t for t in tasks if t.prediction_versions]
    free = [t for t in tasks if not t.prediction_versions and not ledger.is_hopeless(t)]
    random = sorted((t for t in free if is_random(t, params.random_share)), key=lambda t: _chance("order", t))
    certain = [t for t in free if not is_random(t, params.random_share)]
    certain.sort(key=lambda t: (ledger.scores.get(t.image.sha256, 1.0), _chance("order", t)))
    missing = max(0, params.ahead - len(waiting))
    held = sum(is_random(t, params.random_share) for t in waiting)
    by_chance = min(missing, max(0, round(params.ahead * params.random_share) - held))
    by_chance = min(len(random), max(by_chance, missing - len(certain)))
    return [*random[:by_chance], *certain[: missing - by_chance]]


def to_score(tasks: Iterable[Task], ledger: "Ledger", params: PrelabelParams) -> list[Task]:
    """Choose which tasks to score: those of the pool, which chance chose once, that have no score yet."""
    candidates = [t for t in tasks if not is_random(t, params.random_share) and not ledger.is_hopeless(t)]
    pool = sorted(candidates, key=lambda t: _chance("pool", t))[: params.pool]
    return [task for task in pool if task.image.sha256 not in ledger.scores]


@dataclass
class Ledger:
    """What is known of photos under one model version: scores (0..1) by sha256, and which could not be predicted."""

    scores: dict[str, float] = field(default_factory=dict)
    failed_at: dict[str, float] = field(default_factory=dict)  # by sha256 and generation; seconds since 1970

    def is_hopeless(self, task: Task) -> bool:
        """Tell whether a photo could not be predicted lately; it is tried again some hours later."""
        return time.time() - self.failed_at.get(_photo_key(task), 0) < _TRY_AGAIN_S

    def note_failure(self, task: Task) -> None:
        """Remember that a photo could not be predicted."""
        self.failed_at[_photo_key(task)] = round(time.time())


@dataclass(frozen=True)
class LedgerFile:
    """The ledger of one model version, kept in the target bucket so that no photo is scored twice."""

    client: Client
    bucket: str
    version: str

    def read(self) -> Ledger:
        """Give what is kept, or an empty ledger."""
        there = storage.stat(self.client, self.bucket, self._name)
        kept = json.loads(storage.read(self.client, there)) if there else {}
        return Ledger(dict(kept.get("scores", {})), dict(kept.get("failed_at", {})))

    def write(self, ledger: Ledger) -> None:
        """Keep this instead."""
        scores = {key: round(score, 5) for key, score in sorted(ledger.scores.items())}
        text = json.dumps({"scores": scores, "failed_at": dict(sorted(ledger.failed_at.items()))}, indent=0)
        storage.put(self.client, self.bucket, self._name, text.encode(), "application/json")

    @property
    def _name(self) -> str:
        return f"{_FOLDER}{self.version.replace(':', '-')}.json"


def _photo_key(task: Task) -> str:
    return f"{task.image.sha256}#{task.image.generation}"


def _chance(purpose: str, task: Task) -> float:
    return int(sha256_hex(f"{purpose} {task.image.sha256}".encode())[:13], 16) / 16**13
