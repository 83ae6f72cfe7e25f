"""Exit with 0 when a part of Airflow is alive: `healthy.py scheduler|dag_processor|triggerer|worker`."""

import json
import socket
import sys
import urllib.request


def main(part: str) -> bool:
    """Return whether a part is alive: by its heartbeat in the API server, or a worker by the port of its logs."""
    if part == "worker":
        socket.create_connection(("127.0.0.1", 8793), timeout=4).close()
        return True
    with urllib.request.urlopen("http://airflow-api-server:8081/api/v2/monitor/health", timeout=4) as answer:
        return json.load(answer)[part]["status"] == "healthy"


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]))
