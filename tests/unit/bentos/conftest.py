"""Both services as they run, started in this process, with a bucket of photos."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from pipelines.gcs.client import ensure_bucket, put
from pipelines.settings import get_settings

if TYPE_CHECKING:
    from google.cloud.storage import Client

BUCKET = "bento-photos"


def jpeg(picture: Image.Image, orientation: int = 1) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def red_coat() -> Image.Image:
    """A grey photo, 240 wide and 360 high, with a red coat in the upper left and the noise that photos have."""
    pixels = np.full((360, 240, 3), 120, np.int16)
    pixels[40:160, 20:120] = 200, 30, 30
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def tasks(bucket_client: "Client") -> dict[str, dict[str, Any]]:
    """A bucket with good and bad photos; gives the task of each by what is the matter with it."""
    objects = {
        "upright": jpeg(red_coat()),
        # Orientation 6: the camera was turned; browsers turn the pixels by 90° clockwise to show them upright.
        "turned": jpeg(red_coat().transpose(Image.Transpose.ROTATE_90), orientation=6),
        "no photo": b"%PDF-1.7",
        "empty": b"",
    }
    ensure_bucket(bucket_client, BUCKET)
    tasks = {}
    for number, (what, data) in enumerate(objects.items(), start=1):
        reference = put(bucket_client, BUCKET, f"photos/{number}.jpg", data, "image/jpeg")
        tasks[what] = {"id": number, "data": {"image": reference.uri, "generation": str(reference.generation)}}
    tasks["missing"] = {"id": 8, "data": {"image": f"gs://{BUCKET}/photos/none.jpg", "generation": "1"}}
    tasks["elsewhere"] = {"id": 9, "data": {"image": "gs://another-bucket/secret.jpg", "generation": "1"}}
    tasks["without photo"] = {"id": 10, "data": {"text": "hello"}}
    return tasks


@pytest.fixture
def start(
    bucket_server: str, empty_mlflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Any], TestClient]]:
    """Start a service with settings of its own; ended with the test."""
    monkeypatch.setenv("MASKLOOP_VAR", str(tmp_path / "var"))
    monkeypatch.setenv("MASKLOOP_STORAGE_PORT", bucket_server.rsplit(":", 1)[1])
    monkeypatch.setenv("MASKLOOP_SOURCE_BUCKET", BUCKET)
    monkeypatch.setenv("MASKLOOP_MLFLOW_URL", empty_mlflow)
    monkeypatch.setenv("MASKLOOP_SAM_CHECKPOINT", "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    with fresh_settings(), ExitStack() as running:
        yield lambda service: running.enter_context(TestClient(asgi_of(service), raise_server_exceptions=False))


@contextmanager
def fresh_settings() -> Iterator[None]:
    get_settings.cache_clear()
    try:
        yield
    finally:
        get_settings.cache_clear()


def asgi_of(service: Any) -> Any:
    """What `Service.to_asgi` gives, without metrics: these can be made only once per process."""
    from _bentoml_impl.server.app import ServiceAppFactory

    service.inject_config()
    return ServiceAppFactory(service, is_main=True, enable_metrics=False)()
