"""The client: `FOLDER -m PROGRAM …` is run by the program's server, if it has one, and else by this interpreter.

It is started without site-packages, because that is quicker, and imports nothing but a little of the standard library.
"""

import array
import json
import os
import socket
import sys

LENGTH = 8  # bytes that tell how long a request is
STARTED = b"s"


def _ask(place: str, arguments: list[str]) -> int | None:
    """Let a server run `-m PROGRAM …` and give its exit code; None when nobody does."""
    if len(arguments) < 2 or arguments[0] != "-m":
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(f"{place}/{arguments[1]}")
        data = json.dumps([arguments[1], arguments[2:], os.path.realpath("."), dict(os.environ)]).encode()
        outputs = array.array("i", [1, 2]).tobytes()
        head = len(data).to_bytes(LENGTH)
        connection.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)])
        connection.sendall(data)
        if connection.recv(1) != STARTED:
            return None
    except OSError:
        return None
    answer = connection.recv(16)
    return int(answer) if answer else 1


def main() -> None:
    """Run the program and end with its exit code, which is 128 and the signal's number when a signal ended it."""
    code = _ask(sys.argv[1], sys.argv[2:])
    if code is None:
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])  # noqa: S606  it stands in for exactly this program
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
