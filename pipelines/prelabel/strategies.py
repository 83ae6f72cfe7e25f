"""Which photos come next: all by chance, or those of the least confidence first and a share by chance.

Label Studio's label stream serves tasks that hold a prediction of the project's model version ("uncertainty sampling";
with more than one annotator it picks among them at random). So the queue consists of the tasks that got predictions,
and it is kept at its length. The tab "Queue" of the Data Manager shows these tasks by score; whoever labels "as
displayed" from it gets them exactly in that order. Where all are chosen by chance, so is the score.

Photos that are served without masks (`blind`) are in the queue like others, in their share of all open photos.
"""

import json
import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from google.cloud.storage import Client

from pipelines.gcs import client as gcs
from pipelines.labelstudio.predictions import AT_RANDOM, UNCERTAIN
from pipelines.params import PrelabelParams
from pipelines.photos.decode import sha256_hex
from pipelines.records import Task

_FOLDER = "scores/"
_RETRY_AFTER_S = 6 * 3600


def describe(params: PrelabelParams) -> str:
    """Say how photos are chosen, and what is known of it, as status and the page of progress show it."""
    if params.strategy == "chance":
        return f"{params.ahead} photos ahead, all by chance: no other order was found to save people time"
    return (
        f"{params.ahead} photos ahead, least certain first, {params.random_share:.0%} by chance: on real photos this "
        "order saved no time"
    )


def is_random(task: Task, share: float) -> bool:
    """Return whether a photo is of the random share; that follows from its content, for every model and run."""
    return chance("random", task) < share


def reason_of(task: Task, params: PrelabelParams) -> str:
    """Return what the queue chooses a photo with masks for, as its labeler reads it: chance, or uncertainty."""
    return AT_RANDOM if is_random(task, params.by_chance) else UNCERTAIN


def next_tasks(
    tasks: Sequence[Task], cache: "ScoreCache", params: PrelabelParams, blind: Collection[int] = ()
) -> list[Task]:
    """Choose which of the unopened `tasks` join those that hold predictions already.

    The queue is filled up to `ahead`. Of the missing tasks, those whose id is in `blind` get their share of all
    `tasks`: whatever enters the queue leaves it again, so that this is also their share of what people are served. Of
    the others, the random share and the rest are filled up separately. Photos without a score come after those with
    one; photos whose prediction failed recently are left out. The same tasks and scores always give the same choice.
    """
    waiting = [t for t in tasks if t.prediction_versions]
    free = [t for t in tasks if not t.prediction_versions and (t.id in blind or not cache.recently_failed(t))]
    free.sort(key=lambda t: chance("order", t))
    unmasked = [t for t in free if t.id in blind]
    random = [t for t in free if t.id not in blind and is_random(t, params.by_chance)]
    by_score = [t for t in free if t.id not in blind and not is_random(t, params.by_chance)]
    by_score.sort(key=lambda t: cache.scores.get(t.image.sha256, 1.0))
    missing = max(0, params.ahead - len(waiting))

    blind_share = sum(t.id in blind for t in tasks) / max(1, len(tasks))
    wanted = max(_rounded(missing * blind_share, waiting), missing - len(random) - len(by_score))
    chosen = unmasked[: min(missing, wanted)]
    missing -= len(chosen)
    random_waiting = sum(is_random(t, params.by_chance) for t in waiting if t.id not in blind)
    random_target = round(params.ahead * (1 - blind_share) * params.by_chance)
    random_missing = min(missing, max(0, random_target - random_waiting))
    random_missing = min(len(random), max(random_missing, missing - len(by_score)))
    return [*chosen, *random[:random_missing], *by_score[: missing - random_missing]]


def _rounded(count: float, waiting: Iterable[Task]) -> int:
    """Round up or down so that the mean over time is `count`; the waiting tasks decide, as a reproducible chance."""
    return math.floor(count + chance_of("round", "".join(sorted(task.image.sha256 for task in waiting))))


def to_score(
    tasks: Iterable[Task], cache: "ScoreCache", params: PrelabelParams, blind: Collection[int] = ()
) -> list[Task]:
    """Choose which tasks to score: those of the pool, which is random but stays the same, that have no score yet.

    What is chosen by chance, such as tasks whose id is in `blind`, needs no score.
    """
    candidates = [
        t for t in tasks
        if t.id not in blind and not is_random(t, params.by_chance) and not cache.recently_failed(t)
    ]  # fmt: skip
    pool = sorted(candidates, key=lambda t: chance("pool", t))[: params.pool]
    return [task for task in pool if task.image.sha256 not in cache.scores]


@dataclass
class ScoreCache:
    """What one model version said of photos: scores (0..1) by sha256, and which photos it could not predict."""

    scores: dict[str, float] = field(default_factory=dict)
    failed_at: dict[str, float] = field(default_factory=dict)  # by sha256 and generation; seconds since 1970

    def recently_failed(self, task: Task) -> bool:
        """Return whether predicting a photo failed in the last hours; afterwards it is tried again."""
        return time.time() - self.failed_at.get(_photo_key(task), 0) < _RETRY_AFTER_S

    def record_failure(self, task: Task) -> None:
        """Record that a photo could not be predicted."""
        self.failed_at[_photo_key(task)] = round(time.time())


@dataclass(frozen=True)
class ScoreCacheFile:
    """The score cache of one model version, stored in the target bucket so that no photo is scored twice."""

    client: Client
    bucket: str
    version: str

    def read(self) -> ScoreCache:
        """Return what is stored, or an empty cache."""
        ref = gcs.stat(self.client, self.bucket, self._name)
        fields = json.loads(gcs.read(self.client, ref)) if ref else {}
        return ScoreCache(dict(fields.get("scores", {})), dict(fields.get("failed_at", {})))

    def write(self, cache: ScoreCache) -> None:
        """Replace what is stored."""
        scores = {key: round(score, 5) for key, score in sorted(cache.scores.items())}
        text = json.dumps({"scores": scores, "failed_at": dict(sorted(cache.failed_at.items()))}, indent=0)
        gcs.put(self.client, self.bucket, self._name, text.encode(), "application/json")

    @property
    def _name(self) -> str:
        return f"{_FOLDER}{self.version.replace(':', '-')}.json"


def _photo_key(task: Task) -> str:
    return f"{task.image.sha256}#{task.image.generation}"


def chance(purpose: str, task: Task) -> float:
    """Return a random number in 0..1 for a photo and a `purpose`; it follows from the photo's content."""
    return chance_of(purpose, task.image.sha256)


def chance_of(purpose: str, text: str) -> float:
    """Return the random number for a text, such as a photo's SHA-256; `chance` is that of a task's photo."""
    return int(sha256_hex(f"{purpose} {text}".encode())[:13], 16) / 16**13
