"""The value of a round: photos are labelled batch by batch by people who know the true mask, by chance or as queued.

After every batch a model is trained on all that is labelled and measured on the test photos. Who labels next starts
from its masks; what that saves is the time a simulated labeler takes, against drawing everything by hand. Each step
lies in a folder of its own, so a simulation that was ended goes on where it was.
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
        """Give the share of the time that pre-labels saved on this batch; below 0 when they cost time."""
        return 1 - self.seconds / self.by_hand


def simulate(
    source: MaskedPhotos, params: Params, folder: Path, sizes: Sequence[int], seeds: Sequence[int], steps: int
) -> Iterator[Step]:
    """Give the steps of both orders for each seed, as they are done; `steps` is the optimizer's, of every training.

    Raises ConfigurationError when there are fewer photos to train on than the largest size.
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
                of = RANDOM if step is None else order
                known = sha256_hex("".join(before).encode())[:6]
                place = dataset.root / f"{of}-{seed}-{size}-{known}"
                if not (place / _STEP).exists():
                    new = _next(dataset, order, model, shuffled, before, size - len(before), params)
                    seconds = [_seconds(dataset, sha256, model, params) for sha256 in new]
                    _train(Dataset(place), [*before, *new], params, steps, seed)
                    test = photos_in(dataset, "test")
                    found = evaluate_model(load_model(place / MODEL), dataset, test, params.label_ids)
                    taken, by_hand = (sum(values) for values in zip(*seconds, strict=True))
                    done = Step(of, seed, (*before, *new), found.confusion.miou(), taken, by_hand)
                    write_atomically(place / _STEP, json.dumps(asdict(done)).encode())
                step = _read(place)
                model = load_model(place / MODEL)
                logger.info("%s, seed %d, %d photos: mIoU %.3f", order, seed, size, step.miou)
                yield replace(step, order=order)


def version_of(params: Params, source: MaskedPhotos) -> str:
    """Name photos, parameters and training code: steps of other ones are no part of a simulation."""
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
    """Give a row per order and number of photos: means of mIoU and share saved over seeds, and standard deviations."""
    table = pd.DataFrame([
        {"order": one.order, "photos": len(one.labelled), "miou": one.miou, "saved": one.saved_share} for one in steps
    ])  # fmt: skip
    found = table.groupby(["order", "photos"], sort=True).agg(["mean", "std"])
    found.columns = ["_".join(names) for names in found.columns]
    return found.fillna(0.0).reset_index()  # a single seed deviates from nothing


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
    left = [sha256 for sha256 in shuffled if sha256 not in set(labelled)]
    if order == RANDOM or model is None:
        return left[:count]
    with ThreadPoolExecutor(max_concurrency()) as pool:
        scores = dict(zip(left, pool.map(lambda sha256: model.score(dataset.read_image(sha256)), left), strict=True))
    tasks = [Task(number, ImageRef("", 0, sha256, 0, 0)) for number, sha256 in enumerate(left)]
    chosen = next_tasks(tasks, ScoreCache(scores), params.prelabel.model_copy(update={"ahead": count}))
    return [task.image.sha256 for task in chosen]


def _seconds(dataset: Dataset, sha256: str, model: ClothingModel | None, params: Params) -> tuple[float, float]:
    """Give the seconds a simulated labeler takes from the model's pre-label, and from nothing."""
    photo, truth = dataset.read_image(sha256), dataset.read_mask(sha256)
    proposed = prediction_json(model.predict(photo))["result"] if model else []
    return correct(proposed, truth, params)[1], correct([], truth, params)[1]


def _train(dataset: Dataset, labelled: Sequence[str], params: Params, steps: int, seed: int) -> None:
    """Train on these photos alone, in a dataset whose photos and masks are those of the folder above."""
    above = Dataset(dataset.root.parent)
    dataset.path(IMAGES.parent).mkdir(parents=True, exist_ok=True)
    for part in (IMAGES, MASKS):
        if not dataset.path(part).exists():
            dataset.path(part).symlink_to(above.path(part))
    table = above.manifest()
    dataset.write_table(MANIFEST, table[table["sha256"].isin(labelled) | (table["split"] == "test")])
    options = {"epochs": steps, "min_steps": 0, "max_steps": steps, "max_minutes": 0, "patience": 0, "seed": seed}
    train(dataset, params.model_copy(update={"train": params.train.model_copy(update=options)}))


def _read(place: Path) -> Step:
    fields = json.loads((place / _STEP).read_text(encoding="utf-8"))
    return Step(**{**fields, "labelled": tuple(fields["labelled"])})
