"""Requests to the two model services, with their login and with errors that say what to do."""

import base64
import logging
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import httpx
import numpy as np

from pipelines.contract import SEGMENTATION, ModelService
from pipelines.errors import ServiceError
from pipelines.log import who_asks
from pipelines.records import PhotoAddress
from pipelines.settings import Settings

logger = logging.getLogger(__name__)


def ask_service(settings: Settings, service: ModelService, path: str, body: Any, *, timeout_s: float) -> Any:
    """Post JSON to a model service and return the JSON of its answer.

    Raises ServiceError when the service does not answer, or answers with a failure.
    """
    url = settings.url(service) + path
    name = service.replace("_", "-")
    password = settings.service_password.get_secret_value()
    login = httpx.BasicAuth(settings.service_user, password) if password else None
    try:
        answer = httpx.post(url, json=body, auth=login, headers=who_asks(), timeout=httpx.Timeout(timeout_s, connect=5))
    except httpx.HTTPError as error:
        raise ServiceError(
            f"cannot reach the {name} service at {url} ({error}); start it with `maskloop up` or set "
            f"MASKLOOP_{service.upper()}_URL"
        ) from error
    if not answer.is_success:
        raise ServiceError(f"the {name} service at {url} answered HTTP {answer.status_code}: {answer.text[:300]}")
    try:
        return answer.json()
    except ValueError as error:
        raise ServiceError(f"{url} answered no JSON; check MASKLOOP_{service.upper()}_URL") from error


def pack_probabilities(probabilities: np.ndarray, labels: Collection[str]) -> dict[str, Any]:
    """Pack class probabilities into small JSON: (C, h, w) float32 0..1, background first, then one plane per label."""
    planes = np.rint(probabilities[1:] * 255).astype(np.uint8)
    data = base64.b64encode(zlib.compress(planes.tobytes(), 1)).decode()
    return {"labels": list(labels), "shape": planes.shape, "data": data}


def unpack_probabilities(packed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Unpack what `pack_probabilities` packed: (h, w) uint8 by label, 255 = 1.0; labels that win nowhere are left out.

    Raises ValueError or KeyError for anything else.
    """
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8).reshape(packed["shape"])
    return {label: plane for label, plane in zip(packed["labels"], planes, strict=True) if plane.max() > 127}


def ask_probabilities(settings: Settings, address: PhotoAddress) -> dict[str, np.ndarray]:
    """Return the champion's probabilities of a photo; empty while there is no champion, or when it cannot be asked."""
    body = {"tasks": [{"data": {"image": address.uri, "generation": str(address.generation)}}]}
    try:
        packed = ask_service(settings, SEGMENTATION, "/probabilities", body, timeout_s=10)
        return unpack_probabilities(packed) if packed else {}
    except (ServiceError, ValueError, KeyError, zlib.error) as error:
        logger.warning("clicks on this photo are answered without the champion: %s", error)
        return {}
