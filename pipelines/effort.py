"""What pre-labels were worth: each submitted annotation against the prediction it started from."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import AnnotationError, ContractError
from pipelines.labelstudio.annotations import annotated_tasks, started_from_its_prediction
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.regions import CompiledMask, compile_regions
from pipelines.labelstudio.tasks import parse_image
from pipelines.params import Params
from pipelines.training.metrics import Confusion

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Effort:
    """Sums over annotated tasks; `prelabel_miou` is NaN when no annotation started from a prediction."""

    annotations: int
    regions: int
    untouched: int
    median_seconds: float
    prelabel_miou: float

    @property
    def untouched_share(self) -> float:
        """Give the share of submitted regions that are predictions nobody changed: 0..1."""
        return self.untouched / self.regions if self.regions else 0.0


def measure_effort(
    client: LabelStudioClient, project_id: int, params: Params, only: Collection[int] | None = None
) -> Effort:
    """Compare predictions with what people made of them, for all annotated tasks or those of the ids in `only`.

    The mIoU of pre-labels is taken over all pixels of these photos and the classes that people submitted, background
    included.
    """
    confusion, origins = Confusion(len(params.labels) + 1), Counter[str]()
    seconds: list[float] = []
    for task in annotated_tasks(client, project_id, only):
        for annotation in task["annotations"]:
            if annotation["was_cancelled"]:
                continue
            try:
                submitted = _compiled(annotation["result"], task, params)
            except (AnnotationError, ContractError) as error:
                logger.warning("annotation %s is left out: %s", annotation["unique_id"], error)
                continue
            origins.update(submitted.origins)
            seconds.append(float(annotation["lead_time"] or 0))
            if started_from_its_prediction(annotation):
                proposed = _compiled(annotation["prediction"]["result"], task, params)
                confusion.add(_channels(proposed.mask, params), _channels(submitted.mask, params))
    total = sum(origins.values())
    median = float(np.median(seconds)) if seconds else 0.0
    return Effort(len(seconds), total, origins["prediction"], median, confusion.miou())


def _compiled(result: Any, task: Mapping[str, Any], params: Params) -> CompiledMask:
    image, settings = parse_image(task["data"]), params.compile
    return compile_regions(
        result, params.label_ids, image.height, image.width, settings.alpha_threshold, settings.strongest
    )


def _channels(mask: np.ndarray, params: Params) -> np.ndarray:
    lookup = np.zeros(256, np.uint8)
    for channel, label in enumerate(params.labels, start=1):
        lookup[label.id] = channel
    return lookup[mask]
