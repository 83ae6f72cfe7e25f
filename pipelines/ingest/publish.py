"""Photos become labeling tasks: created, updated, moved to where their bytes are now, and described by the catalogue.

A task belongs to bytes. When its object is no longer where it was and the same bytes appear elsewhere, the task follows
with everything that people did on it.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines.ingest.catalog import Catalog
from pipelines.ingest.intake import Problem, drop_duplicate_photos
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import delete_predictions, resize_predictions
from pipelines.labelstudio.tasks import create_tasks, delete_task, list_tasks, update_task
from pipelines.records import CATALOG_COLUMNS, ImageRef, Metadata, PhotoTask, Task

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """How many tasks were created, updated with other bytes or another generation, and moved; and duplicates."""

    created: int = 0
    updated: int = 0
    moved: int = 0
    duplicates: list[Problem] = field(default_factory=list)


class PhotoTasks:
    """The project's tasks, reconciled with the photos of a listing.

    `listed` are the addresses and generations of all photos of the listing, `tasks` those that there are before. By the
    SHA-256 of a photo, `more` holds what its task carries from the start beside the catalogue's metadata.
    """

    def __init__(
        self,
        labels: LabelStudioClient,
        project: int,
        tasks: Sequence[PhotoTask],
        listed: Collection[tuple[str, int]],
        catalog: Catalog,
        more: Mapping[str, Metadata] | None = None,
    ) -> None:
        self._labels, self._project, self._catalog, self._more = labels, project, catalog, more or {}
        self.unchanged = [task for task in tasks if (task.image.uri, task.image.generation) in listed]
        self._owners = {task.image.sha256: task.image.uri for task in self.unchanged}
        # Tasks whose object is no longer as it was: its bytes may be elsewhere now.
        self._stale = {task.id: task for task in tasks if (task.image.uri, task.image.generation) not in listed}
        self._stale_of: Mapping[str, set[int]] = defaultdict(set)
        for task in self._stale.values():
            self._stale_of[task.image.sha256].add(task.id)
            self._stale_of[task.image.uri].add(task.id)

    def publish(self, photos: Sequence[ImageRef]) -> Outcome:
        """Make each of these new photos the photo of one task.

        A task whose bytes these are takes the photo's address, and goes on showing what people drew on. Otherwise the
        address's task takes the photo's bytes, unless somebody worked on it; otherwise there is a new task. Who works
        on which is read at this moment, because reading the photos may have taken hours.
        """
        outcome = Outcome()
        unique, outcome.duplicates = drop_duplicate_photos(photos, self._owners)
        stale = {task_id for photo in unique for key in (photo.sha256, photo.uri) for task_id in self._stale_of[key]}
        stale &= self._stale.keys()
        current = (
            {task.id: task for task in list_tasks(self._labels, self._project, only=sorted(stale))} if stale else {}
        )
        created: list[tuple[ImageRef, Metadata]] = []
        for photo in unique:
            if not self._give_to_task(photo, current, outcome):
                created.append((photo, {**self._metadata(photo.uri), **self._more.get(photo.sha256, {})}))
        outcome.created = create_tasks(self._labels, self._project, created)
        return outcome

    def _give_to_task(self, photo: ImageRef, current: dict[int, Task], outcome: Outcome) -> bool:
        """Make a stale task show the photo; return whether there was one, which then is stale no more."""
        same = [task for task in current.values() if task.image.sha256 == photo.sha256]
        others = [
            task for task in current.values() if task.image.uri == photo.uri and task.image.sha256 != photo.sha256
        ]
        unopened = [task for task in others if not task.opened]
        if same:
            task = min(same, key=lambda task: (task.image.uri != photo.uri, not task.opened, task.id))
            if task.image.uri != photo.uri:
                logger.info("task %d moves from %s to %s", task.id, task.image.uri, photo.uri)
                outcome.moved += 1
            else:
                outcome.updated += 1
            photo = self._as_drawn_on(photo, task)
            for left in unopened:  # it would show the same photo as this task
                logger.warning("task %d shows %s, which is another photo now: it is deleted", left.id, photo.uri)
                delete_task(self._labels, left.id)
                self._no_longer_stale(left.id, current)
        elif unopened:
            task = min(unopened, key=lambda task: task.id)
            delete_predictions(self._labels, self._project, [task.id])
            outcome.updated += 1
        else:
            if others:
                logger.warning("%s was overwritten after somebody worked on it: it gets a new task", photo.uri)
            return False
        update_task(self._labels, self._project, task.id, photo, self._metadata(photo.uri))
        self._no_longer_stale(task.id, current)
        return True

    def _as_drawn_on(self, photo: ImageRef, task: Task) -> ImageRef:
        """Return the photo as its task shall show it: drawings and drafts stay at the size at which they were made.

        An unopened task shows the photo's copy, and its predictions are brought to that size.
        """
        before = task.image
        if photo.shown_size == before.shown_size:
            return photo
        if task.opened:
            return replace(photo, shown=before.shown, shown_height=before.shown_height, shown_width=before.shown_width)
        resize_predictions(self._labels, task.id, *photo.shown_size)
        return photo

    def show(self, tasks: Sequence[PhotoTask]) -> None:
        """Take note that these of the unchanged tasks show a copy now."""
        moved = {task.id: task for task in tasks}
        self.unchanged = [moved.get(task.id, task) for task in self.unchanged]

    def _no_longer_stale(self, task_id: int, current: dict[int, Task]) -> None:
        del current[task_id], self._stale[task_id]

    def describe(self) -> int:
        """Update unchanged tasks whose catalogue data changed; return how many. Without a row they stay as they are."""
        described = 0
        for task in self.unchanged:
            metadata = self._metadata(task.image.uri)
            in_catalog = self._catalog.find(_object_name(task.image.uri)) is not None
            if in_catalog and not metadata.items() <= task.metadata.items():
                update_task(self._labels, self._project, task.id, task.image, metadata)
                described += 1
        return described

    def gone(self, folder: str, listed: Collection[str]) -> list[Problem]:
        """Return a remark for each task whose bytes are nowhere in the listing.

        `folder` is the address below which photos are listed, `listed` the addresses that are.
        """
        return [
            Problem(
                task.image.uri, "gone", _what_happened(task, folder, listed), task.image.generation, set_aside=False
            )
            for task in self._stale.values()
        ]

    def _metadata(self, uri: str) -> Metadata:
        """Return a value for every catalogue column; for a missing one the interface would show its name."""
        return {**dict.fromkeys(CATALOG_COLUMNS[1:], "–"), **(self._catalog.find(_object_name(uri)) or {})}


def _what_happened(task: PhotoTask, folder: str, listed: Collection[str]) -> str:
    if task.image.uri in listed:
        what = "other bytes are stored there now, and the photo's own are nowhere else"
    elif not task.image.uri.startswith(folder):
        what = f"it is not below {folder}, where photos are expected"
    else:
        what = "the object was deleted, and its bytes are nowhere else"
    return (
        f"task {task.id} shows it; {what}. What was drawn stays in the dataset as long as the bucket keeps the older "
        "bytes; upload the photo again anywhere below the prefix and the task follows, or delete the task"
    )


def _object_name(uri: str) -> str:
    return uri.removeprefix("gs://").partition("/")[2]
