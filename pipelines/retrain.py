"""Stations 4 and 5: a dataset version becomes a model version, and the better model becomes champion.

Training runs in a clone of its own at the dataset's tag, so that labelling and syncing go on meanwhile.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from google.cloud.storage import Client

from pipelines.atomic import write_atomically
from pipelines.dataset.published import Published
from pipelines.dataset.summary import describe_change
from pipelines.dataset.workspace import Workspace
from pipelines.errors import CredentialsError, DatasetError, ModelError, ServiceError
from pipelines.params import Params, load_params
from pipelines.records import ModelVersion
from pipelines.serving import ask_service
from pipelines.settings import Settings
from pipelines.stack.airflow import Airflow

if TYPE_CHECKING:
    from pipelines.training.registry import Registry

logger = logging.getLogger(__name__)
MODEL_ASSET = "maskloop://model"  # as the DAGs name it
# What a tag holds; training adds the rest.
_DATASET = ("data/annotations.dvc", "data/images.dvc", "data/before.parquet.dvc", "compile", "split")


def dataset_to_train(bucket: Client, settings: Settings, *, again: bool = False) -> str | None:
    """Give the newest dataset tag if it is to be trained on, or in any case when `again` is set.

    None, and a line in the log that says why, when there is nothing to train on, or too little that is new; how much is
    enough is the project's decision (`retrain` in its params.yaml), not the dataset's.
    """
    from pipelines.training.policy import new_annotations, why_wait
    from pipelines.training.registry import Registry

    workspace = Workspace(settings.workspace_path, settings)
    published = Published(workspace, bucket)
    tags = published.tags()
    if not tags:
        logger.info("no dataset is published yet; label photos in Label Studio, then run `maskloop sync`")
        return None
    newest, registry = tags[-1], Registry(settings)
    trained = registry.version_trained_on(newest)
    if again or (trained and not trained.reason):  # without a reason it was never compared with the champion
        return newest
    if trained:
        logger.info(
            "%s was trained on %s already; `maskloop retrain --again` trains once more", trained.served_as, newest
        )
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


def train(settings: Settings, dataset: str, *, again: bool = False) -> None:
    """Run `dvc repro evaluate` at a dataset's tag; killed and run again it goes on with the stages that are missing.

    With `again` the network is fitted anew even if DVC remembers the result.
    """
    clone = _training_clone(settings)
    with clone.locked():
        clone.ensure(settings.workspace_path)
        clone.git("fetch", "--quiet", "--tags", "--force", str(settings.workspace_path))
        clone.git("checkout", "--quiet", "--force", "--detach", dataset)
        try:
            clone.dvc("checkout", "--force", *_DATASET)
        except DatasetError:
            logger.info("the local cache lacks files of %s; pulling them", dataset)
            clone.dvc("pull", "--force", *_DATASET)
        _lay_out_start(settings, clone.path)
        clone.dvc("repro", *(("--force", "--downstream", "train") if again else ("evaluate",)), show=True)


def _lay_out_start(settings: Settings, clone: Path) -> None:
    """Put the champion where a training that starts from it looks for it; nothing for one that starts from scratch."""
    from pipelines.dataset.files import START

    folder = clone / START
    for path in folder.glob("[!.]*"):
        path.unlink()
    if load_params(clone / "params.yaml").train.start == "champion":
        from pipelines.training.registry import Registry

        registry = Registry(settings)
        if champion := registry.champion():
            with tempfile.TemporaryDirectory() as scratch:
                for path in registry.download(champion, Path(scratch)).iterdir():
                    write_atomically(folder / path.name, path.read_bytes())
            logger.info("the training goes on from %s", champion.served_as)


def register(bucket: Client, settings: Settings, dataset: str) -> ModelVersion:
    """Log and register what `train` left, compare it with the champion on the same test photos, promote the better.

    The service is told at once; when it cannot be reached it follows by itself within seconds of being back.
    """
    from pipelines.segmentation.transforms import resize_image
    from pipelines.training.data import photos_of, read_photo
    from pipelines.training.registry import Registry
    from pipelines.training.run import TrainedModel

    clone, registry = _training_clone(settings), Registry(settings)
    with clone.locked(), _inside(clone.path):
        revision = clone.git("rev-parse", f"{dataset}^{{commit}}")
        if clone.git("rev-parse", "HEAD") != revision:
            raise DatasetError(f"{clone.path} no longer holds the training on {dataset}; run `maskloop retrain`")
        params = load_params(Path("params.yaml"))
        summary = _change_since_last_trained(Published(clone, bucket), registry, dataset)
        trained = TrainedModel(clone.path, dataset, revision, summary)
        photo, _ = read_photo(photos_of("test")[0])
        version = registry.register(trained, params, resize_image(photo, 96, 64)[None])
        return _decide(settings, registry, version, params, summary)


def _change_since_last_trained(published: Published, registry: "Registry", dataset: str) -> str:
    """Say what the dataset holds that the one which was trained on before did not."""
    trained = registry.trained_datasets()
    earlier = [tag for tag in published.tags() if tag in trained and tag < dataset]
    before = earlier[-1] if earlier else None
    change = describe_change(published.manifest(before) if before else None, published.manifest(dataset))
    return f"{change} since {before}" if before else change


def _decide(
    settings: Settings, registry: "Registry", version: ModelVersion, params: Params, summary: str
) -> ModelVersion:
    from pipelines.dataset.files import MODEL
    from pipelines.segmentation.clothing import load_model
    from pipelines.training.data import photos_of
    from pipelines.training.evaluate import evaluate_model
    from pipelines.training.gate import decide
    from pipelines.training.page import Contender, write_page

    champion = registry.champion()
    if champion and champion.version == version.version:
        if not version.reason:  # killed between the alias and the note: without one it would be compared for ever
            registry.note_decision(version, "promoted; why was lost when the run was killed")
        return replace(version, promoted=True)
    with tempfile.TemporaryDirectory() as scratch:

        def contend(of: ModelVersion, folder: Path) -> Contender:
            model = load_model(folder)
            return Contender(of.served_as, model, evaluate_model(model, photos_of("test"), params.label_ids))

        ours = contend(version, MODEL)
        theirs = contend(champion, registry.download(champion, Path(scratch))) if champion else None
        names = ["background", *params.label_ids]
        decision = decide(
            ours.found, theirs.found if theirs else None, names, params.promote, params.evaluate.resamples
        )
        page = Path(scratch) / "report.html"
        write_page(page, f"trained on {version.dataset}: {summary}", decision, ours, theirs, params)
        registry.log_file(version.run_id, page)
    logger.info("%s: %s: %s", version.served_as, "promoted" if decision.promote else "not promoted", decision.reason)
    if decision.champion_miou is not None and decision.gain:
        gain, low, high = decision.gain
        registry.add_metrics(
            version.run_id,
            {"champion_test_miou": decision.champion_miou, "gain": gain, "gain_low": low, "gain_high": high},
        )
    if decision.promote:
        registry.promote(version, decision.reason, decision.as_markdown())
        reload_service(settings)
    else:
        registry.note_decision(version, decision.reason, decision.as_markdown())
    return replace(version, promoted=decision.promote, reason=decision.reason)


def promote_by_hand(settings: Settings, number: int) -> ModelVersion:
    """Make a version champion whatever the gate said; raises ModelError when there is none of this number."""
    from pipelines.training.registry import Registry

    registry = Registry(settings)
    version = registry.version(str(number))
    if version is None:
        raise ModelError(f"{registry.name} has no version {number}; MLflow at {registry.url} lists those that exist")
    registry.promote(version, f"promoted by hand; before: {version.reason or 'never compared'}")
    reload_service(settings)
    _wake_prelabelling(settings, version)
    return version


def roll_back(settings: Settings) -> tuple[ModelVersion, ModelVersion]:
    """Bring the last champion back; gives the version that left and the one that serves now."""
    from pipelines.training.registry import Registry

    leaving, back = Registry(settings).roll_back()
    reload_service(settings)
    _wake_prelabelling(settings, back)
    return leaving, back


def _wake_prelabelling(settings: Settings, champion: ModelVersion) -> None:
    """Report the new champion to Airflow, as `retrain_model` does, so that photos that wait get its masks at once."""
    try:
        Airflow(settings).emit(MODEL_ASSET, {"model": champion.served_as})
    except (CredentialsError, ServiceError) as error:
        logger.warning("%s; the DAG prelabel_images sees the new champion within ten minutes all the same", error)


def reload_service(settings: Settings) -> None:
    """Tell the segmentation service to follow the alias now."""
    try:
        answer = ask_service(settings, "segmentation", "/reload", {}, timeout_s=60)
        logger.info("the segmentation service serves %s", answer["model_version"])
    except ServiceError as error:
        logger.warning("%s; it follows by itself within seconds of being back", error)


def _training_clone(settings: Settings) -> Workspace:
    return Workspace(settings.var / "training", settings)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
