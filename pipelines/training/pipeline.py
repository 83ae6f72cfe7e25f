"""The retrain pipeline: a dataset version becomes a model version, and the better model becomes champion.

Training runs in a clone of its own at the dataset's tag, so that labelling and syncing go on meanwhile. Its run in
MLflow is opened before the first step and completed by the registration; while MLflow is down it trains all the same.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.airflow_api import Airflow
from pipelines.contract import MODEL_ASSET, PRELABEL_DAG, SEGMENTATION
from pipelines.dataset.files import ANNOTATIONS, BEFORE, IMAGES, MANIFEST, MASKS, PHOTOS
from pipelines.dataset.published import Published
from pipelines.dataset.summary import describe_change
from pipelines.dataset.workspace import Workspace
from pipelines.errors import CredentialsError, DatasetError, ModelError, ServiceError
from pipelines.models.trainings import awaits_decision, in_mlflow, lay_out_start
from pipelines.params import load_params
from pipelines.records import ModelVersion
from pipelines.services import ask_service
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.models.registry import Registry
    from pipelines.models.run import Training

logger = logging.getLogger(__name__)
# What a tag holds; training adds the rest.
_DATASET = (ANNOTATIONS, IMAGES, BEFORE, PHOTOS, MASKS, MANIFEST)


def dataset_to_train(settings: Settings, *, again: bool = False) -> str | None:
    """Return the newest dataset tag if it is to be trained on, or in any case when `again` is set.

    None, and a line in the log that says why, when there is nothing to train on, or too little that is new; how much is
    enough is the project's decision (`retrain` in its params.yaml), not the dataset's. A training that was cut short
    goes on whatever is new.
    """
    from pipelines.models.registry import Registry
    from pipelines.training.policy import new_annotations, why_wait

    workspace = Workspace(settings.workspace_path, settings)
    published = Published(workspace)
    tags = published.tags()
    if not tags:
        logger.info("no dataset is published yet; label photos in Label Studio, then run `maskloop sync`")
        return None
    newest, registry = tags[-1], Registry(settings)
    if again:
        return newest
    if (unfinished := registry.newest()) and not unfinished.is_complete:
        logger.info(
            "the training of %s was cut short after %d of %d steps and goes on", unfinished.served_as,
            unfinished.done_steps, unfinished.planned_steps,
        )  # fmt: skip
        return newest
    trained = registry.version_trained_on(newest)
    if trained and not trained.reason:  # without a reason it was never compared with the champion
        return newest
    if trained:
        logger.info(
            "%s was trained on %s already; `maskloop retrain --again` trains once more", trained.served_as, newest
        )
        return None
    counts = published.manifest(newest)["split"].value_counts()
    if counts.get("train", 0) < 2 or not counts.get("test", 0):
        logger.info(
            "%s has %d photos to train on and %d to judge by; a training needs two and one: label more photos", newest,
            counts.get("train", 0), counts.get("test", 0),
        )  # fmt: skip
        return None
    known = registry.trained_datasets()
    last = next((tag for tag in reversed(tags) if tag in known), None)
    first_new = tags[tags.index(last) + 1] if last else tags[0]
    published_at = datetime.fromisoformat(workspace.git("log", "-1", "--format=%cI", first_new))
    count = new_annotations(published.manifest(newest), published.manifest(last) if last else None)
    policy = load_params(settings.params_path).retrain
    if wait := why_wait(policy, count, published_at, datetime.now(UTC)):
        logger.info("%s is not trained on yet: %s; `maskloop retrain --again` does not wait", newest, wait)
        return None
    return newest


def retrain(settings: Settings, dataset: str, *, again: bool = False) -> ModelVersion:
    """Run all steps on a dataset's tag: train, evaluate, gate, promote; return the version with what became of it."""
    train(settings, dataset, again=again)
    evaluate(settings, dataset)
    version, reason = put_before_gate(settings, dataset)
    return version if reason is None else promote_winner(settings, version.version, reason)


def train(settings: Settings, dataset: str, *, again: bool = False) -> str:
    """Run DVC's stage `train` at a dataset's tag, and return the tag; killed and run again it goes on.

    With `again` the network is fitted anew even if DVC has the result. Nothing is done when the result is a model
    version already, and only its comparison is missing.
    """
    from pipelines.models.registry import Registry

    clone, registry = training_clone(settings), Registry(settings)
    with clone.locked():
        clone.ensure(settings.workspace_path)
        clone.check_out(dataset, settings.workspace_path, *_DATASET)
        training = training_of(clone, dataset, clone.git("tag", "--list", "--format=%(contents:subject)", dataset))
        if not again and awaits_decision(registry, training):
            logger.info("the training on %s is registered already, and only its comparison is missing", dataset)
            return dataset
        params = load_params(clone.path / "params.yaml")
        lay_out_start(registry, clone.path, params)
        target = ("--force", "--single-item", "train") if again else ("train",)
        with in_mlflow(registry, training, params) as environment:
            clone.dvc("repro", *target, show=True, more=environment)
    return dataset


def evaluate(settings: Settings, dataset: str) -> str:
    """Run DVC's stage `evaluate` on what `train` left for a dataset's tag, and return the tag."""
    clone = training_clone(settings)
    with clone.locked():
        require_training(clone, dataset)
        clone.dvc("repro", "--single-item", "evaluate", show=True)
    return dataset


