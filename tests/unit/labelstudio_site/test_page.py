"""What is added to Label Studio's pages; the script itself is tried in a real browser by tests/integration."""

import re
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines.labelstudio_site.maskloop_page import PageAdditions
from pipelines.settings import PROJECT_ROOT

PAGE = b"<html><head><title>x</title></head><body></body></html>"


class Response(dict[str, str]):
    """What Django answers, as far as a middleware looks at it."""

    def __init__(
        self, content: bytes = PAGE, status: int = 200, content_type: str = "text/html; charset=utf-8",
        headers: dict[str, str] | None = None, streaming: bool = False,
    ) -> None:  # fmt: skip
        super().__init__({"Content-Type": content_type, **(headers or {})})
        self.content, self.status_code, self.streaming = content, status, streaming

    def has_header(self, name: str) -> bool:
        return name in self


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Answer a request to a path, behind which Label Studio gives this response."""
    answers = ModuleType("django.http")
    answers.HttpResponse = Response  # type: ignore[attr-defined]  # it stands in for a module
    monkeypatch.setitem(sys.modules, "django", ModuleType("django"))
    monkeypatch.setitem(sys.modules, "django.http", answers)

    def answer(path: str, response: Response | None = None, method: str = "GET") -> Response:
        return PageAdditions(lambda request: response or Response())(SimpleNamespace(path=path, method=method))

    return answer


def test_each_page_names_script_and_style_and_both_are_served(site: Callable[..., Any]) -> None:
    page = site("/projects/1/data", Response(headers={"Content-Length": str(len(PAGE))}))
    names = re.findall(rb'(?:src|href)="([^"]+)"', page.content)
    assert len(names) == 2
    assert page["Content-Length"] == str(len(page.content))
    for name in names:
        file = site(name.decode().partition("?")[0])
        assert file.status_code == 200
        assert file["X-Content-Type-Options"] == "nosniff"
        assert len(file.content) > 500


@pytest.mark.parametrize(
    "response",
    [
        Response(b'{"a": "</head>"}', content_type="application/json"),
        Response(status=500),
        Response(b"<html><body></body></html>"),
        Response(streaming=True),
    ],
    ids=["json", "an error", "no head", "a stream"],
)
def test_other_answers_stay_as_they_are(site: Callable[..., Any], response: Response) -> None:
    before = response.content
    assert site("/api/tasks", response).content == before


@pytest.mark.parametrize(
    "path", ["/maskloop/", "/maskloop/../maskloop_page.py", "/maskloop/secrets.env", "/maskloop/a/b"]
)
def test_nothing_else_is_served(site: Callable[..., Any], path: str) -> None:
    assert site(path).status_code == 404


def test_files_are_only_read(site: Callable[..., Any]) -> None:
    assert site("/maskloop/editor.js", method="POST").status_code == 404


def test_the_script_loads_nothing_from_elsewhere() -> None:
    folder = PROJECT_ROOT / "pipelines" / "labelstudio_site" / "page"
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|@import|url\(|eval\(|innerHTML", text), path.name
