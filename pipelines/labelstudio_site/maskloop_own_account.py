"""The page /maskloop/account, on which people change their own name and password. Runs in Label Studio's environment.

Label Studio's own form writes to any account by its number, so the server's entry refuses it.
"""

import os
from collections.abc import Callable, Mapping
from html import escape
from typing import Any
from urllib.parse import urlsplit

PATH = "/maskloop/account"
_LENGTHS = range(10, 65)  # characters of a password; Label Studio's login takes no longer ones
_MAX_NAME = 100
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Your account</title>
<meta name="viewport" content="width=device-width"><style>
body {{font: 16px/1.5 sans-serif; max-width: 26rem; margin: 3rem auto; padding: 0 1rem}}
label {{display: block; margin: .8rem 0}} input {{display: block; width: 100%; font: inherit; padding: .3rem}}
button {{font: inherit; padding: .4rem 1.2rem; margin: .8rem 0}}
.said {{border-left: 4px solid #1f77b4; padding: .3rem .8rem}}
</style><h1>Your account</h1><p>{address}</p>{said}<form method="post" action="{path}">
<label>First name · Nome
<input name="first_name" value="{first}" maxlength="{longest}" autocomplete="given-name"></label>
<label>Last name · Cognome
<input name="last_name" value="{last}" maxlength="{longest}" autocomplete="family-name"></label>
<p>A new password, or nothing to keep the old one · Una nuova password, o niente per tenere la vecchia:</p>
<label>Present password · Password attuale<input name="present" type="password" autocomplete="current-password"></label>
<label>New password · Nuova password<input name="new" type="password" autocomplete="new-password"></label>
<label>New password again · Ancora la nuova<input name="again" type="password" autocomplete="new-password"></label>
<button>Save · Salva</button></form><p><a href="/projects/">Back to the project · Torna al progetto</a></p>
<p>Whoever forgot the password gets a new one from the person in charge. · Chi ha dimenticato la password ne riceve una
nuova dalla persona responsabile.</p></html>"""


class RefusedError(Exception):
    """Raise when a change is not made; the text says why and what to do."""


class OwnAccount:
    """Django middleware: show and change the name and the password of whoever is logged in, and of nobody else."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer with the form, after a change with what was done; people who are not logged in get the login."""
        if request.path.rstrip("/") != PATH:
            return self._get_response(request)
        from django.http import HttpResponse

        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponse("", status=405, headers={"Allow": "GET, HEAD, POST"})
        if not request.user.is_authenticated:
            return HttpResponse("", status=302, headers={"Location": f"/user/login/?next={PATH}"})
        status, said = 200, ""
        if request.method == "POST":
            try:
                said = _change(request)
            except RefusedError as refusal:
                status, said = 400, str(refusal)
        page = page_of(request.user, said)
        return HttpResponse(page, status=status, content_type="text/html; charset=utf-8", headers=_HEADERS)


def page_of(user: Any, said: str) -> str:
    """Return the page with a person's names, and a line about what was done."""
    return _PAGE.format(
        path=PATH, address=escape(user.email), first=escape(user.first_name), last=escape(user.last_name),
        longest=_MAX_NAME, said=f'<p class="said" role="status">{escape(said)}</p>' if said else "",
    )  # fmt: skip


def _change(request: Any) -> str:
    """Change what the form says; return what was done, or raise RefusedError before anything was changed."""
    if urlsplit(request.META.get("HTTP_ORIGIN", "")).netloc != request.get_host():
        raise RefusedError("This form was not sent from this page. Open it again, and press Save.")
    user, form = request.user, request.POST
    if user.email.lower() == os.environ.get("LABEL_STUDIO_USERNAME", "").lower():
        raise RefusedError("This is Maskloop's own account. Its password is changed on the server.")
    names = {field: _name(form, field) for field in ("first_name", "last_name")}
    password = _new_password(user, form)
    for field, name in names.items():
        setattr(user, field, name)
    if password is None:
        user.save(update_fields=list(names))
        return "Your name is saved. · Il nome è salvato."
    user.set_password(password)
    user.save(update_fields=[*names, "password"])
    _end_other_sessions(request)
    return "Name and password are saved. You are logged out everywhere else. · Nome e password sono salvati."


def _name(form: Mapping[str, str], field: str) -> str:
    name = " ".join(form.get(field, "").split())
    if len(name) > _MAX_NAME or not name.isprintable():
        raise RefusedError(f"A name has at most {_MAX_NAME} characters, and none that cannot be printed.")
    return name


def _new_password(user: Any, form: Mapping[str, str]) -> str | None:
    """Return the new password, or None when the old one stays."""
    present, new, again = (form.get(field, "") for field in ("present", "new", "again"))
    if not (new or again):
        return None
    if not user.check_password(present):
        raise RefusedError("The present password is another one. · La password attuale non è giusta.")
    if new != again:
        raise RefusedError("The two new passwords differ. · Le due nuove password sono diverse.")
    if len(new) not in _LENGTHS:
        raise RefusedError(f"A password has {_LENGTHS[0]} to {_LENGTHS[-1]} characters. · Da 10 a 64 caratteri.")
    return new


def _end_other_sessions(request: Any) -> None:
    """Let this session go on; others end by themselves with the old password, and a token is exchanged."""
    from django.contrib.auth import update_session_auth_hash
    from rest_framework.authtoken.models import Token

    update_session_auth_hash(request, request.user)
    Token.objects.filter(user_id=request.user.pk).delete()
    Token.objects.create(user_id=request.user.pk)