def require_training(clone: Workspace, dataset: str) -> str:
    """Return the commit of a dataset's tag; raise DatasetError unless the clone holds the training on it."""
    revision = clone.git("rev-parse", f"{dataset}^{{commit}}")
    if clone.git("rev-parse", "HEAD") != revision:
        raise DatasetError(f"{clone.path} no longer holds the training on {dataset}; run `maskloop retrain`")
    return revision


def training_of(clone: Workspace, dataset: str, summary: str) -> "Training":
    """Return the training of the clothing model that a clone holds for a dataset's tag."""
    from pipelines.models.run import Training

    cache = f"gs://{clone.settings.dvc_bucket}/dvc/files/md5"
    return Training(clone.path, dataset, clone.git("rev-parse", f"{dataset}^{{commit}}"), summary, cache)


def put_before_gate(settings: Settings, dataset: str) -> tuple[ModelVersion, str | None]:
    """Log and register what was trained and evaluated, and compare it with the champion on the same test photos.

    Return the version, and the reason to promote it; None when it stays a challenger, which is then noted with it.
    """
    from pipelines.models.registry import Registry
    from pipelines.segmentation.transforms import resize_image
    from pipelines.training.data import photos_in
    from pipelines.training.judge import judge

    clone, registry = training_clone(settings), Registry(settings)
    with clone.locked():
        require_training(clone, dataset)
        published = Published(clone)
        training = training_of(clone, dataset, _change_since_last_trained(published, registry, dataset))
        params = load_params(clone.path / "params.yaml")
        photo = training.dataset_files.read_image(photos_in(training.dataset_files, "test")[0])
        version = registry.register(training, params, resize_image(photo, 96, 64))
        return judge(registry, published, clone, training, version, params)


def promote_winner(settings: Settings, number: int, reason: str) -> ModelVersion:
    """Make a version champion because the gate says so, and tell the service.

    When the service cannot be reached it follows by itself within seconds of being back.
    """
    from pipelines.models.registry import Registry

    registry = Registry(settings)
    version = registry.version(str(number))
    if version is None:
        raise ModelError(f"{registry.name} has no version {number} any more; run `maskloop retrain`")
    registry.promote(version, reason)
    reload_service(settings)
    return replace(version, promoted=True, reason=reason)


def outcome(settings: Settings, version: ModelVersion) -> str:
    """Say in a line what became of a version that `register` gave, and whether the champion draws masks at all."""
    from pipelines.models.registry import Registry

    if version.promoted:
        return f"{version.served_as} promoted: {version.reason}"
    text = f"{version.served_as} stays challenger: {version.reason}"
    if not version.is_complete:
        text = f"{version.served_as} cut short {version.done_steps}/{version.planned_steps} steps, goes on next time"
    try:
        champion = Registry(settings).champion()
    except ServiceError as error:  # the decision is made, and its note is not worth another try
        logger.warning("whether the champion is paused is not known: %s", error)
        return text
    if champion and champion.paused:
        text += f"; the champion {champion.served_as} is paused and draws no masks: {champion.paused}"
    return text


def _change_since_last_trained(published: Published, registry: "Registry", dataset: str) -> str:
    """Return what the dataset holds that the one which was trained on before did not."""
    trained = registry.trained_datasets()
    tags = published.tags()
    earlier = [tag for tag in tags[: tags.index(dataset)] if tag in trained]
    before = earlier[-1] if earlier else None
    change = describe_change(published.manifest(before) if before else None, published.manifest(dataset))
    return f"{change} since {before}" if before else change


def promote_by_hand(settings: Settings, number: int) -> ModelVersion:
    """Make a version champion whatever the gate said; raises ModelError when there is none of this number."""
    from pipelines.models.registry import Registry

    registry = Registry(settings)
    version = registry.version(str(number))
    if version is None:
        raise ModelError(f"{registry.name} has no version {number}; MLflow at {registry.url} lists those that exist")
    registry.promote_by_hand(version)
    reload_service(settings)
    _wake_prelabelling(settings, version)
    return version


def roll_back(settings: Settings) -> tuple[ModelVersion | None, ModelVersion]:
    """Bring the last champion back; return the version that left (None if deleted) and the one that serves now."""
    from pipelines.models.registry import Registry

    leaving, back = Registry(settings).roll_back()
    reload_service(settings)
    _wake_prelabelling(settings, back)
    return leaving, back


def _wake_prelabelling(settings: Settings, champion: ModelVersion) -> None:
    """Report the new champion to Airflow, as `retrain_model` does, so that photos that wait get its masks at once."""
    try:
        Airflow(settings).emit(MODEL_ASSET, {"model": champion.served_as})
    except (CredentialsError, ServiceError) as error:
        logger.warning("%s; the DAG %s sees the new champion within ten minutes all the same", error, PRELABEL_DAG)


def reload_service(settings: Settings) -> None:
    """Make the segmentation service follow the alias now."""
    try:
        answer = ask_service(settings, SEGMENTATION, "/reload", {}, timeout_s=60)
        logger.info("the segmentation service serves %s", answer["model_version"])
    except ServiceError as error:
        logger.warning("%s; it follows by itself within seconds of being back", error)


def training_clone(settings: Settings) -> Workspace:
    return Workspace(settings.var / "training", settings)
