"""Requests of the stations to the two model services, with one way of saying that they failed."""

from typing import Any

import httpx

from pipelines.errors import ServiceError
from pipelines.settings import Settings


def ask_service(settings: Settings, service: str, path: str, body: Any, *, timeout_s: float) -> Any:
    """Post JSON to `segmentation` or `segment_anything` and give the JSON of the answer.

    Raises ServiceError with the remedy when the service does not answer, or not as it should.
    """
    url = settings.url(service) + path
    name = service.replace("_", "-")
    try:
        answer = httpx.post(url, json=body, timeout=httpx.Timeout(timeout_s, connect=5))
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
        raise ServiceError(f"{url} answered no JSON; is MASKLOOP_{service.upper()}_URL right?") from error
