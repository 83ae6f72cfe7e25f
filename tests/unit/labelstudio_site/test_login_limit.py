"""How often a client may try to log in to Label Studio; the module runs there, so it is loaded by its path."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines.settings import PROJECT_ROOT


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The middleware with a clock to set, and a stand-in for Django's answer."""
    answers = ModuleType("django.http")
    answers.HttpResponse = lambda text, **kinds: SimpleNamespace(text=text, **kinds)  # type: ignore[attr-defined]  # it stands in for a module
    monkeypatch.setitem(sys.modules, "django", ModuleType("django"))
    monkeypatch.setitem(sys.modules, "django.http", answers)
    path = PROJECT_ROOT / "pipelines" / "labelstudio_site" / "maskloop_login_limit.py"
    spec = importlib.util.spec_from_file_location("maskloop_login_limit", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clock = SimpleNamespace(now=1000.0)
    middleware = module.LoginRateLimit(lambda request: SimpleNamespace(status=200), now=lambda: clock.now)
    return SimpleNamespace(clock=clock, attempt=lambda **fields: middleware(request(**fields)))


def request(path: str = "/user/login/", address: str = "203.0.113.7", method: str = "POST") -> SimpleNamespace:
    meta = {"HTTP_X_FORWARDED_FOR": address} if address else {}
    return SimpleNamespace(path=path, method=method, META=meta)


def test_after_ten_attempts_the_wait_is_named(limit: Any) -> None:
    assert [limit.attempt().status for _ in range(11)] == [200] * 10 + [429]
    refused = limit.attempt()
    assert refused.headers == {"Retry-After": "300"}
    assert refused.text == "Too many tries. Wait 5 minutes, then try again."
    limit.clock.now += 299
    assert limit.attempt().status == 429
    limit.clock.now += 2
    assert limit.attempt().status == 200


def test_other_clients_and_other_pages_are_not_limited(limit: Any) -> None:
    for _ in range(11):
        limit.attempt()
    assert limit.attempt(address="203.0.113.8").status == 200
    assert limit.attempt(path="/api/tasks/1/annotations/").status == 200
    assert limit.attempt(method="GET").status == 200
    assert limit.attempt(address="").status == 200  # from inside


def test_a_header_that_the_client_wrote_itself_does_not_help(limit: Any) -> None:
    statuses = [limit.attempt(address=f"198.51.100.{number}, 203.0.113.7").status for number in range(11)]
    assert statuses[-1] == 429


def test_old_attempts_are_forgotten(limit: Any) -> None:
    for number in range(10_002):
        limit.attempt(address=f"2001:db8:{number:x}::1")
    limit.clock.now += 301
    assert limit.attempt(address="2001:db8:ffff::1").status == 200


def test_the_addresses_of_one_ipv6_network_count_together(limit: Any) -> None:
    assert [limit.attempt(address=f"2001:db8::{number:x}").status for number in range(11)][-1] == 429
    assert limit.attempt(address="2001:db8:0:1::1").status == 200
