"""Which photos come next: the least certain ones first, with a share that chance chose, and the blind ones by chance.

Label Studio's labeling stream serves, to several people at once and each task to one of them, the tasks that hold a
prediction of the project's model version («uncertainty sampling»; with more than one person it picks among them by
chance). So the queue is made by giving predictions to the next tasks only, and by topping them up. The tab «Queue» of
the Data Manager shows these by score; who labels «as displayed» from it gets them exactly in that order.

Photos that are handed out without masks (`blind`) are in the queue like others, in their share of what is open.
"""

import json
import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from google.cloud.storage import Client

from pipelines.gcs import client as gcs
from pipelines.params import PrelabelParams
from pipelines.photos.decode import sha256_hex
from pipelines.records import Task

_FOLDER = "scores/"
_TRY_AGAIN_S = 6 * 3600


def is_random(task: Task, share: float) -> bool:
    """Tell whether chance chose this photo: a property of its content, so that it holds for every model and run."""
    return chance("random", task) < share


def next_tasks(
    tasks: Sequence[Task], ledger: "Ledger", params: PrelabelParams, blind: Collection[int] = ()
) -> list[Task]:
    """Choose which of the unopened `tasks` join those that hold predictions already.

    The queue is filled up to `ahead`. Of what is missing, tasks whose id is in `blind` get their share of all `tasks`:
    what enters leaves again, so that this is their share of what people are given, in whatever order that happens. Of
    the others the random share and the rest are filled up each by itself. Photos without a score come after those with
    one; photos that could not be predicted lately are left out. The same tasks and scores always give the same choice.
    """
    waiting = [t for t in tasks if t.prediction_versions]
    free = [t for t in tasks if not t.prediction_versions and (t.id in blind or not ledger.is_hopeless(t))]
    free.sort(key=lambda t: chance("order", t))
    unseen = [t for t in free if t.id in blind]
    random = [t for t in free if t.id not in blind and is_random(t, params.random_share)]
    certain = [t for t in free if t.id not in blind and not is_random(t, params.random_share)]
    certain.sort(key=lambda t: ledger.scores.get(t.image.sha256, 1.0))
    missing = max(0, params.ahead - len(waiting))

    blind_share = sum(t.id in blind for t in tasks) / max(1, len(tasks))
    wanted = max(_rounded(missing * blind_share, waiting), missing - len(random) - len(certain))
    chosen = unseen[: min(missing, wanted)]
    missing -= len(chosen)
    held = sum(is_random(t, params.random_share) for t in waiting if t.id not in blind)
    ahead = round(params.ahead * (1 - blind_share) * params.random_share)
    by_chance = min(missing, max(0, ahead - held))
    by_chance = min(len(random), max(by_chance, missing - len(certain)))
    return [*chosen, *random[:by_chance], *certain[: missing - by_chance]]


def _rounded(count: float, waiting: Iterable[Task]) -> int:
    """Round up or down so that the mean is right over time; what waits already decides in the place of chance."""
    return math.floor(count + chance_of("round", "".join(sorted(task.image.sha256 for task in waiting))))


def to_score(
    tasks: Iterable[Task], ledger: "Ledger", params: PrelabelParams, blind: Collection[int] = ()
) -> list[Task]:
    """Choose which tasks to score: those of the pool, which chance chose once, that have no score yet.

    Those whose id is in `blind` come by chance and need none.
    """
    candidates = [
        t for t in tasks
        if t.id not in blind and not is_random(t, params.random_share) and not ledger.is_hopeless(t)
    ]  # fmt: skip
    pool = sorted(candidates, key=lambda t: chance("pool", t))[: params.pool]
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
        there = gcs.stat(self.client, self.bucket, self._name)
        kept = json.loads(gcs.read(self.client, there)) if there else {}
        return Ledger(dict(kept.get("scores", {})), dict(kept.get("failed_at", {})))

    def write(self, ledger: Ledger) -> None:
        """Keep this instead."""
        scores = {key: round(score, 5) for key, score in sorted(ledger.scores.items())}
        text = json.dumps({"scores": scores, "failed_at": dict(sorted(ledger.failed_at.items()))}, indent=0)
        gcs.put(self.client, self.bucket, self._name, text.encode(), "application/json")

    @property
    def _name(self) -> str:
        return f"{_FOLDER}{self.version.replace(':', '-')}.json"


def _photo_key(task: Task) -> str:
    return f"{task.image.sha256}#{task.image.generation}"


def chance(purpose: str, task: Task) -> float:
    """Give a number in 0..1 by which chance decides something for a photo; it follows from its content."""
    return chance_of(purpose, task.image.sha256)


def chance_of(purpose: str, text: str) -> float:
    """Give the same number for a photo's SHA-256 alone, as manifests name photos."""
    return int(sha256_hex(f"{purpose} {text}".encode())[:13], 16) / 16**13
