"""The value of a round: photos are labelled batch by batch by people who know the true mask, in the queue's orders.

After every batch a model is trained on all labelled photos and measured on the test photos. The next batch is labelled
from its masks, as far as they are expected to pay; the time saved is that of a simulated labeler, against drawing
everything by hand. What pays is learnt on validation photos, as many as an archive would have whose test and validation
photos are drawn blind. Orders are those of `prelabel.strategy`; a seed gives all of them the same first batch, so that
they are compared in pairs. Each step has a folder of its own, so a simulation that was ended resumes where it was.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import IMAGES, MANIFEST, MASKS, MODEL
from pipelines.demo.labelers import correct, seconds_by_hand
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
from pipelines.segmentation.proposals import PROPOSALS_FILE, Seconds
from pipelines.segmentation.runtime import max_concurrency
from pipelines.training.acceptance import fit_proposals
from pipelines.training.data import photos_in
from pipelines.training.evaluate import evaluate_model
from pipelines.training.train import train, training_code

logger = logging.getLogger(__name__)
CHANCE, ORDERS = "chance", ("chance", "uncertainty")
_STEP = "step.json"


@dataclass(frozen=True)
class Step:
    """One batch: which photos were labelled in all, the model's mIoU on the test photos, and the people's seconds.

    `seconds` is what the newest `batch` photos took from pre-labels of the model before, `by_hand` what they take from
    nothing.
    """

    order: str
    seed: int
    labelled: tuple[str, ...]
    batch: int
    miou: float
    seconds: float
    by_hand: float

    @property
    def seconds_per_photo(self) -> float:
        """Return the seconds that people took for a photo of the newest batch."""
        return self.seconds / self.batch

    @property
    def saved_share(self) -> float:
        """Return the share of the time that pre-labels saved on this batch; below 0 when they cost time."""
        return 1 - self.seconds / self.by_hand


def simulate(
    source: MaskedPhotos, params: Params, folder: Path, sizes: Sequence[int], seeds: Sequence[int], steps: int,
    orders: Sequence[str] = ORDERS,
) -> Iterator[Step]:  # fmt: skip
    """Yield the steps of the orders for each seed, as they are done; `steps` is the optimizer's, of every training.

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
        blind = np.random.default_rng((seed, 1)).permutation(photos_in(dataset, "val")).tolist()
        for order in orders:
            step, model = None, None
            for size in sizes:
                before = step.labelled if step else ()
                # The first batch is by chance in all orders: nothing can be uncertain yet.
                batch_order = CHANCE if step is None else order
                digest = sha256_hex("".join(before).encode())[:6]
                scratch = Dataset(dataset.root / f"{batch_order}-{seed}-{size}-{digest}")
                if not (scratch.root / _STEP).exists():
                    new = _next(dataset, batch_order, model, shuffled, before, size - len(before), params)
                    seconds = [_seconds(dataset, sha256, model, params) for sha256 in new]
                    _train(dataset, scratch, [*before, *new], params, steps, seed)
                    _learn_what_pays(dataset, scratch, blind[: _blind_photos(size, params)], params)
                    miou = _miou_on_test(dataset, _load(scratch, params), params)
                    taken, by_hand = (sum(values) for values in zip(*seconds, strict=True))
                    done = Step(batch_order, seed, (*before, *new), len(new), miou, taken, by_hand)
                    write_atomically(scratch.root / _STEP, json.dumps(asdict(done)).encode())
                step, model = _read(scratch), _load(scratch, params)
                logger.info("%s, seed %d, %d photos: mIoU %.3f", order, seed, size, step.miou)
                yield replace(step, order=order)


def for_simulation(params: Params, height: int, width: int, steps: int, *, learning: bool) -> Params:
    """Return parameters whose trainings are small: `few` of params.yaml for any number of photos, unless `learning`.

    Photos are trained on at (height, width) pixels; 0 leaves what is not given as it is.
    """
    train = params.train
    changes: dict[str, Any] = {"image_height": height or train.image_height, "image_width": width or train.image_width}
    few = {"photos": 0} if learning else {"photos": sys.maxsize, "min_steps": steps}
    return params.model_copy(
        update={"train": train.model_copy(update=changes | {"few": train.few.model_copy(update=few)})}
    )


