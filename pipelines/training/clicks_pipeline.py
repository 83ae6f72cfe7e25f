"""The click model of a dataset version: trained, evaluated, put before its gate, promoted; and who answers what.

The stages run in the same clone as those of the clothing model, at the same tag, after it.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipelines.contract import SEGMENT_ANYTHING
from pipelines.dataset.files import CLICK_REPORT
from pipelines.dataset.published import Published
from pipelines.dataset.workspace import Workspace
from pipelines.errors import ModelError, ServiceError
from pipelines.models.reader import ANSWERS
from pipelines.params import Params, load_params
from pipelines.records import ModelVersion
from pipelines.segmentation.choice import LEARNED, SAM, TUNED_SAM
from pipelines.services import ask_service
from pipelines.settings import Settings
from pipelines.training.pipeline import in_mlflow, require_training, training_clone, training_of
from pipelines.training.policy import why_no_clicks

if TYPE_CHECKING:
    from pipelines.models.registry import Registry
    from pipelines.models.run import Training
    from pipelines.segmentation.interactive import InteractiveSegmenter
    from pipelines.segmentation.sam_model import PromptableModel

logger = logging.getLogger(__name__)


def click_settings(settings: Settings) -> Settings:
    """Return settings under whose model name MLflow holds the click model."""
    return settings.model_copy(update={"model_name": settings.clicks_model_name})


def retrain_clicks(settings: Settings, dataset: str, *, again: bool = False) -> ModelVersion | None:
    """Run all steps of the click model on a dataset's tag; return the version, or None where none is trained."""
    if why := train(settings, dataset, again=again):
        logger.info("no click model is trained: %s", why)
        return None
    evaluate(settings, dataset)
    version, reason = put_before_gate(settings, dataset)
    return version if reason is None else promote_winner(settings, version.version, reason)


def train(settings: Settings, dataset: str, *, again: bool = False) -> str:
    """Run DVC's stage `train_clicks` on what the clothing model's training left; killed and run again it goes on.

    Return why no click model is trained; an empty text when one is. With `again` it does not matter how little is new.
    """
    from pipelines.models.registry import Registry

    clone = training_clone(settings)
    with clone.locked():
        require_training(clone, dataset)
        params = load_params(clone.path / "params.yaml")
        if not params.clicks.enabled:
            return "clicks.enabled of params.yaml is false"
        if not again and (why := why_not_yet(settings, dataset, params)):
            return why
        # The stage runs with the code of the clone, which has no .env and no var/ of its own.
        sam = {"MASKLOOP_VAR": str(settings.var), "MASKLOOP_SAM_CHECKPOINT": settings.sam_checkpoint}
        with in_mlflow(Registry(click_settings(settings)), _training(settings, dataset), params) as environment:
            clone.dvc("repro", "--single-item", "train_clicks", show=True, more=environment | sam)
    return ""


def why_not_yet(settings: Settings, dataset: str, params: Params) -> str | None:
    """Return why the newest click model is not old enough for another; None when there is none, or its dataset's."""
    from pipelines.models.registry import Registry

    newest = Registry(click_settings(settings)).newest()
    workspace = Workspace(settings.workspace_path, settings)
    published = Published(workspace)
    if newest is None or newest.dataset == dataset or newest.dataset not in published.tags():
        return None
    tags = dataset, newest.dataset
    now, before = (int((published.manifest(tag)["split"] == "train").sum()) for tag in tags)
    now_at, before_at = (datetime.fromisoformat(workspace.git("log", "-1", "--format=%cI", tag)) for tag in tags)
    return why_no_clicks(params, now, before, now_at - before_at)


def evaluate(settings: Settings, dataset: str) -> None:
    """Run DVC's stage `evaluate_clicks`."""
    clone = training_clone(settings)
    with clone.locked():
        require_training(clone, dataset)
        clone.dvc("repro", "--single-item", "evaluate_clicks", show=True)


