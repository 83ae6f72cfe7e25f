"""The script and the style that Maskloop adds to Label Studio's pages. Runs in Label Studio's environment."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "page"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_PREFIX = "/maskloop/"


class PageAdditions:
    """Django middleware: serve the files of `page/` below /maskloop/, and name them in each HTML page.

    The files hold nothing secret and are served to whoever asks, like Label Studio's own scripts.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._files = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
        version = hashlib.sha256(b"".join(self._files.values())).hexdigest()[:12]
        self._tags = (
            f'<link rel="stylesheet" href="{_PREFIX}editor.css?{version}">'
            f'<script defer src="{_PREFIX}editor.js?{version}"></script>'
        ).encode()

    def __call__(self, request: Any) -> Any:
        """Answer with a file, or with the page that has the tags before the end of its head."""
        if request.path.startswith(_PREFIX):
            return self._file(request)
        response = self._get_response(request)
        is_page = response.get("Content-Type", "").startswith("text/html") and not getattr(response, "streaming", True)
        if is_page and response.status_code == 200 and b"</head>" in response.content:
            response.content = response.content.replace(b"</head>", self._tags + b"</head>", 1)
            if response.has_header("Content-Length"):
                response["Content-Length"] = str(len(response.content))
        return response

    def _file(self, request: Any) -> Any:
        from django.http import HttpResponse

        name = request.path.removeprefix(_PREFIX)
        if request.method not in ("GET", "HEAD") or name not in self._files:
            return HttpResponse("There is no such file.", status=404, content_type="text/plain")
        headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
        return HttpResponse(self._files[name], content_type=_TYPES[Path(name).suffix], headers=headers)
