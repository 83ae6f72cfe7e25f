"""Who may try to log in to Label Studio how often; the module runs there, so it is loaded by its path."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines.settings import PROJECT_ROOT


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The middleware with a clock to set, and a stand-in for Django's answer."""
    answers = ModuleType("django.http")
    answers.HttpResponse = lambda text, **kinds: SimpleNamespace(text=text, **kinds)  # type: ignore[attr-defined]  # it stands in for a module
    monkeypatch.setitem(sys.modules, "django", ModuleType("django"))
    monkeypatch.setitem(sys.modules, "django.http", answers)
    path = PROJECT_ROOT / "pipelines" / "stack" / "label_studio" / "maskloop_doors.py"
    spec = importlib.util.spec_from_file_location("maskloop_doors", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clock = SimpleNamespace(now=1000.0)
    middleware = module.FewTries(lambda request: SimpleNamespace(status=200), now=lambda: clock.now)
    return SimpleNamespace(clock=clock, knock=lambda *knock, **more: middleware(request(*knock, **more)))


def request(path: str = "/user/login/", address: str = "203.0.113.7", method: str = "POST") -> SimpleNamespace:
    meta = {"HTTP_X_FORWARDED_FOR": address} if address else {}
    return SimpleNamespace(path=path, method=method, META=meta)


def test_ten_tries_then_a_wait_that_is_named(door: Any) -> None:
    assert [door.knock().status for _ in range(11)] == [200] * 10 + [429]
    refused = door.knock()
    assert refused.headers == {"Retry-After": "300"}
    assert refused.text == "Too many tries. Wait 5 minutes, then try again."
    door.clock.now += 299
    assert door.knock().status == 429
    door.clock.now += 2
    assert door.knock().status == 200


def test_others_and_other_pages_are_not_kept_waiting(door: Any) -> None:
    for _ in range(11):
        door.knock()
    assert door.knock(address="203.0.113.8").status == 200
    assert door.knock(path="/api/tasks/1/annotations/").status == 200
    assert door.knock(method="GET").status == 200
    assert door.knock(address="").status == 200  # from inside


def test_what_somebody_writes_into_the_header_does_not_help(door: Any) -> None:
    said = [door.knock(address=f"198.51.100.{number}, 203.0.113.7").status for number in range(11)]
    assert said[-1] == 429


def test_addresses_are_forgotten(door: Any) -> None:
    for number in range(10_002):
        door.knock(address=f"2001:db8:{number:x}::1")
    door.clock.now += 301
    assert door.knock(address="2001:db8:ffff::1").status == 200


def test_one_line_with_many_addresses_counts_once(door: Any) -> None:
    assert [door.knock(address=f"2001:db8::{number:x}").status for number in range(11)][-1] == 429
    assert door.knock(address="2001:db8:0:1::1").status == 200