def put_before_gate(settings: Settings, dataset: str) -> tuple[ModelVersion, str | None]:
    """Log and register the click model, compare it with what answers now, and note which segmenter answers what.

    Return the version, and the reason to promote it; None when it stays a challenger.
    """
    from pipelines.models.registry import Registry
    from pipelines.segmentation.transforms import resize_image
    from pipelines.training.data import photos_in

    clone, registry = training_clone(settings), Registry(click_settings(settings))
    with clone.locked():
        require_training(clone, dataset)
        training, params = _training(settings, dataset), load_params(clone.path / "params.yaml")
        photo = training.dataset_files.read_image(photos_in(training.dataset_files, "test")[0])
        version = registry.register(training, params, resize_image(photo, 96, 64))
        return judge(settings, registry, training, version, params)


def judge(
    settings: Settings, registry: "Registry", training: "Training", version: ModelVersion, params: Params
) -> tuple[ModelVersion, str | None]:
    """Compare a version with the champion, or with GrabCut, and write with both which segmenter answers what."""
    from pipelines.models.versions import GATE_FILE
    from pipelines.training.clicks_gate import as_markdown, best_answers, decide_clicks
    from pipelines.training.evaluate_clicks import ROWS
    from pipelines.training.significance import level_of_look

    champion = registry.champion()
    if champion and champion.version == version.version:  # killed between the alias and the note
        return version, version.reason or "why was lost when the run was killed"
    table = pd.read_parquet(training.folder / CLICK_REPORT / ROWS)
    measured = {str(name): rows.reset_index(drop=True) for name, rows in table.groupby("segmenter", sort=False)}
    others = _measure_others(settings, registry, champion, training, params)
    opponent = champion.served_as if champion else "grabcut"
    looks = registry.looks_at(measured["clicks"]["family"].unique().tolist(), before=version)
    decision = decide_clicks(
        measured["clicks"], (others | measured)[opponent], opponent, params.promote,
        level_of_look(looks, params.promote), looks,
    )  # fmt: skip
    serves = {SAM: SAM, TUNED_SAM: TUNED_SAM}
    if champion and not decision.promote:  # it goes on with its own decoder
        serves |= {TUNED_SAM: _tuned_with(champion), LEARNED: opponent}
    served = measured | {name: others[source] for name, source in serves.items() if source in others}
    answers = best_answers(served)
    page = as_markdown(decision, measured | others, answers)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / GATE_FILE
        path.write_text(decision.as_json(), encoding="utf-8")
        registry.log_file(version.run_id, path)
    logger.info("%s: %s", version.served_as, decision.reason)
    if noted := version if decision.promote else champion:
        measures = {name: round(float(rows["noc85"].mean()), 2) for name, rows in served.items()}
        registry.tag(noted, {ANSWERS: json.dumps(answers | {"measured": measures})})
    if decision.promote:
        registry.log_gate_table(version, page)
        return version, decision.reason
    registry.note_decision(version, decision.reason, page)
    return replace(version, promoted=False, reason=decision.reason), None


@dataclass(frozen=True)
class MeasuredClicks:
    """Clicks to an IoU of 0.85 on a dataset's test photos, of its click model and of GrabCut, and who answers now."""

    answers: str
    model: str = ""
    noc85: float | None = None
    noc85_of_grabcut: float | None = None


def measured_clicks(settings: Settings, dataset: str) -> MeasuredClicks:
    """Return what the newest click model of a dataset's tag was measured at; without one, only who answers."""
    from pipelines.models.registry import Registry

    registry = Registry(click_settings(settings))
    version, champion = registry.version_trained_on(dataset), registry.champion()
    answers = champion.served_as if champion else "grabcut"
    if version is None:
        return MeasuredClicks(answers)
    metrics = registry.client.get_run(version.run_id).data.metrics
    return MeasuredClicks(answers, version.served_as, metrics.get("noc85"), metrics.get("grabcut/noc85"))


