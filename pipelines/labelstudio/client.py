"""One authenticated connection to Label Studio: the SDK for what it covers, plain JSON for reading in bulk.

The SDK parses every answer into models; for pages that hold megabytes of brush strokes plain JSON is several times
faster. So both share one place for address, token and error messages.
"""

import base64
import binascii
import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from pipelines.contract import LABEL_STUDIO
from pipelines.errors import CredentialsError, ServiceError
from pipelines.log import who_asks
from pipelines.settings import Settings

_REFRESH_MARGIN_S = 30


class LabelStudioClient:
    """A connection: `sdk` is the official client; `get`, `post`, `patch` and `delete` exchange JSON.

    JSON is not checked here. The variable that takes an answer names its shape, one of `labelstudio.schema`. Failures
    become Maskloop's errors: of these methods by themselves, of the SDK within `explained`.
    """

    def __init__(self, url: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        # Bulk reads of annotated tasks take Label Studio many seconds per page.
        self._http = httpx.Client(
            base_url=self.url,
            auth=TokenAuth(self.url, token),
            headers=who_asks(),
            timeout=httpx.Timeout(120, connect=5),
            transport=transport,
        )
        self.sdk = LabelStudio(base_url=self.url, api_key=token, timeout=120)

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of an address below the server's; query values of None are left out."""
        return self._send("GET", path, params={key: value for key, value in query.items() if value is not None})

    def post(self, path: str, body: object, **query: Any) -> Any:
        """Send JSON and return that of the answer."""
        return self._send("POST", path, json=body, params=query)

    def patch(self, path: str, body: object) -> Any:
        """Change some fields of an object; returns the JSON of the answer."""
        return self._send("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._send("DELETE", path)

    def _send(self, method: str, path: str, **arguments: Any) -> Any:
        with self.explained():
            answer = self._http.request(method, path, **arguments)
        if answer.is_success:
            return _json(answer) if answer.content else None
        raise _explain(self.url, answer.status_code, f"{method} {path}: {answer.text[:400]}")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn errors of httpx and of the SDK into Maskloop's, which say what, where and what to do next."""
        try:
            yield
        except ApiError as error:
            raise _explain(self.url, error.status_code or 0, str(error.body)[:400]) from error
        except httpx.TimeoutException as error:
            raise ServiceError(f"Label Studio at {self.url} did not answer in time; try again later") from error
        except httpx.LocalProtocolError:  # its text would hold the token
            raise CredentialsError(
                "MASKLOOP_LABEL_STUDIO_TOKEN holds characters that no token has; copy it again from Account & Settings"
            ) from None
        except httpx.TransportError as error:
            raise ServiceError(
                f"cannot reach Label Studio at {self.url} ({error}); start it with `maskloop up` or set "
                "MASKLOOP_LABEL_STUDIO_URL"
            ) from error


class TokenAuth(httpx.Auth):
    """Send legacy tokens as they are, and exchange personal access tokens for short-lived access tokens."""

    requires_response_body = True

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token
        self._access, self._expires_at = "", 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the Authorization header, refreshing the access token shortly before it expires."""
        if not is_personal_token(self._token):
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        if time.time() > self._expires_at - _REFRESH_MARGIN_S:
            answer = yield httpx.Request("POST", f"{self._url}/api/token/refresh/", json={"refresh": self._token})
            if not answer.is_success:
                raise _explain(
                    self._url, answer.status_code, f"exchange of the personal access token: {answer.text[:200]}"
                )
            self._access = str(_json(answer)["access"])
            self._expires_at = float(_claims(self._access).get("exp", 0))
        request.headers["Authorization"] = f"Bearer {self._access}"
        yield request


def is_personal_token(token: str) -> bool:
    """Return whether a token is a personal access token (a JWT) and no legacy token (40 hex digits)."""
    return token.count(".") == 2 and bool(_claims(token))


def connect(settings: Settings) -> LabelStudioClient:
    """Open a connection with the settings' token; raises CredentialsError when there is none."""
    token = settings.label_studio_token.get_secret_value().strip()
    if not token:
        raise CredentialsError(
            "no Label Studio token; `maskloop up` makes one, or set MASKLOOP_LABEL_STUDIO_TOKEN to a token from "
            "Account & Settings"
        )
    return LabelStudioClient(settings.url(LABEL_STUDIO), token)


def _claims(token: str) -> dict[str, Any]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise ServiceError(
            f"{answer.request.url} answered with a page instead of JSON; is MASKLOOP_LABEL_STUDIO_URL the address of "
            "Label Studio itself?"
        ) from error


def _explain(url: str, status: int, detail: str) -> ServiceError:
    if "reserved network address" in detail or "was not allowed" in detail:
        return ServiceError(
            f"Label Studio at {url} refuses to talk to an address in a network that is banned for it: {detail}. Leave "
            "that network out of USER_ADDITIONAL_BANNED_SUBNETS in Label Studio's environment"
        )
    if status in (401, 403):
        return CredentialsError(
            f"Label Studio at {url} refuses the token (HTTP {status}); it may be revoked, or legacy tokens may be "
            f"switched off for the organisation: set MASKLOOP_LABEL_STUDIO_TOKEN to a valid one. {detail}"
        )
    return ServiceError(f"Label Studio at {url} answered HTTP {status}: {detail}")
