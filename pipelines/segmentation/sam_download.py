"""Download of large files that goes on where it stopped, however often the network or the process ends.

What has arrived is in a `.part` file beside the final one. The next try, of this process or a later one, asks for the
rest (RFC 9110, range requests). A file gets its final name only when its SHA-256 is the expected one.
"""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.filesize import decimal

from pipelines.errors import ModelError
from pipelines.fs import held
from pipelines.segmentation.sam_checkpoints import LICENSE, RemoteFile, file_sha256

logger = logging.getLogger(__name__)

Report = Callable[[str], None]  # gets one line of text about how far it is
_TIMEOUT = httpx.Timeout(30, connect=10)
_CHUNK = 1 << 20
_LOG_S = 30  # between two lines in the log
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416


class DownloadError(ModelError):
    """Raise when a try failed; another one may succeed."""


def download(files: tuple[RemoteFile, ...], folder: Path, report: Report) -> None:
    """Download the files that are missing in a folder; what an earlier try left is used.

    `report` gets texts such as "12 % of 358 MB". Other processes that want the same folder wait. Raises DownloadError
    when the network is away, the disk is full, or the bytes are not those expected; then what arrived stays, unless it
    is damaged.
    """
    try:
        with held(folder / ".lock"):
            for file in files:
                if not (folder / file.name).exists():
                    _download(file, folder / file.name, report)
    except httpx.HTTPError as error:
        raise DownloadError(f"{_host(files)} cannot be reached ({type(error).__name__}: {error})") from error
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written ({error})") from error


def _download(file: RemoteFile, path: Path, report: Report) -> None:
    part = path.with_name(f".{path.name}.part")
    logger.info("downloading %s, licence %s", file.address, LICENSE)
    linked = _fetch(file, part, report)
    expected = file.sha256 or linked
    report("checking the SHA-256")
    if expected and (actual := file_sha256(part)) != expected:
        part.unlink()
        raise DownloadError(f"{file.address} has SHA-256 {actual[:12]}…, not {expected[:12]}…: it is downloaded again")
    part.replace(path)
    logger.info("%s is complete", path)


def _fetch(file: RemoteFile, part: Path, report: Report) -> str:
    """Append what is missing to the part, and return the SHA-256 that the server names, or an empty text."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    with (
        httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client,
        client.stream("GET", file.address, headers={**headers, "Accept-Encoding": "identity"}) as response,
    ):
        linked = _linked_sha256(response)
        if response.status_code == _UNSATISFIABLE and _total(response) == start:
            return linked  # a process was killed between the last byte and the check
        if response.status_code == _UNSATISFIABLE or (response.status_code == _PARTIAL and _first(response) != start):
            part.unlink(missing_ok=True)
            raise DownloadError(f"{file.address} has no bytes from {start} on: it is downloaded from the start")
        if response.status_code not in (_OK, _PARTIAL):
            raise DownloadError(f"{file.address} answers HTTP {response.status_code}")
        _write(response, part, start if response.status_code == _PARTIAL else 0, report)
    return linked


def _write(response: httpx.Response, part: Path, start: int, report: Report) -> None:
    total, done, logged = _total(response), start, time.monotonic()
    with part.open("ab" if start else "wb") as target:
        for chunk in response.iter_bytes(_CHUNK):
            target.write(chunk)
            done += len(chunk)
            text = f"{100 * done // total} % of {decimal(total)}" if total else decimal(done)
            report(text)
            if time.monotonic() - logged >= _LOG_S:
                logger.info("%s: %s", part.name, text)
                logged = time.monotonic()
    if total and done != total:
        raise DownloadError(f"{response.url.host} stopped sending at {done} of {total} bytes")


def _total(response: httpx.Response) -> int:
    """Return the size of the whole file in bytes, or 0 when the server does not say."""
    if match := re.search(r"/(\d+)$", response.headers.get("Content-Range", "")):
        return int(match[1])
    return int(response.headers.get("Content-Length", 0)) if response.status_code == _OK else 0


def _first(response: httpx.Response) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _linked_sha256(response: httpx.Response) -> str:
    """Return the SHA-256 of a large file on Hugging Face, which the first answer, a redirect, names."""
    for answer in (*response.history, response):
        if match := re.fullmatch(r'"?([0-9a-f]{64})"?', answer.headers.get("X-Linked-Etag", "")):
            return match[1]
    return ""


def _host(files: tuple[RemoteFile, ...]) -> str:
    return httpx.URL(files[0].address).host
