"""Pre-labels from a photo's bytes to brush RLE, against a model loaded per request and against torch one by one.

The model is the default one of params.yaml, trained for a minute on drawn photos so that its masks are garments and not
noise. Both peers decode with Pillow, predict in eager torch and encode with the SDK; the first loads the champion from
MLflow for each request, as a backend does that keeps nothing between requests, the second has it in memory. Both look
at a photo once, where ours sees its mirror image as well if `train.predict_mirrored`. Memory is that of the service as
it runs in the stack.
"""

import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image
from rich.progress import track

from benchmarks._model import train_briefly
from benchmarks._service import RunningService, bucket, free_ports, running, wait_for
from benchmarks.clicks import jpeg_photos
from benchmarks.harness import Row, compare
from pipelines.labelstudio.render import prediction_json
from pipelines.params import Params, load_params
from pipelines.photos.decode import decode_image
from pipelines.records import NO_MODEL
from pipelines.segmentation.model import ClothingModel, ModelCard, build_network, load_model
from pipelines.segmentation.transforms import normalize, resize_image
from pipelines.settings import PROJECT_ROOT

_PHOTOS = 16
_RELOADED = 4  # each costs the peer seconds
_ROUNDS = 5
_SIDE_BY_SIDE = 8  # as many as the service works on at once
_MANY, _PER_REQUEST = 2000, 10
_LARGEST = 12_000, 8_333  # pixels: 100 megapixels


def run() -> list[Row]:
    """Measure both comparisons, then the service's memory over many requests and one photo of 100 megapixels."""
    params, photos = load_params(PROJECT_ROOT / "params.yaml"), jpeg_photos(_PHOTOS)
    with tempfile.TemporaryDirectory(prefix="maskloop-bench-") as name:
        folder = Path(name)
        train_briefly(params, folder / "model")
        rows = _against_peers(params, folder / "model", photos)
        with bucket(folder) as settings:
            kept = folder / "champion"
            kept.mkdir()
            shutil.copytree(folder / "model", kept / "v1-benchmark")
            (kept / "champion.txt").write_text("v1-benchmark", encoding="utf-8")
            with running(settings, "segmentation") as service:
                return rows + _memory(service, photos)


def _against_peers(params: Params, folder: Path, photos: list[bytes]) -> list[Row]:
    ours = load_model(folder, version="clothing:v1", min_region_share=params.prelabel.min_region_share)
    card, once = ours.card, _eager_network(ours.card, folder)

    def whole_path(data: bytes) -> object:
        return prediction_json(ours.predict(decode_image(data)))

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:

        def all_ours() -> object:
            return list(pool.map(whole_path, photos))

        def few_ours() -> object:
            return list(pool.map(whole_path, photos[:_RELOADED]))

        eager = compare(
            f"{_PHOTOS} photos 550x830 against eager", all_ours,
            lambda: [_peer(once, card, data) for data in photos], rounds=_ROUNDS, unit="s",
        )  # fmt: skip
        with _registered(once, folder.parent) as champion:
            reload = compare(
                f"{_RELOADED} photos 550x830, same champion, against reload", few_ours,
                lambda: [_peer(champion(), card, data) for data in photos[:_RELOADED]], rounds=_ROUNDS, unit="s",
            )  # fmt: skip
        earlier = _earlier_tool(folder.parent / "segformer")
        tool = compare(
            f"{_RELOADED} photos 550x830, earlier tool's SegFormer-B2, against reload", few_ours,
            lambda: [earlier(data) for data in photos[:_RELOADED]], rounds=_ROUNDS, unit="s",
        )  # fmt: skip
    peer_seconds = eager.peer or float("nan")
    per_second = Row("photos per second", _PHOTOS / eager.ours, _PHOTOS / peer_seconds, eager.ratio, "1/s", _ROUNDS)
    return [reload, tool, eager, per_second, _agreement(ours, once, photos)]


