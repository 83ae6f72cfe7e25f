"""Train and measure click models on a folder of masked photos: no bucket, no Label Studio, no MLflow, no Airflow."""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from pipelines.dataset.dataset import Dataset
from pipelines.dataset.files import CLICK_CURVES, CLICK_METRICS, CLICK_REPORT, CLICKS, MODEL
from pipelines.errors import ConfigurationError, MaskloopError
from pipelines.exchange.as_dataset import write_dataset
from pipelines.exchange.masked_photos import MaskedPhotos
from pipelines.params import Params
from pipelines.segmentation.click_network import CARD
from pipelines.segmentation.clicks import load_click_model
from pipelines.segmentation.interactive import GrabCutSegmenter, InteractiveSegmenter
from pipelines.segmentation.sam import load_sam, local_sam
from pipelines.segmentation.sam_decoder import DECODER, tuned
from pipelines.segmentation.sam_model import PromptableModel
from pipelines.settings import Settings
from pipelines.training.evaluate_clicks import KnownPhoto, StartOf, evaluate_clicks, known_photos, measure, summarise
from pipelines.training.train_clicks import train_clicks

logger = logging.getLogger(__name__)
_SEED = 620


def train_clicks_on_folder(
    settings: Settings,
    source: MaskedPhotos,
    params: Params,
    out: Path,
    *,
    minutes: float | None = None,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train on the train split of masked photos, measure on the test split, and write the model folder `out`.

    `out` then holds weights.safetensors, clicks.json and training.json, which `load_clicks` reads, and measures.json,
    clicks.csv and clicks_report/. With `clicks.tune_sam` it holds a mask decoder as well, sam/, for the checkpoint of
    Segment Anything that the settings name, if that is on this machine. `minutes` replaces `clicks.max_minutes`;
    `start` is the folder of a clothing model to begin with. A training that was killed resumes when it is started again
    with the same arguments. Return what measures.json holds.

    Raise ConfigurationError when `out` holds something else, DatasetError when no photo can be used or no photo falls
    in the train or the test split, and TrainingError for options that no network can be built with.
    """
    if out.exists() and any(out.iterdir()) and not ((out / CARD).exists() or (out / "work").exists()):
        raise ConfigurationError(f"{out} holds other files; give --out a new folder")
    given = {} if minutes is None else {"max_minutes": minutes}
    params = params.model_copy(update={"clicks": params.clicks.model_copy(update=given)})
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    manifest = write_dataset(Dataset(work), source, params)
    logger.info("%d photos: %s", len(manifest), manifest["split"].value_counts().to_dict())
    if start is not None:
        shutil.copytree(start, work / MODEL, dirs_exist_ok=True)
    dataset = Dataset(work)
    train_clicks(dataset, params, _sam_to_tune(settings, params))
    evaluate_clicks(dataset, params)
    shutil.rmtree(out / DECODER.parent, ignore_errors=True)  # of an earlier training
    for part in (*(work / CLICKS).iterdir(), work / CLICK_CURVES):
        part.replace(out / part.name)
    (work / CLICK_METRICS).replace(out / "measures.json")
    shutil.rmtree(out / CLICK_REPORT, ignore_errors=True)  # of an earlier training
    (work / CLICK_REPORT).replace(out / CLICK_REPORT)
    shutil.rmtree(work)
    return dict(json.loads((out / "measures.json").read_text(encoding="utf-8")))


def evaluate_clicks_on_folder(
    settings: Settings, source: MaskedPhotos, params: Params, names: Sequence[str], model: str, most: int
) -> dict[str, Any]:
    """Measure segmenters on garments of a folder, at most `most` of them, chosen by chance but always the same.

    `names` are as `segmenter_named` takes them; none stands for all that are there. `model` names a clothing model
    whose masks are corrected; without one, masks are damaged by chance. Return `photos` and `segmenters`: by name what
    `summarise` gives.
    """
    with tempfile.TemporaryDirectory(prefix="maskloop-clicks-") as scratch:
        dataset = Dataset(Path(scratch) / "dataset")
        dataset.root.mkdir()
        photos = sorted(write_dataset(dataset, source, params)["sha256"])
        segmenters = {name: segmenter_named(settings, name, Path(scratch)) for name in names}
        segmenters = segmenters or _all_there(settings, Path(scratch))
        chosen = [photos[place] for place in np.random.default_rng(_SEED).permutation(len(photos))]
        known = list(known_photos(dataset, chosen, params, most))
        start_of = _masks_of(settings, model, known, params) if model else None
        measured: dict[str, pd.DataFrame] = {
            name: measure(segmenter, track(known, f"clicks: {name}", transient=True), start_of)
            for name, segmenter in segmenters.items()
        }
    summaries = {name: summarise(rows, params.evaluate.resamples) for name, rows in measured.items()}
    return {"photos": len(known), "starts_from": model or "damaged masks", "segmenters": summaries}


def segmenter_named(settings: Settings, name: str, scratch: Path) -> InteractiveSegmenter:
    """Return a segmenter: `grabcut`, `sam`, `models:/clicks@champion`, `models:/clicks/3`, or a click model's folder.

    The folder sam/ in that of a click model stands for Segment Anything with the decoder that was tuned with it.

    Raise ModelError when there is none of that name.
    """
    if name == "grabcut":
        return GrabCutSegmenter()
    if name == "sam":
        return load_sam(settings.sam_checkpoint, settings.var / "segment-anything")
    scratch = Path(tempfile.mkdtemp(dir=scratch))  # of its own: two versions have files of the same names
    features = scratch / "features"
    if not name.startswith("models:/"):
        if (decoder := Path(name).expanduser() / DECODER.name).exists():
            return tuned(load_sam(settings.sam_checkpoint, settings.var / "segment-anything"), decoder)
        return load_click_model(Path(name).expanduser(), features, Path(name).name)
    from pipelines.training.folder import registered

    registry, version = registered(settings, name)
    return load_click_model(registry.download(version, scratch / "network"), features, version.served_as)


def _sam_to_tune(settings: Settings, params: Params) -> PromptableModel | None:
    return local_sam(settings.sam_checkpoint, settings.var / "segment-anything") if params.clicks.tune_sam else None


def _all_there(settings: Settings, scratch: Path) -> dict[str, InteractiveSegmenter]:
    segmenters = {"grabcut": segmenter_named(settings, "grabcut", scratch)}
    for name, address in (("clicks", f"models:/{settings.clicks_model_name}@champion"), ("sam", "sam")):
        try:
            segmenters[name] = segmenter_named(settings, address, scratch)
        except MaskloopError as error:
            logger.info("%s is not measured: %s", name, error)
    return segmenters


def _masks_of(settings: Settings, name: str, photos: Sequence[KnownPhoto], params: Params) -> StartOf:
    """Return what gives the mask that a clothing model draws of a garment, the label corrected where it is another."""
    from pipelines.training.folder import load_named_model

    model = load_named_model(settings, name)
    drawn = {photo.name: model.index_mask(photo.image) for photo in photos}

    def start_of(photo: str, truth: np.ndarray, judged: np.ndarray) -> np.ndarray | None:
        index = drawn[photo]
        inside = np.bincount(index[truth & judged], minlength=256)
        inside[0] = 0
        return index == int(inside.argmax()) if inside.any() else None

    return start_of