def promote_winner(settings: Settings, number: int, reason: str) -> ModelVersion:
    """Make a version champion because the gate says so, and tell the service, which follows by itself if it is down."""
    from pipelines.models.registry import Registry

    registry = Registry(click_settings(settings))
    version = registry.version(str(number))
    if version is None:
        raise ModelError(f"{registry.name} has no version {number} any more; run `maskloop retrain`")
    registry.promote(version, reason)
    reload_service(settings)
    return replace(version, promoted=True, reason=reason)


def promote_by_hand(settings: Settings, number: int) -> ModelVersion:
    """Make a version champion whatever the gate said; raises ModelError when there is none of this number."""
    from pipelines.models.registry import Registry

    registry = Registry(click_settings(settings))
    version = registry.version(str(number))
    if version is None:
        raise ModelError(f"{registry.name} has no version {number}; MLflow at {registry.url} lists those that exist")
    registry.promote_by_hand(version)
    reload_service(settings)
    return version


def roll_back(settings: Settings) -> tuple[ModelVersion | None, ModelVersion]:
    """Bring the last champion back; return the version that left (None if deleted) and the one that serves now."""
    from pipelines.models.registry import Registry

    leaving, back = Registry(click_settings(settings)).roll_back()
    reload_service(settings)
    return leaving, back


def reload_service(settings: Settings) -> None:
    """Make the service that answers clicks follow the alias now."""
    try:
        answer = ask_service(settings, SEGMENT_ANYTHING, "/reload", {}, timeout_s=60)
        logger.info("clicks are answered by %s", answer["model_version"])
    except ServiceError as error:
        logger.warning("%s; it follows the champion by itself within seconds", error)


def _training(settings: Settings, dataset: str) -> "Training":
    from pipelines.models.run import CLICK_MODEL

    clone = training_clone(settings)
    summary = clone.git("tag", "--list", "--format=%(contents:subject)", dataset)
    return replace(training_of(clone, dataset, summary), outputs=CLICK_MODEL)


def _measure_others(
    settings: Settings, registry: "Registry", champion: ModelVersion | None, training: "Training", params: Params
) -> dict[str, pd.DataFrame]:
    """Measure the champion, and Segment Anything where its checkpoint is on this machine, on the same garments.

    Segment Anything is measured as it is and with the decoders that came with the challenger and with the champion.
    """
    from pipelines.dataset.files import CLICKS
    from pipelines.segmentation.clicks import load_click_model
    from pipelines.segmentation.sam import local_sam
    from pipelines.training.evaluate_clicks import judged_photos, measure

    with tempfile.TemporaryDirectory(prefix="maskloop-clicks-") as scratch:
        segmenters: dict[str, InteractiveSegmenter] = {}
        folders = {TUNED_SAM: training.folder / CLICKS}
        if champion:
            network = registry.download(champion, Path(scratch) / "network")
            segmenters[champion.served_as] = load_click_model(network, Path(scratch) / "features", champion.served_as)
            folders[_tuned_with(champion)] = network
        if sam := local_sam(settings.sam_checkpoint, settings.var / "segment-anything"):
            segmenters |= {SAM: sam, **_tuned_sams(sam, folders)}
        photos = list(judged_photos(training.dataset_files, params)) if segmenters else []
        return {name: measure(segmenter, photos) for name, segmenter in segmenters.items()}


def _tuned_with(version: ModelVersion) -> str:
    return f"{TUNED_SAM} of {version.served_as}"


def _tuned_sams(sam: "PromptableModel", folders: Mapping[str, Path]) -> "dict[str, InteractiveSegmenter]":
    """Return Segment Anything with the decoder of each click model's folder that holds one for this checkpoint."""
    from pipelines.segmentation.sam_decoder import DECODER, tuned

    segmenters: dict[str, InteractiveSegmenter] = {}
    for name, folder in folders.items():
        if (folder / DECODER).exists():
            try:
                segmenters[name] = tuned(sam, folder / DECODER)
            except ModelError as error:
                logger.warning("%s is not measured: %s", name, error)
    return segmenters
