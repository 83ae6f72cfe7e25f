"""The value of a round: photos are labelled batch by batch by people who know the true mask, by chance or as queued.

After every batch a model is trained on all labelled photos and measured on the test photos. The next batch is labelled
from its masks; the time saved is that of a simulated labeler, against drawing everything by hand. Each step has a
folder of its own, so a simulation that was ended resumes where it was.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import IMAGES, MANIFEST, MASKS, MODEL
from pipelines.demo.labelers import correct
from pipelines.errors import ConfigurationError
from pipelines.exchange.as_dataset import write_dataset
from pipelines.exchange.masked_photos import MaskedPhotos
from pipelines.fs import write_atomically
from pipelines.labelstudio.render import prediction_json
from pipelines.params import Params
from pipelines.photos.decode import sha256_hex
from pipelines.prelabel.strategies import ScoreCache, next_tasks
from pipelines.records import ImageRef, Task
from pipelines.segmentation.model import ClothingModel, load_model
from pipelines.segmentation.runtime import max_concurrency
from pipelines.training.data import photos_in
from pipelines.training.evaluate import evaluate_model
from pipelines.training.train import train, training_code

logger = logging.getLogger(__name__)
RANDOM, QUEUE = "random", "queue"
_STEP = "step.json"


@dataclass(frozen=True)
class Step:
    """One batch: which photos were labelled in all, the model's mIoU on the test photos, and the people's seconds.

    `seconds` is what the newest batch took from pre-labels of the model before, `by_hand` what it takes from nothing.
    """

    order: str
    seed: int
    labelled: tuple[str, ...]
    miou: float
    seconds: float
    by_hand: float

    @property
    def saved_share(self) -> float:
        """Return the share of the time that pre-labels saved on this batch; below 0 when they cost time."""
        return 1 - self.seconds / self.by_hand


def simulate(
    source: MaskedPhotos, params: Params, folder: Path, sizes: Sequence[int], seeds: Sequence[int], steps: int
) -> Iterator[Step]:
    """Yield the steps of both orders for each seed, as they are done; `steps` is the optimizer's, of every training.

    Raise ConfigurationError when there are fewer photos to train on than the largest size.
    """
    dataset = Dataset(folder.resolve())
    if not dataset.path(MANIFEST).exists():
        write_dataset(dataset, source, params)
    pool = photos_in(dataset, "train")
    if len(pool) < max(sizes):
        raise ConfigurationError(f"only {len(pool)} photos are in the train split; give sizes up to that")
    for seed in seeds:
        shuffled = np.random.default_rng(seed).permutation(pool).tolist()
        for order in (RANDOM, QUEUE):
            step, model = None, None
            for size in sizes:
                before = step.labelled if step else ()
                # The first batch is by chance in both orders: nothing can be uncertain yet.
                batch_order = RANDOM if step is None else order
                digest = sha256_hex("".join(before).encode())[:6]
                scratch = Dataset(dataset.root / f"{batch_order}-{seed}-{size}-{digest}")
                if not (scratch.root / _STEP).exists():
                    new = _next(dataset, batch_order, model, shuffled, before, size - len(before), params)
                    seconds = [_seconds(dataset, sha256, model, params) for sha256 in new]
                    _train(dataset, scratch, [*before, *new], params, steps, seed)
                    miou = _miou_on_test(dataset, load_model(scratch.path(MODEL)), params)
                    taken, by_hand = (sum(values) for values in zip(*seconds, strict=True))
                    done = Step(batch_order, seed, (*before, *new), miou, taken, by_hand)
                    write_atomically(scratch.root / _STEP, json.dumps(asdict(done)).encode())
                step, model = _read(scratch), load_model(scratch.path(MODEL))
                logger.info("%s, seed %d, %d photos: mIoU %.3f", order, seed, size, step.miou)
                yield replace(step, order=order)


def version_of(params: Params, source: MaskedPhotos) -> str:
    """Return a hash of photos, parameters and training code: steps made with others are no part of a simulation."""
    parts = [
        source.photos.resolve(),
        source.masks.resolve(),
        params.train,
        params.split,
        params.prelabel,
        params.effort,
        params.label_ids,
    ]
    return sha256_hex(b"\0".join([training_code(), source.label_of_value.tobytes(), repr(parts).encode()]))[:8]


def as_curve(steps: Sequence[Step]) -> pd.DataFrame:
    """Return a row per order and number of photos: means and standard deviations over seeds."""
    table = pd.DataFrame([
        {"order": step.order, "photos": len(step.labelled), "miou": step.miou, "saved": step.saved_share}
        for step in steps
    ])  # fmt: skip
    curve = table.groupby(["order", "photos"], sort=True).agg(["mean", "std"])
    curve.columns = ["_".join(names) for names in curve.columns]
    return curve.fillna(0.0).reset_index()  # a single seed has no deviation


def _next(
    dataset: Dataset,
    order: str,
    model: ClothingModel | None,
    shuffled: Sequence[str],
    labelled: Sequence[str],
    count: int,
    params: Params,
) -> list[str]:
    """Choose the next photos: in shuffled order, or as the queue would fill up with this model's scores."""
    done = set(labelled)
    left = [sha256 for sha256 in shuffled if sha256 not in done]
    if order == RANDOM or model is None:
        return left[:count]
    with ThreadPoolExecutor(max_concurrency()) as pool:
        scores = dict(zip(left, pool.map(lambda sha256: model.score(dataset.read_image(sha256)), left), strict=True))
    tasks = [Task(number, ImageRef("", 0, sha256, 0, 0)) for number, sha256 in enumerate(left)]
    chosen = next_tasks(tasks, ScoreCache(scores), params.prelabel.model_copy(update={"ahead": count}))
    return [task.image.sha256 for task in chosen]


def _seconds(dataset: Dataset, sha256: str, model: ClothingModel | None, params: Params) -> tuple[float, float]:
    """Return the seconds a simulated labeler takes from the model's pre-label, and from nothing."""
    photo, truth = dataset.read_image(sha256), dataset.read_mask(sha256)
    proposed = prediction_json(model.predict(photo))["result"] if model else []
    return correct(proposed, truth, params)[1], correct([], truth, params)[1]


def _train(dataset: Dataset, scratch: Dataset, labelled: Sequence[str], params: Params, steps: int, seed: int) -> None:
    """Train in a folder `scratch` on some photos of a dataset alone, with links to its photos and masks."""
    scratch.path(IMAGES.parent).mkdir(parents=True, exist_ok=True)
    for part in (IMAGES, MASKS):
        if not scratch.path(part).exists():
            scratch.path(part).symlink_to(dataset.path(part))
    table = dataset.manifest()
    scratch.write_table(MANIFEST, table[table["sha256"].isin(labelled) | (table["split"] == "test")])
    options = {"epochs": steps, "min_steps": 0, "max_steps": steps, "max_minutes": 0, "patience": 0, "seed": seed}
    train(scratch, params.model_copy(update={"train": params.train.model_copy(update=options)}))


def _miou_on_test(dataset: Dataset, model: ClothingModel, params: Params) -> float:
    return evaluate_model(model, dataset, photos_in(dataset, "test"), params.label_ids).confusion.miou()


def _read(scratch: Dataset) -> Step:
    fields = json.loads((scratch.root / _STEP).read_text(encoding="utf-8"))
    return Step(**{**fields, "labelled": tuple(fields["labelled"])})
