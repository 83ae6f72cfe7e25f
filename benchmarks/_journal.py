"""What several labelers did at once: how long they waited, who held which task, and what each submitted last."""

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipelines.labelstudio.brush_rle import rle_to_mask

Content = frozenset[tuple[str, str, str]]  # regions as id, label and hash of the mask; texts as field, "" and text


@dataclass(frozen=True)
class Hold:
    """A task that was served to somebody, until they sent it off; monotonic seconds."""

    task: int
    person: str
    begun: float
    ended: float


@dataclass(frozen=True)
class Submitted:
    """What an annotation holds, and whose it is."""

    person: str
    content: Content
    skipped: bool = False


@dataclass(frozen=True)
class Faults:
    """What Label Studio holds otherwise than people had it."""

    lost: int  # annotations that are not there
    differing: int  # regions and texts that are there otherwise, or not at all, or too many
    doubled: int  # annotations of a task beyond the first, and those that nobody knows of


@dataclass
class Journal:
    """What all labelers note, from their threads."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # by what was waited for
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    holds: list[Hold] = field(default_factory=list)
    submitted: dict[int, Submitted] = field(default_factory=dict)  # by task, the last state
    problems: list[str] = field(default_factory=list)
    _serving: dict[str, tuple[int, float]] = field(default_factory=dict)  # by person: the task held now, and since when
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long the block took, unless it failed."""
        begun = time.perf_counter()
        yield
        self.waited(what, time.perf_counter() - begun)

    def waited(self, what: str, seconds: float) -> None:
        """Note how long somebody waited for something."""
        with self._lock:
            self.seconds[what].append(seconds)

    def count(self, what: str) -> None:
        """Count something that a person did."""
        with self._lock:
            self.counts[what] += 1

    def problem(self, text: str) -> None:
        """Note something that failed."""
        with self._lock:
            self.problems.append(text)

    def served(self, task: int, person: str) -> None:
        """Note that a person was served a task and has it from now on."""
        with self._lock:
            self._end_hold(person)
            self._serving[person] = task, time.monotonic()

    def sending(self, person: str) -> None:
        """Note that a person sends the task off now: as soon as it is stored, others may have it."""
        with self._lock:
            self._end_hold(person)

    def stored(self, task: int, submitted: Submitted) -> None:
        """Note what a person has submitted."""
        with self._lock:
            self.submitted[task] = submitted

    def end(self) -> None:
        """End the holds of the tasks that people still have."""
        with self._lock:
            for person in list(self._serving):
                self._end_hold(person)

    def _end_hold(self, person: str) -> None:
        if person in self._serving:
            task, begun = self._serving.pop(person)
            self.holds.append(Hold(task, person, begun, time.monotonic()))


def content_of(result: Sequence[Mapping[str, Any]], alpha_threshold: int) -> Content:
    """Return what an annotation's result says, whatever bytes encode its masks."""
    content = set()
    for region in result:
        value = region["value"]
        if region["type"] == "brushlabels":
            size = region["original_height"], region["original_width"]
            mask = rle_to_mask(value["rle"], *size, threshold=alpha_threshold)
            content.add((str(region["id"]), str(value["brushlabels"][0]), hashlib.sha256(mask.tobytes()).hexdigest()))
        else:
            content.add((str(region["from_name"]), "", json.dumps(value, sort_keys=True)))
    return frozenset(content)


def compare(submitted: Mapping[int, Submitted], stored: Mapping[int, Sequence[Submitted]]) -> Faults:
    """Compare what people had last with what is stored, both by task."""
    lost = differing = doubled = 0
    for task in submitted.keys() | stored.keys():
        last, annotations = submitted.get(task), stored.get(task, ())
        own = [annotation for annotation in annotations if last and annotation.person == last.person]
        doubled += len(annotations) - bool(own)
        if last and not own:
            lost += 1
        elif last:
            differing += len({part[0] for part in last.content ^ own[0].content}) + (last.skipped != own[0].skipped)
    return Faults(lost, differing, doubled)


def served_twice(holds: Collection[Hold]) -> int:
    """Count the pairs of people who had one task at the same time."""
    by_task: dict[int, list[Hold]] = defaultdict(list)
    for hold in holds:
        by_task[hold.task].append(hold)
    return sum(
        first.person != second.person and first.begun < second.ended and second.begun < first.ended
        for same in by_task.values()
        for place, first in enumerate(same)
        for second in same[place + 1 :]
    )
