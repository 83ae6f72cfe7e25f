"""Promotions and roll-backs under load: does a request fail, does an answer mix two models, how soon does it count?

A whole stack serves two versions of one network whose labels stand in opposite order, so that each photo has other
labels under either. Five requests a second of three photos each come in, whoever is slow; meanwhile the champion
changes back and forth by the registry's own promotion and roll-back. A change counts from the command on until an
answer of the new version has arrived.
"""

import itertools
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from benchmarks._model import train_briefly
from benchmarks._stack import local_stack
from benchmarks.clicks import jpeg_photos
from benchmarks.harness import Row
from pipelines.errors import ServiceError
from pipelines.gcs import client as gcs
from pipelines.labelstudio.render import prediction_json, version_of_region
from pipelines.models.reader import NETWORK
from pipelines.models.registry import Registry
from pipelines.params import load_params
from pipelines.photos.decode import decode_image
from pipelines.records import ModelVersion
from pipelines.segmentation.model import CARD, load_model
from pipelines.services import ask_service
from pipelines.settings import PROJECT_ROOT, Settings
from pipelines.training.pipeline import promote_by_hand, reload_service, roll_back

_PER_SECOND, _PHOTOS_EACH, _CHANGES, _BETWEEN_S = 5, 3, 10, 5.0

Labels = Mapping[str, list[list[str]]]  # by model version: the labels of each photo, in the order of its regions


def run() -> list[Row]:
    """Change champions under load, and count."""
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as name, local_stack() as stack:
        models = _two_models(Path(name))
        stack.up_without_clock()
        settings = stack.settings()
        registry = Registry(settings)
        versions = [_register(registry, folder) for folder in models]
        photos = jpeg_photos(_PHOTOS_EACH)
        tasks = [_upload(settings, number, data) for number, data in enumerate(photos)]
        expected = {
            version.served_as: _expected(version, folder, photos)
            for version, folder in zip(versions, models, strict=True)
        }
        for version in versions:  # the second follows the first, so that there is something to go back to
            registry.promote(version, "for the benchmark")
        reload_service(settings)
        with _load(settings, tasks) as answers:
            seconds = [_change(settings, versions, answers, number) for number in range(_CHANGES)]
        failed = sum(isinstance(answer, str) for answer in answers)
        mixed = sum(_is_mixed(answer, expected) for answer in answers if not isinstance(answer, str))
    return [
        Row("requests under load", len(answers), None, None, "", 1),
        Row("failed requests", failed, None, None, "", 1),
        Row("answers that mix versions", mixed, None, None, "", 1),
        Row("promotion or roll-back until it counts, median", statistics.median(seconds), None, None, "s", _CHANGES),
        Row("promotion or roll-back until it counts, longest (limit 10)", max(seconds), None, None, "s", _CHANGES),
    ]


def _two_models(folder: Path) -> list[Path]:
    """Make two models that differ in the order of their labels."""
    train_briefly(load_params(PROJECT_ROOT / "params.yaml"), folder / "one")
    shutil.copytree(folder / "one", folder / "two")
    card = json.loads((folder / "two" / CARD).read_text(encoding="utf-8"))
    card["labels"] = dict(reversed(card["labels"].items()))
    (folder / "two" / CARD).write_text(json.dumps(card), encoding="utf-8")
    return [folder / "one", folder / "two"]


def _register(registry: Registry, folder: Path) -> ModelVersion:
    """Register a model as the service looks for it; there was no training whose metrics could be logged."""
    client: MlflowClient = registry.client
    experiment = client.get_experiment_by_name(registry.name)
    run = client.create_run(experiment.experiment_id if experiment else client.create_experiment(registry.name))
    client.log_artifacts(run.info.run_id, str(folder), NETWORK)
    client.set_terminated(run.info.run_id)
    if not registry.versions():
        client.create_registered_model(registry.name)
    made = client.create_model_version(registry.name, f"runs:/{run.info.run_id}/{NETWORK}", run.info.run_id)
    version = registry.version(str(made.version))
    assert version is not None, f"MLflow made version {made.version} and does not know it"
    return version


def _upload(settings: Settings, number: int, data: bytes) -> dict[str, Any]:
    ref = gcs.put(gcs.connect(settings), settings.source_bucket, f"photos/{number}.jpg", data, "image/jpeg")
    return {"id": number, "data": {"image": ref.uri, "generation": str(ref.generation)}}


def _expected(version: ModelVersion, folder: Path, photos: list[bytes]) -> list[list[str]]:
    share = load_params(PROJECT_ROOT / "params.yaml").prelabel.min_region_share
    model = load_model(folder, version=version.served_as, min_region_share=share)
    return [_labels(prediction_json(model.predict(decode_image(data)))) for data in photos]


def _labels(prediction: Mapping[str, Any]) -> list[str]:
    return sorted(region["value"]["brushlabels"][0] for region in prediction["result"])


@contextmanager
def _load(settings: Settings, tasks: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """Send requests at a steady pace; gives the list that fills with answers, or with what went wrong as text."""
    answers: list[Any] = []
    ended = threading.Event()

    def ask() -> None:
        try:
            answers.append(ask_service(settings, "segmentation", "/predict", {"tasks": tasks}, timeout_s=60))
        except ServiceError as error:
            answers.append(str(error))

    def pace() -> None:
        with ThreadPoolExecutor(64) as pool:  # a slow answer does not hold up the next request
            begun = time.monotonic()
            for number in itertools.count(1):
                pool.submit(ask)
                if ended.wait(max(0.0, begun + number / _PER_SECOND - time.monotonic())):
                    return

    sender = threading.Thread(target=pace)
    sender.start()
    try:
        time.sleep(_BETWEEN_S)
        yield answers
        time.sleep(_BETWEEN_S)
    finally:
        ended.set()
        sender.join()


def _change(settings: Settings, versions: list[ModelVersion], answers: list[Any], number: int) -> float:
    """Change the champion, by roll-back and by promotion in turn; gives the seconds until an answer of it arrived."""
    begun, seen = time.monotonic(), len(answers)
    if number % 2:
        wanted = promote_by_hand(settings, versions[1].version)
    else:
        _, wanted = roll_back(settings)
    while not any(_version(answer) == wanted.served_as for answer in answers[seen:]):
        if time.monotonic() - begun > 60:
            raise TimeoutError(f"no answer of {wanted.served_as} within a minute")
        time.sleep(0.01)
    took = time.monotonic() - begun
    time.sleep(_BETWEEN_S)
    return took


def _version(answer: Any) -> str:
    return "" if isinstance(answer, str) else str(answer["model_version"])


def _is_mixed(answer: Mapping[str, Any], expected: Labels) -> bool:
    """Return whether an answer is anything but what one version says of these photos."""
    version, results = _version(answer), answer["results"]
    named = {version_of_region(region["id"]) for result in results for region in result["result"]}
    return named != {version} or [_labels(result) for result in results] != expected[version]
