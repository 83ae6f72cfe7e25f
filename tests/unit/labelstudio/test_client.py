"""The connection: which token goes out how, and what people read when it fails."""

import base64
import json
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest
from label_studio_sdk.core.api_error import ApiError
from pydantic import SecretStr

from pipelines.errors import CredentialsError, ServiceError
from pipelines.labelstudio.client import LabelStudioClient, connect, is_personal_token
from pipelines.settings import Settings

URL = "http://label-studio.test"
LEGACY = "0123456789abcdef0123456789abcdef01234567"


def jwt(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"head.{payload}.signature"


class TokenServer:
    """Label Studio as far as tokens go: exchanges a personal token, and notes every other Authorization header."""

    def __init__(self, *, lifetime_s: float = 300, revoked: bool = False) -> None:
        self.lifetime_s, self.revoked = lifetime_s, revoked
        self.refreshed: list[str] = []
        self.seen: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/token/refresh/":
            self.refreshed.append(json.loads(request.content)["refresh"])
            if self.revoked:
                return httpx.Response(401, json={"detail": "token is blacklisted"})
            return httpx.Response(200, json={"access": jwt(exp=time.time() + self.lifetime_s, n=len(self.refreshed))})
        self.seen.append(request.headers["Authorization"])
        return httpx.Response(401 if self.revoked else 200, json={})


def client_of(handler: Callable[[httpx.Request], httpx.Response], token: str = LEGACY) -> LabelStudioClient:
    return LabelStudioClient(URL, token, transport=httpx.MockTransport(handler))


def test_a_legacy_token_goes_out_as_it_is() -> None:
    server = TokenServer()

    client_of(server).get("/api/projects")

    assert (server.seen, server.refreshed) == ([f"Token {LEGACY}"], [])


def test_a_personal_token_is_exchanged_once_and_never_sent_itself() -> None:
    server, personal = TokenServer(), jwt(token_type="refresh")
    client = client_of(server, personal)

    client.get("/api/projects")
    client.get("/api/projects")

    assert server.refreshed == [personal]
    assert len(set(server.seen)) == 1
    assert server.seen[0].startswith("Bearer head.")
    assert personal not in server.seen[0]


def test_an_access_token_about_to_expire_is_replaced() -> None:
    server = TokenServer(lifetime_s=10)
    client = client_of(server, jwt(token_type="refresh"))

    client.get("/api/projects")
    client.get("/api/projects")

    assert len(server.refreshed) == 2
    assert server.seen[0] != server.seen[1]


def test_a_revoked_personal_token_is_named_as_the_cause() -> None:
    client = client_of(TokenServer(revoked=True), jwt(token_type="refresh"))

    with pytest.raises(CredentialsError, match="MASKLOOP_LABEL_STUDIO_TOKEN"):
        client.get("/api/projects")


@pytest.mark.parametrize(
    ("token", "personal"),
    [(LEGACY, False), ("", False), ("a.b.c", False), ("a.W10.c", False), (jwt(token_type="refresh"), True)],
)
def test_personal_tokens_are_told_from_legacy_ones(token: str, personal: bool) -> None:
    assert is_personal_token(token) is personal


def test_a_refused_exchange_is_no_matter_of_the_network() -> None:
    """Through the real HTTP stack, which would refuse an empty token in a header of its own accord."""

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with HTTPServer(("127.0.0.1", 0), Refusal) as server:
        Thread(target=server.handle_request).start()
        client = LabelStudioClient(f"http://127.0.0.1:{server.server_port}", jwt(token_type="refresh"))
        with pytest.raises(CredentialsError, match="exchange of the personal access token"):
            client.get("/api/projects/")


def test_a_token_that_no_header_can_hold_is_not_shown() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        client = LabelStudioClient(f"http://127.0.0.1:{server.server_port}", "0123456789abcdef\nsecret")
        with pytest.raises(CredentialsError, match="holds characters that no token has") as refused:
            client.get("/api/projects/")

    assert "secret" not in "".join(traceback.format_exception(refused.value))


def test_a_banned_address_is_not_taken_for_a_bad_token() -> None:
    refusal = httpx.MockTransport(lambda _: httpx.Response(403, text="URL resolves to a reserved network address"))

    with pytest.raises(ServiceError, match="USER_ADDITIONAL_BANNED_SUBNETS") as refused:
        LabelStudioClient("http://label-studio.test", "token", transport=refusal).post("/api/ml", {})

    assert not isinstance(refused.value, CredentialsError)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, CredentialsError), (403, CredentialsError), (404, ServiceError), (500, ServiceError)]
)
def test_failures_name_address_status_and_answer(status: int, kind: type[ServiceError]) -> None:
    client = client_of(lambda _: httpx.Response(status, text="the reason"))

    with pytest.raises(ServiceError, match=rf"{URL}.*{status}.*the reason") as caught:
        client.get("/api/projects")

    assert type(caught.value) is kind


def test_a_page_instead_of_json_points_at_the_address() -> None:
    client = client_of(lambda _: httpx.Response(200, text="<html>welcome</html>"))

    with pytest.raises(ServiceError, match="MASKLOOP_LABEL_STUDIO_URL"):
        client.get("/api/projects")


def test_a_server_that_is_down_is_no_stack_trace(free_port: int) -> None:
    client = LabelStudioClient(f"http://127.0.0.1:{free_port}", LEGACY)

    with pytest.raises(ServiceError, match="maskloop up"):
        client.get("/api/projects")


def test_a_slow_server_is_told_from_one_that_is_down() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow", request=request)

    with pytest.raises(ServiceError, match="did not answer in time"):
        client_of(slow).get("/api/projects")


@pytest.mark.parametrize(("status", "kind"), [(401, CredentialsError), (400, ServiceError)])
def test_errors_of_the_sdk_become_ours(status: int, kind: type[ServiceError]) -> None:
    client = client_of(TokenServer())

    with pytest.raises(ServiceError) as caught, client.explained():
        raise ApiError(status_code=status, body={"detail": "no"})

    assert type(caught.value) is kind


def test_query_values_of_none_are_left_out() -> None:
    client = client_of(lambda request: httpx.Response(200, json=str(request.url)))

    assert client.get("/api/tasks", page=1, query=None) == f"{URL}/api/tasks?page=1"


def test_an_empty_answer_is_none() -> None:
    assert client_of(lambda _: httpx.Response(204)).post("/api/dm/actions", {}) is None


def test_without_a_token_the_remedy_is_named() -> None:
    with pytest.raises(CredentialsError, match="maskloop up"):
        connect(Settings(label_studio_token=SecretStr("")))
