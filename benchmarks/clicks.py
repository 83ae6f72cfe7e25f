"""Clicks answered by Segment Anything (ViT-B), against the usual way: encode on the first click, cache one photo.

The weights are random, because the speed does not depend on their values; the service loads them from a file that is
named and hashed like an official checkpoint. Ours is the service as it runs in the stack, called over HTTP; the peers
do the same work in this process without HTTP, which favours them. A cache of one photo never hits when nine people work
on nine photos, so each of their clicks costs the peers what a first click does.
"""

import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image
from rich.progress import track
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from benchmarks._photos import known_photos, photos_name
from benchmarks._service import RunningService, bucket, running
from benchmarks.harness import Row, compare
from pipelines.params import load_params
from pipelines.segmentation.embeddings import Embedding, EmbeddingCache
from pipelines.segmentation.prompts import Prompts
from pipelines.segmentation.sam import SegmentAnythingModel
from pipelines.settings import PROJECT_ROOT

_WIDTH, _HEIGHT = 550, 830
_PHOTOS = 9
_ROUNDS = 3
_PEOPLE, _PAUSE_S, _MINUTE_S = 9, 3.0, 60.0
_MANY = 2000
_MASKS = 20
_PLACES = 35, 50, 65  # percent of the photo's width
_WARM_MS, _FIRST_MS = 500, 400  # what p95 must stay below

torch.manual_seed(7)


def run() -> list[Row]:
    """Measure encoder, first click, warm clicks of nine people, and memory over many requests."""
    network = sam_model_registry["vit_b"]().eval()
    photos = jpeg_photos(_PHOTOS)
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as folder:
        checkpoint = _checkpoint(network, Path(folder))
        rows = _encoder(network, photos, Path(folder))
        with bucket(Path(folder)) as settings:
            checkpoint_setting = {"MASKLOOP_SAM_CHECKPOINT": str(checkpoint)}
            with running(settings, "segment_anything", **checkpoint_setting) as service:
                tasks = [service.upload(f"photos/{n}.jpg", data) for n, data in enumerate(photos)]
                for task in track(tasks, "photos are encoded ahead", transient=True):
                    service.post("/embed", {"tasks": [task], "compute": True})
            first, peer = [], []
            for number in range(_ROUNDS):  # started anew, so that embeddings come from the disk
                with running(settings, "segment_anything", **checkpoint_setting) as service:
                    service.post("/predict", click(service.upload("photos/other.jpg", photos[0]), 50))
                    first += [_seconds(partial(service.post, "/predict", click(task, 50))) for task in tasks]
                peer.append(_peer(network, photos[number]))
            with running(settings, "segment_anything", **checkpoint_setting) as service:
                rows += _first_click_rows(first, peer) + _warm(service, tasks, statistics.median(peer))
                rows += _crowded(service, tasks[0]) + _memory(service, tasks)
    return rows


