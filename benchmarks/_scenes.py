"""Tasks in a running stack whose true masks are known, each with a pre-label that is partly damaged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks._photos import photo_files
from pipelines.gcs import client as gcs
from pipelines.ingest.intake import PhotoIntake
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.predictions import UNCERTAIN, push_predictions, with_reason
from pipelines.labelstudio.project import connect_copies, find_project, show_predictions_of
from pipelines.labelstudio.render import prediction_json, region_id
from pipelines.labelstudio.schema import PredictionJson, RegionJson
from pipelines.labelstudio.tasks import create_tasks, list_tasks
from pipelines.params import IGNORE, Params
from pipelines.photos.copies import resample_mask
from pipelines.photos.decode import sha256_hex
from pipelines.records import ImageRef, Prediction, RegionScore
from pipelines.settings import Settings
from pipelines.training.click_simulation import damaged

VERSION = "bench:v1"  # the model version that pre-labels carry
_SMALLEST = 0.004  # share of the photo; smaller garments stay as they are
_DAMAGED_IOU = 0.4, 0.85  # masks that people correct, as `effort` of params.yaml says
_ATTEMPTS = 40
_AT_ONCE = 50  # predictions in a request


@dataclass(frozen=True)
class Scene:
    """A task with what is true and what is proposed, both at the size (height, width) at which the page shows it."""

    task: int
    image: ImageRef
    truth: NDArray[np.uint8]  # (H, W) ids of params.yaml; IGNORE where nobody knows
    proposed: tuple[RegionJson, ...]
    damaged: tuple[str, ...]  # labels of the regions to correct

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Return the pixels that count, (H, W)."""
        return self.truth != IGNORE

    def region_of(self, label: str) -> str:
        """Return the id of the region that is proposed for a label."""
        return region_id(VERSION, label)

    def iou(self, mask: NDArray[np.bool_], label_id: int) -> float:
        """Return the IoU of a (H, W) mask with the true one, over the pixels that count."""
        return iou(mask & self.judged, self.truth == label_id)


def make_scenes(settings: Settings, params: Params, count: int, damages: int, seed: int = 0) -> list[Scene]:
    """Upload `count` photos and make their tasks; up to `damages` garments of each are damaged.

    Photos without a garment that can be damaged are left out. Return fewer where MASKLOOP_CCP has not so many.
    """
    chance = np.random.default_rng(seed)
    bucket, labels = gcs.connect(settings), connect(settings)
    project = find_project(labels, params)
    intake = PhotoIntake(bucket, 100, settings.target_bucket, editor_megapixels=params.ingest.editor_megapixels)
    scenes: dict[str, Scene] = {}
    for file, truth in photo_files(params, count, chance):
        name = f"{settings.source_prefix}bench-{seed}-{len(scenes):05d}.jpg"
        image, _ = intake.read(gcs.put(bucket, settings.source_bucket, name, file, "image/jpeg"))
        assert isinstance(image, ImageRef), image
        shown = resample_mask(truth, *image.shown_size)
        mask, names = damaged_index_mask(shown, params, damages, chance)
        if names:
            scenes[sha256_hex(file)] = Scene(0, image, shown, _proposed(mask, params), names)
    if any(scene.image.shown for scene in scenes.values()):
        connect_copies(labels, project, settings)
    create_tasks(labels, project, [(scene.image, {}) for scene in scenes.values()])
    task_of = {task.image.sha256: task.id for task in list_tasks(labels, project)}
    made = [replace(scene, task=task_of[sha256]) for sha256, scene in scenes.items()]
    for start in range(0, len(made), _AT_ONCE):
        part = made[start : start + _AT_ONCE]
        push_predictions(labels, project, {scene.task: _prediction_of(scene, chance) for scene in part})
    show_predictions_of(labels, project, VERSION)
    return made


def damaged_index_mask(
    truth: NDArray[np.uint8], params: Params, damages: int, chance: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Damage up to `damages` garments of a (H, W) index mask; return the mask and the labels that were damaged.

    Every damaged garment then has an IoU with its truth from 0.4 to 0.85, over the pixels that are not `IGNORE`.
    """
    mask = np.where(truth == IGNORE, 0, truth).astype(np.uint8)
    ids, pixels = np.unique(mask[mask > 0], return_counts=True)
    large = chance.permutation(ids[pixels >= _SMALLEST * mask.size])
    names: list[str] = []
    for label_id in large[:damages]:
        changed = _with_damage(mask, truth, int(label_id), [params.label_ids[name] for name in names], chance)
        if changed is not None:
            mask = changed
            names.append(params.label_names[int(label_id)])
    return mask, tuple(names)


def iou(one_mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the IoU of two masks of one size; 1 for two empty ones."""
    union = np.count_nonzero(one_mask | other)
    return np.count_nonzero(one_mask & other) / union if union else 1.0


def _with_damage(
    mask: NDArray[np.uint8], truth: NDArray[np.uint8], label_id: int, earlier: Sequence[int],
    chance: np.random.Generator,
) -> NDArray[np.uint8] | None:  # fmt: skip
    """Damage one garment of an index mask, and leave every garment within the limits; None when chance finds no way."""
    wanted, judged = truth == label_id, truth != IGNORE
    for _ in range(_ATTEMPTS):
        garment = damaged(wanted, (truth > 0) & judged & ~wanted, chance)
        changed = np.where(mask == label_id, 0, mask).astype(np.uint8)
        changed[garment] = label_id
        left = set(np.unique(changed)) == set(np.unique(mask))
        of_interest = (label_id, *earlier)
        ious = [iou((changed == label) & judged, truth == label) for label in of_interest]
        if left and all(_DAMAGED_IOU[0] <= value < _DAMAGED_IOU[1] for value in ious):
            return changed
    return None


def _proposed(mask: NDArray[np.uint8], params: Params) -> tuple[RegionJson, ...]:
    regions = tuple(RegionScore(params.label_names[int(n)], int(n), 0.8) for n in np.unique(mask) if n)
    return tuple(with_reason(prediction_json(Prediction(mask, regions, 0.8, VERSION)), UNCERTAIN)["result"])


def _prediction_of(scene: Scene, chance: np.random.Generator) -> PredictionJson:
    score = float(chance.uniform(0.3, 0.9))  # the order in which the queue serves
    return {"result": list(scene.proposed), "score": score, "model_version": VERSION}
