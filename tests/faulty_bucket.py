"""A proxy in front of a bucket server that injects faults into downloads of chosen objects."""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True)
class Fault:
    """What happens to the first `times` downloads of an object: an HTTP status with a message, or a broken body.

    `body` is `stall` (half of it, then silence), `cut` (half of it, then the end), `corrupt` (one byte differs) or
    `reset` (the connection is closed before the answer).
    """

    status: int = 0
    message: str = ""
    body: str = ""
    times: int = 1_000_000
    seconds: float = 5.0  # of silence


@dataclass
class FaultyBucket:
    """The proxy's address, its faults by object name, and how often each object was asked for."""

    url: str
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)


@contextmanager
def faulty_bucket(upstream: str) -> Iterator[FaultyBucket]:
    """Yield a proxy in front of the bucket server at `upstream`."""
    target = urlsplit(upstream)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def _handle(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = self._fault()
            if fault and fault.status:
                text = json.dumps({"error": {"code": fault.status, "message": fault.message}}).encode()
                self._answer(fault.status, {"Content-Type": "application/json"}, text)
                return
            if fault and fault.body == "reset":
                self.close_connection = True
                self.connection.close()
                return
            upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            upstream.request(self.command, self.path, sent, {**headers, "Host": target.netloc})
            answer = upstream.getresponse()
            data = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            self._answer(answer.status, kept, data, fault)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle

        def _fault(self) -> Fault | None:
            path = urlsplit(self.path)
            if self.command != "GET" or not ("alt=media" in path.query or path.path.startswith("/download/")):
                return None
            name = unquote(path.path.rpartition("/o/")[2])
            with lock:
                proxy.asked[name] = count = proxy.asked.get(name, 0) + 1
            fault = proxy.faults.get(name)
            return fault if fault and count <= fault.times else None

        def _answer(self, status: int, headers: Mapping[str, str], data: bytes, fault: Fault | None = None) -> None:
            if fault and fault.body == "corrupt" and data:
                data = bytes([data[0] ^ 1]) + data[1:]
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if fault and fault.body in ("stall", "cut"):
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                if fault.body == "stall":
                    time.sleep(fault.seconds)
                self.close_connection = True
                return
            if self.command != "HEAD":
                self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing about clients that went away: they gave up, as they should."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy = FaultyBucket(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
