"""How often somebody may try to log in to Label Studio from outside. Runs in Label Studio's environment.

Label Studio 1.23 lets anybody guess passwords as fast as it answers. Behind a proxy the address of who asks is the last
one that the proxy wrote down; requests from inside, which have none, are not counted.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

_TRIES, _WINDOW_S = 10, 300.0
_DOORS = ("/user/login", "/user/signup", "/api/token", "/admin/login", "/api-auth/login")
_MOST_ADDRESSES = 10_000


class FewTries:
    """Django middleware: an address may knock ten times in five minutes; then it gets 429 until time has passed."""

    def __init__(self, answer: Callable[[Any], Any], now: Callable[[], float] = time.monotonic) -> None:
        self._answer, self._now = answer, now
        self._knocks: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def __call__(self, request: Any) -> Any:
        """Answer a request, unless it is one knock too many."""
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
        if request.method != "POST" or not forwarded or not request.path.startswith(_DOORS):
            return self._answer(request)
        wait = self.seconds_to_wait(_household(forwarded.rpartition(",")[2].strip()))
        if not wait:
            return self._answer(request)
        from django.http import HttpResponse

        text = f"Too many tries. Wait {math.ceil(wait / 60)} minutes, then try again."
        return HttpResponse(text, status=429, headers={"Retry-After": str(math.ceil(wait))}, content_type="text/plain")

    def seconds_to_wait(self, address: str) -> float:
        """Count a knock; gives how long this address must wait, or 0 when it may come in."""
        now = self._now()
        with self._lock:
            if len(self._knocks) > _MOST_ADDRESSES:
                newest = sorted(self._knocks.items(), key=lambda one: one[1][-1])[-_MOST_ADDRESSES // 2 :]
                self._knocks = {one: times for one, times in newest if now - times[-1] < _WINDOW_S}
            times = self._knocks.setdefault(address, deque(maxlen=_TRIES))
            if len(times) == _TRIES and now - times[0] < _WINDOW_S:
                return _WINDOW_S - (now - times[0])
            times.append(now)
            return 0.0


def _household(address: str) -> str:
    """Give what counts as one: an IPv4 address, or the 64 bits of an IPv6 address that one line usually gets."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((known, 64), strict=False)) if known.version == 6 else address