def jpeg_photos(count: int) -> list[bytes]:
    """Return photos as JPEG files: real ones where MASKLOOP_CCP names them, or drawn ones of 550×830 pixels."""
    files = []
    for image, _ in known_photos(load_params(PROJECT_ROOT / "params.yaml"), count, seed=0, size=(_HEIGHT, _WIDTH)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def click(task: dict[str, Any], x: float, y: float = 40) -> dict[str, Any]:
    """Make the request of one click at percent of the photo."""
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": ["coat"]}
    region = {"type": "keypointlabels", "value": value, "is_positive": True}
    return {"tasks": [task], "params": {"context": {"result": [region]}}}


def _encoder(network: Sam, photos: list[bytes], folder: Path) -> list[Row]:
    model = SegmentAnythingModel(network, "bench", EmbeddingCache("bench", folder / "unused"))
    photo = np.asarray(Image.open(io.BytesIO(photos[0])))
    predictor = SamPredictor(network)
    predictor.set_image(photo)
    peer_features = predictor.features[0].numpy()
    batch = predictor.model.preprocess(
        torch.from_numpy(predictor.transform.apply_image(photo)).permute(2, 0, 1)[None].float()
    )
    encoder = network.image_encoder
    compiled = model.compiled_encoder()

    def eager() -> object:
        with torch.inference_mode():
            return encoder(batch)

    timed = compare("encoder ViT-B", lambda: compiled(batch.numpy()), eager, rounds=_ROUNDS, unit="s")
    features = compiled(batch.numpy())[0]
    grid = [(x, y) for x in range(60, _WIDTH, 110) for y in range(60, _HEIGHT, 110)]
    alike = min(_iou(_mask(model, peer_features, place), _mask(model, features, place)) for place in grid)
    return [timed, Row("encoder worst IoU of masks with torch's", alike, None, None, "IoU", len(grid))]


def _mask(model: SegmentAnythingModel, features: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    prompts = Prompts(np.array([place], np.float32), np.array([True]), None, "coat")
    return model.decode(Embedding(features, _HEIGHT, _WIDTH), prompts)[0]


def _iou(mask: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 1.0


def _checkpoint(network: torch.nn.Module, folder: Path) -> Path:
    path = folder / "weights"
    torch.save(network.state_dict(), path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.rename(folder / f"sam_vit_b_{digest[:6]}.pth")


def _peer(network: torch.nn.Module, data: bytes) -> float:
    """Time a first click as label-studio-ml's SAM does it: decode, encode, predict, the SDK's RLE."""

    def first_click() -> list[int]:
        predictor = SamPredictor(network)
        predictor.set_image(np.asarray(Image.open(io.BytesIO(data))))
        masks, scores, _ = predictor.predict(np.array([[_WIDTH / 2, _HEIGHT * 0.4]]), np.array([1]))
        return mask2rle(masks[int(scores.argmax())].astype(np.uint8) * 255)

    return _seconds(first_click)


def _first_click_rows(ours: list[float], peer: list[float]) -> list[Row]:
    median, peer_median = statistics.median(ours), statistics.median(peer)
    p95 = float(np.percentile(ours, 95)) * 1e3
    return [
        Row(
            f"first click, embedding ready ({photos_name()})",
            median * 1e3,
            peer_median * 1e3,
            peer_median / median,
            "ms",
            len(ours),
        ),
        Row(f"first click p95 (limit {_FIRST_MS}, {photos_name()})", p95, None, None, "ms", len(ours)),
    ]


def _warm(service: RunningService, tasks: list[dict[str, Any]], peer_s: float) -> list[Row]:
    """Let nine people click every three seconds for a minute; every mask must be the one a lone click gives."""
    right = {
        (n, x): _rle(service.post("/predict", click(task, x))) for n, task in enumerate(tasks) for x in (35, 50, 65)
    }
    times: list[float] = []
    wrong = errors = 0

    def person(number: int) -> None:
        nonlocal wrong, errors
        time.sleep(number * _PAUSE_S / _PEOPLE)
        started = time.monotonic()
        for turn in range(int(_MINUTE_S / _PAUSE_S)):
            photo, x = (number + turn // 4) % len(tasks), _PLACES[turn % 3]
            begin = time.perf_counter()
            answer = service.http.post(service.url + "/predict", json=click(tasks[photo], x))
            times.append(time.perf_counter() - begin)
            errors += not answer.is_success
            wrong += answer.is_success and _rle(answer.json()) != right[photo, x]
            time.sleep(max(0.0, started + (turn + 1) * _PAUSE_S - time.monotonic()))

    with ThreadPoolExecutor(_PEOPLE) as people:
        list(people.map(person, range(_PEOPLE)))
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    return [
        Row(
            f"warm click of nine people, median ({photos_name()})",
            float(p50),
            peer_s * 1e3,
            peer_s * 1e3 / float(p50),
            "ms",
            len(times),
        ),
        Row(
            f"warm click of nine people, p95 (limit {_WARM_MS}, {photos_name()})",
            float(p95),
            None,
            None,
            "ms",
            len(times),
        ),
        Row("warm click errors", errors, None, None, "", len(times)),
        Row("warm click wrong masks", wrong, None, None, "", len(times)),
    ]


def _rle(answer: dict[str, Any]) -> list[list[int]]:
    return [region["value"]["rle"] for item in answer["results"] for region in item["result"]]


def _crowded(service: RunningService, task: dict[str, Any]) -> list[Row]:
    """Click on a photo that holds many masks already: Label Studio sends all of them along with every click."""
    region = service.post("/predict", click(task, 50))["results"][0]["result"][0]
    full = {**task, "drafts": [{"result": [region] * _MASKS}], "predictions": [{"result": [region] * _MASKS}]}
    row = compare(
        f"warm click, {2 * _MASKS} masks in the request, against none",
        lambda: service.post("/predict", click(full, 50)), lambda: service.post("/predict", click(task, 50)), rounds=15,
    )  # fmt: skip
    return [row]


def _memory(service: RunningService, tasks: list[dict[str, Any]]) -> list[Row]:
    before = service.memory_mb()
    for number in track(range(_MANY), "many clicks", transient=True):
        service.post("/predict", click(tasks[number % len(tasks)], 30 + number % 40))
    after = service.memory_mb()
    return [
        Row("memory before", before, None, None, "MB", 1),
        Row(f"memory after {_MANY} clicks", after, None, None, "MB", 1),
    ]


def _seconds(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin
