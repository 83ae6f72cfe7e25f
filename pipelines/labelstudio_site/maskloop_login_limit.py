"""A limit on login attempts from outside. Runs in Label Studio's environment.

Label Studio 1.23 lets anybody guess passwords as fast as it answers. Behind a proxy, the client's address is the last
one in the X-Forwarded-For header, because the proxy appends it. Requests from inside have no such header and are not
counted. Neither are attempts that succeed: people of one office share an address, and log in at the same time.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

AUTH_PATHS = ("/user/login", "/user/signup", "/api/token", "/admin/login", "/api-auth/login", "/maskloop/account")
_FORMS = ("/user/", "/admin/", "/api-auth/")  # answer 200 with the form again to a wrong password, else 302
_MAX_ATTEMPTS, _WINDOW_S = 10, 300.0
_MAX_CLIENTS = 10_000  # stored at a time


class LoginRateLimit:
    """Django middleware: after ten failed attempts in five minutes, a client gets HTTP 429 until one is that old."""

    def __init__(self, get_response: Callable[[Any], Any], now: Callable[[], float] = time.monotonic) -> None:
        self._get_response, self._now = get_response, now
        self._attempts: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def __call__(self, request: Any) -> Any:
        """Answer a request, or refuse it when it is one attempt too many."""
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
        if request.method != "POST" or not forwarded or not request.path.startswith(AUTH_PATHS):
            return self._get_response(request)
        client, began = client_prefix(forwarded.rpartition(",")[2].strip()), self._now()
        wait = self._seconds_to_wait(client, began)
        if not wait:
            answer = self._get_response(request)
            if succeeded(request.path, answer.status_code):
                self._forget(client, began)
            return answer
        from django.http import HttpResponse

        text = f"Too many tries. Wait {math.ceil(wait / 60)} minutes, then try again."
        return HttpResponse(text, status=429, headers={"Retry-After": str(math.ceil(wait))}, content_type="text/plain")

    def _seconds_to_wait(self, client: str, now: float) -> float:
        """Count an attempt; return how long the client must wait, or 0 when it may try."""
        with self._lock:
            if len(self._attempts) > _MAX_CLIENTS:
                self._drop_old(now)
            times = self._attempts.setdefault(client, deque(maxlen=_MAX_ATTEMPTS))
            if len(times) == _MAX_ATTEMPTS and now - times[0] < _WINDOW_S:
                return _WINDOW_S - (now - times[0])
            times.append(now)
            return 0.0

    def _forget(self, client: str, began: float) -> None:
        with self._lock:
            times = self._attempts.get(client)
            if times and began in times:
                times.remove(began)

    def _drop_old(self, now: float) -> None:
        waiting = [(client, times) for client, times in self._attempts.items() if times]
        newest = sorted(waiting, key=lambda item: item[1][-1])[-_MAX_CLIENTS // 2 :]
        self._attempts = {client: times for client, times in newest if now - times[-1] < _WINDOW_S}


def succeeded(path: str, status: int) -> bool:
    """Return whether an answer's HTTP status says that an attempt succeeded."""
    return status == 302 or (status < 400 and not path.startswith(_FORMS))


def client_prefix(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 address.

    A single line usually gets a whole /64. Text that is no address is returned as it is.
    """
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((known, 64), strict=False)) if known.version == 6 else address