@contextmanager
def _registered(network: torch.nn.Module, folder: Path) -> Iterator[Callable[[], torch.nn.Module]]:
    """Put the network into an MLflow server as its documentation shows; yield a function that loads the champion."""
    import mlflow.pytorch

    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    command = [
        str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "mlflow.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for(f"{url}/health")
            mlflow.set_tracking_uri(url)
            with mlflow.start_run():
                logged = mlflow.pytorch.log_model(
                    network, name="model", registered_model_name="clothing", serialization_format="pickle"
                )
            version = str(logged.registered_model_version)
            mlflow.MlflowClient().set_registered_model_alias("clothing", "champion", version)
            yield lambda: mlflow.pytorch.load_model("models:/clothing@champion").eval()
        finally:
            server.terminate()


def _earlier_tool(folder: Path) -> Callable[[bytes], object]:
    """Make the backend that the archive had: SegFormer-B2 from a folder for each request (random weights here)."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    b2 = SegformerConfig(depths=[3, 4, 6, 3], hidden_sizes=[64, 128, 320, 512], decoder_hidden_size=768)
    b2.num_labels = 18
    SegformerForSemanticSegmentation(b2).save_pretrained(folder)
    SegformerImageProcessor().save_pretrained(folder)

    def predict(data: bytes) -> object:
        model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
        photo = Image.open(io.BytesIO(data)).convert("RGB")
        inputs = SegformerImageProcessor.from_pretrained(folder)(images=photo, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs).logits
        index = torch.nn.functional.interpolate(logits, size=photo.size[::-1], mode="bilinear").argmax(dim=1)[0].numpy()
        most = np.bincount(index.ravel()).argsort()[-5:]  # as many labels as a photo has garments
        return {label: mask2rle((index == label).astype(np.uint8) * 255) for label in most}

    return predict


def _agreement(ours: ClothingModel, once: torch.nn.Module, photos: list[bytes]) -> Row:
    card, same = ours.card, []

    def twice(batch: torch.Tensor) -> torch.Tensor:
        return (once(batch) + once(batch.flip(3)).flip(3)) / 2

    for data in photos:
        expected = card.index_of_channel[_channels(twice if card.mirrored else once, card, data)]
        same.append(np.mean(ours.index_mask(decode_image(data)) == expected))
    metric = "pixels with the label that torch gives, worst photo"
    return Row(metric, float(min(same)), None, None, "share", len(photos))


def _eager_network(card: ModelCard, folder: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    network = build_network(card)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.eval()


def _channels(network: Callable[[torch.Tensor], torch.Tensor], card: ModelCard, data: bytes) -> np.ndarray:
    photo = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    batch = torch.from_numpy(normalize(resize_image(photo, card.height, card.width), card.mean, card.std))[None]
    with torch.inference_mode():
        shares = network(batch).softmax(dim=1)[0].numpy()
    height, width = photo.shape[:2]
    return np.stack([cv2.resize(plane, (width, height)) for plane in shares]).argmax(axis=0)


def _peer(network: torch.nn.Module, card: ModelCard, data: bytes) -> object:
    index = card.index_of_channel[_channels(network, card, data)]
    return {label: mask2rle((index == label).astype(np.uint8) * 255) for label in np.unique(index) if label}


def _memory(service: RunningService, photos: list[bytes]) -> list[Row]:
    tasks = [service.upload(f"photos/{number}.jpg", data) for number, data in enumerate(photos)]
    while service.http.get(f"{service.url}/health").json()["model_version"] == NO_MODEL:
        time.sleep(0.2)

    def predict(some: list[dict[str, Any]]) -> None:
        results = service.post("/predict", {"tasks": some})["results"]
        assert all(result["model_version"] == "clothing:v1" for result in results)

    predict(tasks)
    memory, begin = [service.memory_mb()], time.perf_counter()
    for _ in range(2):
        for number in track(range(_MANY // _PER_REQUEST // 2), "many photos", transient=True):
            predict([tasks[(number + i) % len(tasks)] for i in range(_PER_REQUEST)])
        memory.append(service.memory_mb())
    served = _MANY / (time.perf_counter() - begin)
    predict([service.upload("photos/largest.jpg", _largest_photo())])
    return [
        Row("service: photos per second", served, None, None, "1/s", _MANY),
        Row("service: memory before", memory[0], None, None, "MB", 1),
        Row(f"service: memory after {_MANY // 2} photos", memory[1], None, None, "MB", 1),
        Row(f"service: memory after {_MANY} photos", memory[2], None, None, "MB", 1),
        Row("service: peak memory with one of 100 megapixels", service.memory_mb("peak_rss"), None, None, "MB", 1),
    ]


def _largest_photo() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(_LARGEST).convert("RGB").save(file, "JPEG", quality=80)
    return file.getvalue()
