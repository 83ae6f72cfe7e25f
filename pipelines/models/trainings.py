"""What a training asks MLflow before it begins, and how it is followed there; MLflow being down stops none."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.dataset.files import START, STEPS
from pipelines.errors import ServiceError
from pipelines.fs import write_atomically
from pipelines.params import Params
from pipelines.records import ModelVersion

if TYPE_CHECKING:
    from pipelines.models.registry import Registry
    from pipelines.models.run import Training

logger = logging.getLogger(__name__)


def awaits_decision(registry: "Registry", training: "Training") -> bool:
    """Return whether a training is registered and only its comparison is missing, as far as MLflow says so."""
    try:
        return registry.awaits_decision(training)
    except ServiceError as error:
        logger.warning("whether this training is registered is not known: %s", error)
        return False


@contextmanager
def in_mlflow(registry: "Registry", training: "Training", params: Params) -> Iterator[dict[str, str]]:
    """Keep a training's run in MLflow open; gives the environment by which the stage finds it.

    Whatever MLflow does, the training goes on: the registration makes up for what is missing. A run of a training that
    was killed is marked by the next one.
    """
    try:
        run_id = registry.begin_run(training, params)
    except ServiceError as error:
        logger.warning("the training is not seen in MLflow before it is done: %s", error)
        yield {}
        return
    try:
        yield {"MLFLOW_TRACKING_URI": registry.url, "MLFLOW_RUN_ID": run_id}
    except Exception:  # whatever it is, the run must not look as if it went on; it is raised again
        _report(lambda: registry.end_failed_run(run_id))
        raise
    _report(lambda: registry.note_result(run_id, training))


def _report(mlflow: Callable[[], None]) -> None:
    """Report to MLflow how a training ended; when it is down the registration does so."""
    try:
        mlflow()
    except ServiceError as error:
        logger.warning("MLflow does not hear how the training ended: %s", error)


def lay_out_start(registry: "Registry", clone: Path, params: Params) -> None:
    """Put the network that a training goes on from where it looks for it: an unfinished one, else the champion.

    Nothing is put there for a training that starts from scratch. What the network is called stands in its
    training.json.
    """
    from pipelines.segmentation.model import CARD, WEIGHTS

    folder = clone / START
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("[!.]*"):
        path.unlink()
    version = _network_to_start_from(registry, params)
    if version is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        network = registry.download(version, Path(scratch))
        for name in (WEIGHTS, CARD):
            write_atomically(folder / name, (network / name).read_bytes())
        steps = network / STEPS.name
        known = json.loads(steps.read_text(encoding="utf-8")) if steps.exists() else {}
        named = json.dumps(known | {"version": version.served_as}, indent=1)
        write_atomically(folder / STEPS.name, named.encode())
    logger.info("the training may go on from %s", version.served_as)


def _network_to_start_from(registry: "Registry", params: Params) -> ModelVersion | None:
    from_champion = params.train.start == "champion"
    try:
        newest = registry.newest()
        if newest and not newest.is_complete:
            return newest
        return registry.champion() if from_champion else None
    except ServiceError as error:
        if from_champion:
            raise
        logger.warning("the training starts from scratch, as MLflow does not say whether one was cut short: %s", error)
        return None
