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
    answers.HttpResponse = lambda text, status, **kinds: SimpleNamespace(text=text, status_code=status, **kinds)  # type: ignore[attr-defined]  # it stands in for a module
    monkeypatch.setitem(sys.modules, "django", ModuleType("django"))
    monkeypatch.setitem(sys.modules, "django.http", answers)
    path = PROJECT_ROOT / "pipelines" / "labelstudio_site" / "maskloop_login_limit.py"
    spec = importlib.util.spec_from_file_location("maskloop_login_limit", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clock = SimpleNamespace(now=1000.0)
    clock.answer = 200  # a login form again: the password was wrong
    middleware = module.LoginRateLimit(lambda request: SimpleNamespace(status_code=clock.answer), now=lambda: clock.now)
    return SimpleNamespace(clock=clock, attempt=lambda **fields: middleware(request(**fields)))


def request(path: str = "/user/login/", address: str = "203.0.113.7", method: str = "POST") -> SimpleNamespace:
    meta = {"HTTP_X_FORWARDED_FOR": address} if address else {}
    return SimpleNamespace(path=path, method=method, META=meta)


def test_after_ten_attempts_the_wait_is_named(limit: Any) -> None:
    assert [limit.attempt().status_code for _ in range(11)] == [200] * 10 + [429]
    refused = limit.attempt()
    assert refused.headers == {"Retry-After": "300"}
    assert refused.text == "Too many tries. Wait 5 minutes, then try again."
    limit.clock.now += 299
    assert limit.attempt().status_code == 429
    limit.clock.now += 2
    assert limit.attempt().status_code == 200


def test_other_clients_and_other_pages_are_not_limited(limit: Any) -> None:
    for _ in range(11):
        limit.attempt()
    assert limit.attempt(address="203.0.113.8").status_code == 200
    assert limit.attempt(path="/api/tasks/1/annotations/").status_code == 200
    assert limit.attempt(method="GET").status_code == 200
    assert limit.attempt(address="").status_code == 200  # from inside


def test_a_header_that_the_client_wrote_itself_does_not_help(limit: Any) -> None:
    statuses = [limit.attempt(address=f"198.51.100.{number}, 203.0.113.7").status_code for number in range(11)]
    assert statuses[-1] == 429


def test_old_attempts_are_forgotten(limit: Any) -> None:
    for number in range(10_002):
        limit.attempt(address=f"2001:db8:{number:x}::1")
    limit.clock.now += 301
    assert limit.attempt(address="2001:db8:ffff::1").status_code == 200


def test_the_addresses_of_one_ipv6_network_count_together(limit: Any) -> None:
    assert [limit.attempt(address=f"2001:db8::{number:x}").status_code for number in range(11)][-1] == 429
    assert limit.attempt(address="2001:db8:0:1::1").status_code == 200


def test_an_office_that_logs_in_at_once_is_not_refused(limit: Any) -> None:
    limit.clock.answer = 302
    assert {limit.attempt().status_code for _ in range(25)} == {302}
    limit.clock.answer = 200
    assert [limit.attempt().status_code for _ in range(11)] == [200] * 10 + [429]
    limit.clock.answer = 302
    assert limit.attempt().status_code == 429  # nor does the right password help before the time is over


@pytest.mark.parametrize(
    ("path", "status", "counts"),
    [
        ("/user/login/", 200, True), ("/user/login/", 403, True), ("/user/login/", 302, False),
        ("/user/signup/", 200, True), ("/user/signup/", 302, False),
        ("/admin/login/", 200, True), ("/api-auth/login/", 200, True),
        ("/api/token/", 401, True), ("/api/token/refresh", 200, False),
        ("/maskloop/account", 400, True), ("/maskloop/account", 200, False), ("/user/login/", 500, True),
    ],
)  # fmt: skip
def test_only_attempts_that_fail_count(limit: Any, path: str, status: int, counts: bool) -> None:
    limit.clock.answer = status
    statuses = [limit.attempt(path=path).status_code for _ in range(11)]
    assert statuses[-1] == (429 if counts else status)
