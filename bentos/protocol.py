"""The part of Label Studio's ML backend protocol that both services share: events, login, and errors as answers."""

import base64
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar, cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from pipelines.errors import BusyError, ContractError, DataError, MaskloopError
from pipelines.log import REQUEST_ID
from pipelines.settings import get_settings

Service = TypeVar("Service")
Scope = MutableMapping[str, Any]  # what ASGI calls an application with: the request, and how to read and answer it
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
requests_log = logging.getLogger("bentos.requests")
_MAX_BYTES = 64 << 20  # of a request: Label Studio sends up to a hundred tasks with what was drawn on them
OPEN_PATHS = ("/", "/health", "/livez", "/readyz", "/healthz")  # what health checks ask for
_BENTOML_PAGES = ("/static_content", "/assets", "/docs.json", "/schema.json")
_STATUS = ((DataError, 400), (ContractError, 409), (BusyError, 503))


def backend_app(title: str) -> FastAPI:
    """Return an app that accepts Label Studio's events and explains errors; `require_login` asks for the login.

    Unusable input is HTTP 400, labels that disagree 409, too many items at once 503, an error of another server 502.
    Requests of more than 64 MB are 413, without a length 411, without JSON 415.
    """
    app = FastAPI(title=title, docs_url=None, redoc_url=None)  # pages with scripts from elsewhere
    if not requests_log.handlers:
        requests_log.addHandler(logging.StreamHandler())
        requests_log.setLevel(logging.INFO)

    @app.middleware("http")
    async def refuse_and_log(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.scope["path"] in OPEN_PATHS:
            return await call_next(request)
        started = time.perf_counter()
        answer = _refusal(request) or await call_next(request)
        _log_request(request, answer.status_code, time.perf_counter() - started)
        return answer

    @app.post("/webhook")
    async def webhook() -> dict[str, str]:
        """Accept events; the pipelines read the state of the stores themselves."""
        return {"status": "ok"}

    @app.exception_handler(MaskloopError)
    async def explain(request: Request, error: MaskloopError) -> JSONResponse:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 502)
        return JSONResponse({"detail": str(error)}, status, {"Retry-After": "5"} if status == 503 else None)

    return app


class LoginMiddleware:
    """ASGI middleware around a whole service: all but `OPEN_PATHS` needs the services' login, BentoML's pages are gone.

    BentoML adds routes of its own, such as `/metrics`, which the app in a service knows nothing of.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused, and pass on every other."""
        refusal = _refuse(Request(scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)


def require_login(service: Service) -> Service:
    """Return a BentoML service with `LoginMiddleware` around all that it answers."""
    cast(Any, service).add_asgi_middleware(LoginMiddleware)  # its decorator is typed as if it returned the class
    return service


def _refuse(request: Request) -> Response | None:
    path = str(request.scope["path"])  # `request.url` follows the header Host, which may hold anything
    if path in OPEN_PATHS:
        return None
    if not _is_authorized(request.headers.get("authorization", "")):
        detail = "this service asks for a login: MASKLOOP_SERVICE_USER and MASKLOOP_SERVICE_PASSWORD, as basic auth"
        return JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": 'Basic realm="maskloop"'})
    if path.startswith(_BENTOML_PAGES):
        return JSONResponse({"detail": f"there is no {path}"}, 404)
    return None


def _log_request(request: Request, status: int, seconds: float) -> None:
    """Log a request as a line of JSON; `asked_by` names the DAG, run and task, and is empty for Label Studio."""
    line = {
        "path": request.url.path, "status": status, "seconds": round(seconds, 3),
        "asked_by": request.headers.get(REQUEST_ID, ""),
    }  # fmt: skip
    requests_log.info(json.dumps(line))


def _refusal(request: Request) -> Response | None:
    length = request.headers.get("content-length", "")
    if request.method == "POST" and not length.isdecimal():
        return JSONResponse({"detail": "the request must have its length: Content-Length"}, 411)
    if length.isdecimal() and int(length) > _MAX_BYTES:
        return JSONResponse({"detail": f"more than {_MAX_BYTES >> 20} MB: send fewer tasks at a time"}, 413)
    if length not in ("", "0") and not request.headers.get("content-type", "").startswith("application/json"):
        return JSONResponse({"detail": "the body must be JSON: Content-Type: application/json"}, 415)
    return None


def _is_authorized(authorization: str) -> bool:
    settings = get_settings()
    password = settings.service_password.get_secret_value()
    expected = base64.b64encode(f"{settings.service_user}:{password}".encode()).decode()
    return not password or secrets.compare_digest(authorization.encode(), f"Basic {expected}".encode())
