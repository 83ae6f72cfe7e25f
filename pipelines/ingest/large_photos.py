"""Tasks that show large photos at their own size: they show smaller copies as long as nobody worked on them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import islice

from pipelines.ingest.intake import PhotoIntake, Problem
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.predictions import resize_predictions
from pipelines.labelstudio.tasks import list_tasks, locked_tasks, update_task
from pipelines.photos.copies import exceeds
from pipelines.records import ImageRef, ObjectRef, PhotoTask

_CHUNK = 500  # photos read before their tasks are updated


class LargePhotos:
    """Tasks that show more than `megapixels` (0: none), except photos whose SHA-256 is in `full_size`.

    `connect` lets Label Studio show copies; it is called before the first task shows one.
    """

    def __init__(
        self, labels: LabelStudioClient, project: int, megapixels: float, full_size: Collection[str],
        connect: Callable[[], object],
    ) -> None:  # fmt: skip
        self._labels, self._project, self._connect = labels, project, connect
        self._megapixels, self._full_size = megapixels, full_size

    def show_copies(
        self, tasks: Sequence[PhotoTask], objects: Sequence[ObjectRef], intake: PhotoIntake, pool: Executor
    ) -> Iterator[tuple[list[PhotoTask], list[Problem]]]:
        """Make tasks that nobody works on show copies; yield the tasks that do now, and what cannot be read, in parts.

        Who works on which is read at this moment, because reading the photos may take hours. The masks of predictions
        are brought to the size of the copy. Tasks with an annotation or a draft stay as they are.
        """
        large = [task for task in tasks if self._is_large(task)]
        by_address = {(task.image.uri, task.image.generation): task for task in self._free(large)}
        refs = iter([ref for ref in objects if (ref.uri, ref.generation) in by_address])
        while part := list(islice(refs, _CHUNK)):
            results = [result for result, _ in pool.map(intake.read, part)]
            moved = [
                replace(by_address[image.uri, image.generation], image=image)
                for image in results
                if isinstance(image, ImageRef)
            ]
            problems = [replace(problem, set_aside=False) for problem in results if isinstance(problem, Problem)]
            yield self._update(moved), problems

    def _update(self, moved: Sequence[PhotoTask]) -> list[PhotoTask]:
        free = self._free(moved)
        if free:
            self._connect()
        for task in free:
            resize_predictions(self._labels, task.id, *task.image.shown_size)
            update_task(self._labels, self._project, task.id, task.image, {})
        return free

    def _is_large(self, task: PhotoTask) -> bool:
        return exceeds(*task.image.shown_size, self._megapixels) and task.image.sha256 not in self._full_size

    def _free(self, tasks: Sequence[PhotoTask]) -> list[PhotoTask]:
        """Return those of the tasks that have no annotation and no draft, and that were served to nobody."""
        if not tasks:
            return []
        locked = locked_tasks(self._labels, self._project)
        current = list_tasks(self._labels, self._project, only=[task.id for task in tasks])
        free = {task.id for task in current if not task.opened and task.id not in locked}
        return [task for task in tasks if task.id in free]