def chosen_orders(names: str) -> tuple[str, ...]:
    """Return the orders that a text names, separated by commas, after chance, which is always one of them.

    Raise ConfigurationError for one that the queue does not know.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in ORDERS]:
        raise ConfigurationError(f"there is no order {unknown[0]!r}; choose among {', '.join(ORDERS)}")
    return tuple(dict.fromkeys([CHANCE, *wanted]))


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
        {
            "order": step.order, "photos": len(step.labelled), "miou": step.miou, "saved": step.saved_share,
            "seconds": step.seconds_per_photo,
        }
        for step in steps
    ])  # fmt: skip
    curve = table.groupby(["order", "photos"], sort=True).agg(["mean", "std"])
    curve.columns = ["_".join(names) for names in curve.columns]
    return curve.fillna(0.0).reset_index()  # a single seed has no deviation


def against_chance(steps: Sequence[Step]) -> pd.DataFrame:
    """Return what each other order gains over chance, by number of photos: seeds are pairs.

    `miou` and `seconds` (per photo, below 0 where people need less time) are means of the pairs' differences, with
    `_low` and `_high` the ends of 95 % intervals by Student's t; NaN with a single seed.
    """
    table = pd.DataFrame([
        {
            "order": step.order, "photos": len(step.labelled), "seed": step.seed, "miou": step.miou,
            "seconds": step.seconds_per_photo,
        }
        for step in steps
    ])  # fmt: skip
    measures = ["miou", "seconds"]
    chance = table[table["order"] == CHANCE].set_index(["photos", "seed"])[measures]
    rows: list[dict[str, Any]] = []
    for (order, photos), part in table[table["order"] != CHANCE].groupby(["order", "photos"], sort=True):
        pairs = part.set_index(["photos", "seed"])[measures] - chance.loc[part.set_index(["photos", "seed"]).index]
        row: dict[str, Any] = {"order": order, "photos": photos, "seeds": len(pairs)}
        for name in measures:
            values = pairs[name].to_numpy(float)
            mean = float(values.mean())
            error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
            reach = float(stats.t.ppf(0.975, max(1, len(pairs) - 1))) * error
            row |= {name: mean, f"{name}_low": mean - reach, f"{name}_high": mean + reach}
        rows.append(row)
    return pd.DataFrame(rows)


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
    if order == CHANCE or model is None:
        return left[:count]
    with ThreadPoolExecutor(max_concurrency()) as pool:
        scores = dict(zip(left, pool.map(lambda sha256: model.score(dataset.read_image(sha256)), left), strict=True))
    tasks = [Task(number, ImageRef("", 0, sha256, 0, 0)) for number, sha256 in enumerate(left)]
    options = params.prelabel.model_copy(update={"ahead": count, "strategy": order})
    chosen = next_tasks(tasks, ScoreCache(scores), options)
    return [task.image.sha256 for task in chosen]


def _seconds(dataset: Dataset, sha256: str, model: ClothingModel | None, params: Params) -> tuple[float, float]:
    """Return the seconds a simulated labeler takes from the model's pre-label, and from nothing."""
    photo, truth = dataset.read_image(sha256), dataset.read_mask(sha256)
    proposed = prediction_json(model.predict(photo))["result"] if model else []
    return correct(proposed, truth, params)[1], seconds_by_hand(truth, params)


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


def _blind_photos(size: int, params: Params) -> int:
    """Return how many photos an archive with `size` training photos has in its blind splits."""
    blind = params.split.val_share + params.split.test_share
    return round(size * blind / (1 - blind))


def _learn_what_pays(dataset: Dataset, scratch: Dataset, blind: Sequence[str], params: Params) -> None:
    """Write beside the model which of its regions are expected to save people time, as `evaluate` does."""
    regions = evaluate_model(_load(scratch, params), dataset, blind, params.label_ids).regions
    proposals = fit_proposals(regions, Seconds.from_params(params.effort), params.effort)
    write_atomically(scratch.path(MODEL) / PROPOSALS_FILE, proposals.as_json().encode())


def _load(scratch: Dataset, params: Params) -> ClothingModel:
    return load_model(scratch.path(MODEL), min_region_share=params.prelabel.min_region_share)


def _miou_on_test(dataset: Dataset, model: ClothingModel, params: Params) -> float:
    return evaluate_model(model, dataset, photos_in(dataset, "test"), params.label_ids).confusion.miou()


def _read(scratch: Dataset) -> Step:
    fields = json.loads((scratch.root / _STEP).read_text(encoding="utf-8"))
    return Step(**{**fields, "labelled": tuple(fields["labelled"])})
