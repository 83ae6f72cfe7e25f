"""The page of progress behind Label Studio's login, with a stand-in for Django's answer."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines.labelstudio_site.maskloop_report import OWN_NUMBERS, ProgressReport, person_path

ADA = {"person": "ada@example.org", "photos": 1234, "weeks": [{"monday": "2026-03-09", "photos": 7}],
       "per_day": 4.26, "seconds": None, "timed": 3}  # fmt: skip
Ask = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Reports with the page and the numbers of one person."""
    (tmp_path / "report.html").write_text(f"<h1>Progress</h1>{OWN_NUMBERS}", encoding="utf-8")
    path = person_path(tmp_path, "ada@example.org")
    path.parent.mkdir()
    path.write_text(json.dumps(ADA), encoding="utf-8")
    return tmp_path


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask the middleware as somebody; without an address nobody is logged in."""
    answers = ModuleType("django.http")
    answers.HttpResponse = lambda text, **kinds: SimpleNamespace(text=text, **kinds)  # type: ignore[attr-defined]  # it stands in for a module
    monkeypatch.setitem(sys.modules, "django", ModuleType("django"))
    monkeypatch.setitem(sys.modules, "django.http", answers)
    monkeypatch.setenv("LABEL_STUDIO_REPORTS", str(folder))

    def answer(email: str = "", path: str = "/maskloop/report", method: str = "GET") -> Any:
        user = SimpleNamespace(is_authenticated=bool(email), email=email)
        request = SimpleNamespace(path=path, method=method, user=user)
        return ProgressReport(lambda request: SimpleNamespace(text="Label Studio's", status=200))(request)

    return answer


def test_whoever_is_logged_in_gets_the_page_with_their_own_numbers(ask: Ask) -> None:
    page = ask("Ada@Example.org")
    assert page.status == 200 and page.content_type.startswith("text/html")
    assert "1,234" in page.text and "<td>4.3</td>" in page.text and "not enough yet" in page.text
    assert "week of 2026-03-09</td><td>7</td>" in page.text
    assert page.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert page.headers["Cache-Control"] == "private, no-store"


def test_others_get_the_page_without_them(ask: Ask) -> None:
    page = ask("bob@example.org")
    assert page.status == 200
    assert "ada" not in page.text and "1,234" not in page.text and "no numbers of your own yet" in page.text


def test_who_is_not_logged_in_goes_to_the_login(ask: Ask) -> None:
    answer = ask()
    assert (answer.status, answer.text) == (302, "")
    assert answer.headers["Location"] == "/user/login/?next=/maskloop/report"


def test_without_a_page_it_says_how_one_is_written(ask: Ask, folder: Path) -> None:
    (folder / "report.html").unlink()
    answer = ask("ada@example.org")
    assert answer.status == 404 and "maskloop report" in answer.text


def test_it_is_only_read(ask: Ask) -> None:
    assert ask("ada@example.org", method="POST").status == 405


@pytest.mark.parametrize("path", ["/maskloop/editor.js", "/maskloop/reports", "/maskloop/report/people", "/projects"])
def test_other_paths_are_passed_on(ask: Ask, path: str) -> None:
    assert ask("ada@example.org", path=path).text == "Label Studio's"


@pytest.mark.parametrize("text", ["", "[]", '{"person": 3}', json.dumps(ADA | {"person": "eve@example.org"})])
def test_a_file_that_is_not_the_persons_is_shown_to_nobody(ask: Ask, folder: Path, text: str) -> None:
    person_path(folder, "ada@example.org").write_text(text, encoding="utf-8")
    assert "no numbers of your own yet" in ask("ada@example.org").text


def test_names_are_escaped(ask: Ask, folder: Path) -> None:
    address = "<b>@example.org"
    person_path(folder, address).write_text(json.dumps(ADA | {"person": address}), encoding="utf-8")
    assert "<b>" not in ask(address).text and "&lt;b&gt;@example.org" in ask(address).text
