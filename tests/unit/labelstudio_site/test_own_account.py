"""The page of one's own account, with stand-ins for Django; tests/integration asks a real Label Studio."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines.labelstudio_site import maskloop_own_account
from pipelines.labelstudio_site.maskloop_login_limit import AUTH_PATHS
from pipelines.labelstudio_site.maskloop_own_account import PATH, OwnAccount

Ask = Callable[..., Any]


class User:
    """Somebody with an account; notes what is saved."""

    is_authenticated = True

    def __init__(self, email: str = "ada@example.org") -> None:
        self.email, self.first_name, self.last_name, self.password = email, "Ada", 'L<o>"v', "old password"
        self.saved: list[list[str]] = []

    def check_password(self, password: str) -> bool:
        return password == self.password

    def set_password(self, password: str) -> None:
        self.password = password

    def save(self, update_fields: list[str]) -> None:
        self.saved.append(update_fields)


@pytest.fixture
def user() -> User:
    return User()


@pytest.fixture
def ask(user: User, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask the middleware as that person; `form` is what the page sends."""
    answers = ModuleType("django.http")
    answers.HttpResponse = lambda text, **kinds: SimpleNamespace(text=text, **kinds)  # type: ignore[attr-defined]  # it stands in for a module
    monkeypatch.setitem(sys.modules, "django", ModuleType("django"))
    monkeypatch.setitem(sys.modules, "django.http", answers)
    monkeypatch.setenv("LABEL_STUDIO_USERNAME", "Admin@maskloop.local")
    ended: list[Any] = []
    monkeypatch.setattr(maskloop_own_account, "_end_other_sessions", ended.append)

    def answer(
        form: dict[str, str] | None = None, *, path: str = PATH, method: str = "", origin: str = "https://labels"
    ) -> Any:
        request = SimpleNamespace(
            path=path, method=method or ("GET" if form is None else "POST"), user=user, POST=form or {},
            META={"HTTP_ORIGIN": origin}, get_host=lambda: "labels",
        )  # fmt: skip
        reply = OwnAccount(lambda request: SimpleNamespace(text="Label Studio's", status=200))(request)
        reply.ended = len(ended)
        return reply

    return answer


def form(**fields: str) -> dict[str, str]:
    return {"first_name": "Ada", "last_name": "King", "present": "", "new": "", "again": ""} | fields


def test_the_page_shows_names_as_text(ask: Ask) -> None:
    page = ask()

    assert page.status == 200
    assert "ada@example.org" in page.text
    assert "L&lt;o&gt;&quot;v" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_a_name_alone_is_saved_without_a_password(ask: Ask, user: User) -> None:
    page = ask(form(last_name="  King \t of  Lovelace "))

    assert (page.status, page.ended) == (200, 0)
    assert user.saved == [["first_name", "last_name"]]
    assert user.last_name == "King of Lovelace"
    assert user.password == "old password"


def test_a_new_password_ends_other_sessions(ask: Ask, user: User) -> None:
    page = ask(form(present="old password", new="better password", again="better password"))

    assert (page.status, page.ended) == (200, 1)
    assert user.password == "better password"
    assert user.saved == [["first_name", "last_name", "password"]]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"present": "a guess", "new": "better password", "again": "better password"}, "another one"),
        ({"new": "better password", "again": "better password"}, "another one"),
        ({"present": "old password", "new": "better password", "again": "better passwort"}, "differ"),
        ({"present": "old password", "new": "", "again": "better password"}, "differ"),
        ({"present": "old password", "new": "short", "again": "short"}, "10 to 64 characters"),
        ({"present": "old password", "new": "x" * 65, "again": "x" * 65}, "10 to 64 characters"),
        ({"first_name": "x" * 101}, "at most 100 characters"),
        ({"last_name": "bell\a"}, "cannot be printed"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(ask: Ask, user: User, fields: dict[str, str], said: str) -> None:
    page = ask(form(**fields))

    assert page.status == 400
    assert said in page.text
    assert (user.saved, user.first_name, user.password, page.ended) == ([], "Ada", "old password", 0)


@pytest.mark.parametrize("origin", ["", "null", "https://loop", "https://labels.example.org"])
def test_other_pages_send_nothing(ask: Ask, user: User, origin: str) -> None:
    page = ask(form(), origin=origin)

    assert page.status == 400
    assert "not sent from this page" in page.text
    assert user.saved == []


def test_maskloops_own_account_is_none_of_a_persons(ask: Ask, user: User) -> None:
    user.email = "admin@maskloop.local"

    assert "changed on the server" in ask(form()).text
    assert user.saved == []


def test_nobody_is_sent_to_the_login(ask: Ask, user: User) -> None:
    user.is_authenticated = False

    for answer in (ask(), ask(form())):
        assert (answer.status, answer.text) == (302, "")
        assert answer.headers["Location"] == "/user/login/?next=/maskloop/account"


def test_other_paths_and_methods(ask: Ask) -> None:
    assert ask(path="/maskloop/accounts").text == "Label Studio's"
    assert ask(path="/maskloop/account/").status == 200
    assert ask(method="DELETE").status == 405


def test_attempts_are_limited() -> None:
    assert PATH.startswith(AUTH_PATHS)
