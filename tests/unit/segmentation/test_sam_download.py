"""Downloads go on where they stopped, and only bytes with the expected SHA-256 get the file's name."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from pipelines.segmentation.sam_checkpoints import RemoteFile
from pipelines.segmentation.sam_download import DownloadError, download

DATA = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@dataclass
class Publisher:
    """What the server does: `breaks_at` ends an answer after that many bytes; `ranges` notes what was asked for."""

    url: str = ""
    data: bytes = DATA
    breaks_at: int | None = None
    supports_ranges: bool = True
    status: int = 200
    linked: str = ""
    ranges: list[str | None] = field(default_factory=list)

    def file(self, sha256: str = DIGEST) -> tuple[RemoteFile, ...]:
        return (RemoteFile("weights.bin", f"{self.url}/weights", sha256),)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    state = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/weights":  # as Hugging Face does
                self.send_response(302)
                self.send_header("Location", "/stored")
                if state.linked:
                    self.send_header("X-Linked-Etag", f'"{state.linked}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = self.headers["Range"]
            state.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.supports_ranges else 0
            status = 206 if start else state.status
            if start >= len(state.data):
                status = 416
            body = state.data[start:]
            self.send_response(status)
            self.send_header("Content-Length", "0" if status == 416 else str(len(body)))
            if status in (206, 416):
                shown = "*" if status == 416 else f"{start}-{len(state.data) - 1}"
                self.send_header("Content-Range", f"bytes {shown}/{len(state.data)}")
            self.end_headers()
            if status != 416:
                self.wfile.write(body[: state.breaks_at])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def ignore(text: str) -> None:
    """Leave out how far it is."""


def test_a_file_arrives_and_says_how_far_it_is(publisher: Publisher, tmp_path: Path) -> None:
    texts: list[str] = []
    download(publisher.file(), tmp_path, texts.append)
    assert (tmp_path / "weights.bin").read_bytes() == DATA
    assert texts[-2:] == ["100 % of 3.0 MB", "checking the SHA-256"]
    assert texts[0].endswith("% of 3.0 MB")
    assert {path.name for path in tmp_path.iterdir()} == {"weights.bin", ".lock"}


def test_a_file_that_is_there_is_not_asked_for(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"as it is")
    download(publisher.file(), tmp_path, ignore)
    assert publisher.ranges == []


def test_a_broken_download_goes_on_where_it_stopped(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks_at = 2_000_000
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1"):
        download(publisher.file(), tmp_path, ignore)
    arrived = (tmp_path / ".weights.bin.part").stat().st_size
    assert 0 < arrived <= 2_000_000
    publisher.breaks_at = None
    download(publisher.file(), tmp_path, ignore)
    assert publisher.ranges == [None, f"bytes={arrived}-"]
    assert (tmp_path / "weights.bin").read_bytes() == DATA


def test_a_server_without_ranges_sends_it_again(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / ".weights.bin.part").write_bytes(DATA[:1000])
    publisher.supports_ranges = False
    download(publisher.file(), tmp_path, ignore)
    assert (tmp_path / "weights.bin").read_bytes() == DATA


def test_a_part_that_is_whole_is_only_checked(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / ".weights.bin.part").write_bytes(DATA)
    download(publisher.file(), tmp_path, ignore)
    assert (tmp_path / "weights.bin").read_bytes() == DATA


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 1)])
def test_a_damaged_part_is_thrown_away(publisher: Publisher, tmp_path: Path, part: bytes) -> None:
    (tmp_path / ".weights.bin.part").write_bytes(part)
    with pytest.raises(DownloadError, match="is downloaded"):
        download(publisher.file(), tmp_path, ignore)
    download(publisher.file(), tmp_path, ignore)
    assert (tmp_path / "weights.bin").read_bytes() == DATA


def test_without_a_digest_that_of_the_publisher_counts(publisher: Publisher, tmp_path: Path) -> None:
    publisher.linked = "0" * 64
    with pytest.raises(DownloadError, match=f"has SHA-256 {DIGEST[:12]}…, not 000000000000…"):
        download(publisher.file(""), tmp_path, ignore)
    publisher.linked = DIGEST
    download(publisher.file(""), tmp_path, ignore)
    assert (tmp_path / "weights.bin").exists()


def test_a_refusal_leaves_what_arrived(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / ".weights.bin.part").write_bytes(DATA[:1000])
    publisher.supports_ranges, publisher.status = False, 503
    with pytest.raises(DownloadError, match="answers HTTP 503"):
        download(publisher.file(), tmp_path, ignore)
    assert (tmp_path / ".weights.bin.part").stat().st_size == 1000


def test_a_network_that_is_away_is_named(free_port: int, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 cannot be reached \(ConnectError"):
        download((RemoteFile("a", f"http://127.0.0.1:{free_port}/a"),), tmp_path, ignore)


def test_a_folder_that_cannot_be_written_is_named(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="file cannot be written"):
        download(publisher.file(), tmp_path / "file", ignore)
