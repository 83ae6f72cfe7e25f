"""How much people have labelled since the last time that it was enough for a new dataset version."""

from dataclasses import dataclass

from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.params import load_params
from pipelines.settings import Settings

_PATIENCE = 3  # looks after which it is enough even while people go on


def count_annotations(settings: Settings) -> tuple[int, int]:
    """Return how many annotations the project holds, and how many new ones a training wants.

    Raise ServiceError when Label Studio does not answer, or there is no project yet.
    """
    labels, params = connect(settings), load_params(settings.params_path)
    project = labels.get(f"/api/projects/{find_project(labels, params)}/", include="total_annotations_number")
    return int(project["total_annotations_number"]), params.retrain.min_new_annotations


@dataclass
class Pace:
    """The number of annotations when it was enough last, when it was looked at last, and how long it has been enough.

    Whoever is labelling is waited for: it is enough once nothing was added between two looks, or after three looks.
    """

    counted: int | None = None
    last: int = 0
    looks: int = 0

    def is_enough(self, total: int, wanted: int) -> bool:
        """Return whether `wanted` annotations are new; from then on those are counted that come after `total`."""
        if self.counted is None or total < self.counted:  # the first look, or annotations were deleted
            self.counted = total
        self.looks = self.looks + 1 if total - self.counted >= wanted else 0
        resting, self.last = total == self.last, total
        if not self.looks or not (resting or self.looks > _PATIENCE):
            return False
        self.counted, self.looks = total, 0
        return True
