"""The server: it imports, and forks for those who ask.

It ends, and ends what it runs, when the process that started it does: it then finds its standard input closed.
"""

import gc
import json
import os
import pkgutil
import runpy
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.dataset.warm.client import LENGTH, STARTED


@dataclass(frozen=True)
class _Request:
    """A program to run: its name and arguments, folder, environment, and standard output and error."""

    program: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    output: int
    errors: int


class _Server:
    """Imports, and in between forks for those who ask; in a fork `serve` gives the request that is to be run there."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._events = selectors.DefaultSelector()
        self._events.register(sys.stdin.fileno(), selectors.EVENT_READ, self._abandoned)
        signal.signal(signal.SIGTERM, self._end)
        self._children: dict[int, socket.socket] = {}  # by pid
        self._asked: _Request | None = None

    def serve(self, served: Sequence[tuple[int, str, Sequence[str]]]) -> _Request:
        for descriptor, name, needs in served:
            for needed in (*needs, name):
                found = pkgutil.resolve_name(needed)
                if ":" in needed:
                    found()
                self._look(0)
                if self._asked:
                    return self._asked
            door = socket.socket(fileno=descriptor)
            self._events.register(door, selectors.EVENT_READ, self._accept)
        gc.freeze()  # so that forks share the memory
        while self._asked is None:
            self._look(None)
        return self._asked

    def _look(self, seconds: float | None) -> None:
        for key, _ in self._events.select(seconds):
            if self._asked is None:
                key.data(key.fileobj)

    def _accept(self, door: socket.socket) -> None:
        connection, _ = door.accept()
        request = _receive(connection)
        if request is None:
            connection.close()
            return
        connection.sendall(STARTED)
        child = os.fork()
        if child == 0:
            connection.close()
            self._become(request)
            return
        with suppress(OSError):  # the child does the same; one of both is first
            os.setpgid(child, child)
        os.close(request.output)
        os.close(request.errors)
        self._children[child] = connection
        self._events.register(os.pidfd_open(child), selectors.EVENT_READ, lambda watch: self._ended(child, watch))
        self._events.register(connection, selectors.EVENT_READ, lambda _: self._left(child))

    def _become(self, request: _Request) -> None:
        """Leave the server's things to the server."""
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for key in list(self._events.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif key.fd != sys.stdin.fileno():
                os.close(key.fd)
        self._events.close()
        self._asked = request

    def _ended(self, child: int, watch: int) -> None:
        self._events.unregister(watch)
        os.close(watch)
        connection = self._children.pop(child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(KeyError):  # `_left` did it already
            self._events.unregister(connection)
        with suppress(OSError):  # it does not wait any more
            connection.sendall(str(code).encode())
        connection.close()

    def _left(self, child: int) -> None:
        """End a program whose client was ended."""
        if connection := self._children.get(child):  # else it ended at the same moment
            self._events.unregister(connection)
            os.killpg(child, signal.SIGTERM)

    def _abandoned(self, _: int) -> None:
        """End everything and tidy up, because the process that started the server is no more."""
        shutil.rmtree(self._place, ignore_errors=True)  # another server may be doing the same
        self._end()

    def _end(self, *_: object) -> None:
        """End what still runs, and the server."""
        for child in self._children:
            os.killpg(child, signal.SIGTERM)
        for child in self._children:
            os.waitpid(child, 0)
        os._exit(0)


def _receive(connection: socket.socket) -> _Request | None:
    """Read a request; None when the client is gone before it was complete."""
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH, 2)
    data = b""
    if len(head) == LENGTH and len(descriptors) == 2:
        while len(data) < int.from_bytes(head) and (part := connection.recv(1 << 16)):
            data += part
        if len(data) == int.from_bytes(head):
            program, arguments, folder, environment = json.loads(data)
            return _Request(program, arguments, folder, environment, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return None


def _run(request: _Request) -> None:
    """Run the requested program in this process, which was forked for it."""
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (request.output, 1), (request.errors, 2)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    sys.argv[1:] = request.arguments
    if not hasattr(sys.modules.get(request.program), "__path__"):  # of a package, __main__.py is run
        sys.modules.pop(request.program, None)
    runpy.run_module(request.program, run_name="__main__", alter_sys=True)


def main() -> None:
    """Serve: arguments are the servers' folder, and per program its socket's descriptor, name and needs, as JSON."""
    _run(_Server(Path(sys.argv[1])).serve(json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()
