"""The page of progress at /maskloop/report, behind Label Studio's login. Runs in Label Studio's environment.

`maskloop report` and the DAGs write the page, and a file per person with that person's own numbers, which nobody else
gets. Maskloop's programs use the names of these files and the section of one's own numbers from here as well.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

PATH = "/maskloop/report"
FOLDER_VARIABLE = "LABEL_STUDIO_REPORTS"  # the folder with the page
PAGE, PEOPLE = "report.html", "people"
OWN_NUMBERS = "<!-- own numbers -->"  # where the page gets them
_MISSING = (
    "There is no report yet. It is written after each sync, every Monday, and by `maskloop report` on the machine that "
    "runs Maskloop."
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
}


class ProgressReport:
    """Django middleware: answer GET /maskloop/report with the page that was written last."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._folder = Path(os.environ.get(FOLDER_VARIABLE) or "no-reports")

    def __call__(self, request: Any) -> Any:
        """Answer with the page and the person's own numbers; send people who are not logged in to the login."""
        if request.path.rstrip("/") != PATH:
            return self._get_response(request)
        from django.http import HttpResponse

        if request.method not in ("GET", "HEAD"):
            return HttpResponse("The report is only read.", status=405, headers={"Allow": "GET, HEAD"})
        if not request.user.is_authenticated:
            return HttpResponse("", status=302, headers={"Location": f"/user/login/?next={PATH}"})
        try:
            page = (self._folder / PAGE).read_text(encoding="utf-8")
        except OSError:
            return HttpResponse(_MISSING, status=404, content_type="text/plain; charset=utf-8", headers=_HEADERS)
        page = with_own_numbers(page, read_own_numbers(self._folder, request.user.email))
        return HttpResponse(page, status=200, content_type="text/html; charset=utf-8", headers=_HEADERS)


def person_path(folder: Path, address: str) -> Path:
    """Return the file below the folder of reports that holds a person's own numbers."""
    return folder / PEOPLE / f"{hashlib.sha256(address.strip().lower().encode()).hexdigest()}.json"


def read_own_numbers(folder: Path, address: str) -> dict[str, Any] | None:
    """Return the numbers of the person with this address; None when there are none."""
    try:
        numbers = json.loads(person_path(folder, address).read_text(encoding="utf-8"))
        return numbers if numbers["person"].lower() == address.strip().lower() else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def with_own_numbers(page: str, numbers: Mapping[str, Any] | None) -> str:
    """Return the page with the section of one's own numbers, which begins by saying whose they are."""
    if numbers is None:
        section = "<p>You have no numbers of your own yet: no dataset version has a photo that you labelled.</p>"
    else:
        rows = (
            ("photos you labelled", f"{numbers['photos']:,}"),
            ("photos per working day, in the last four weeks", _rounded(numbers["per_day"], 1)),
            (f"median seconds per photo, of {numbers['timed']} timed photos", _rounded(numbers["seconds"], 0)),
            *((f"week of {week['monday']}", str(week["photos"])) for week in numbers["weeks"]),
        )
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
        section = (
            f"<p>Only you see these, as {escape(numbers['person'])}. Hard photos take longer: compare yourself with "
            f"yourself.</p><table>{cells}</table>"
        )
    return page.replace(OWN_NUMBERS, section, 1)


def _rounded(value: float | None, places: int) -> str:
    return "not enough yet" if value is None else f"{value:.{places}f}"
