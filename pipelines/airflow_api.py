"""Client of Airflow's REST API: pools, assets, DAG runs and the errors of failed tasks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from pipelines.contract import AIRFLOW
from pipelines.errors import CredentialsError, ServiceError
from pipelines.settings import Settings

_FINAL = ("success", "failed", "skipped")
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # before a request is sent again


class Airflow:
    """A logged-in connection to Airflow's public API."""

    def __init__(self, settings: Settings, timeout_s: float = 30) -> None:
        self.url = settings.url(AIRFLOW)
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s)
        account = {"username": settings.airflow_user, "password": settings.airflow_password.get_secret_value()}
        token = self._request("POST", "/auth/token", may_repeat=True, json=account).get("access_token")
        if not token:
            raise self._not_airflow("issues no token")
        self._http.headers["Authorization"] = f"Bearer {token}"

    def ensure_pool(self, name: str, slots: int, description: str) -> bool:
        """Create a pool if there is none of that name; return whether it was created."""
        if self.has_pool(name):
            return False
        try:
            body = {"name": name, "slots": slots, "description": description}
            self._request("POST", "/api/v2/pools", may_repeat=True, json=body)
        except ServiceError:
            if not self.has_pool(name):  # a request that failed may have created it
                raise
        return True

    def has_pool(self, name: str) -> bool:
        """Return whether there is a pool of that name."""
        return any(pool["name"] == name for pool in self._request("GET", "/api/v2/pools")["pools"])

    def dags(self) -> set[str]:
        """Return the ids of the DAGs that Airflow has read so far."""
        return {dag["dag_id"] for dag in self._request("GET", "/api/v2/dags")["dags"]}

    def import_errors(self) -> list[str]:
        """Return each DAG file that cannot be read, with its reason."""
        errors = self._request("GET", "/api/v2/importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors]

    def pause(self, dag: str) -> None:
        """Pause a DAG: its schedule and its assets start no run; runs by hand still start."""
        self._request("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": True})

    def trigger(self, dag: str) -> str:
        """Start a run and return its id."""
        return str(self._request("POST", f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None})["dag_run_id"])

    def emit(self, asset: str, extra: dict[str, str]) -> None:
        """Report an event on the asset of this name, which starts the DAGs that are scheduled on it.

        Raises ServiceError when Airflow has read no DAG that knows the asset.
        """
        known = self._request("GET", "/api/v2/assets", params={"name_pattern": asset})["assets"]
        ids = [entry["id"] for entry in known if entry["name"] == asset]
        if not ids:
            raise ServiceError(f"Airflow at {self.url} knows no asset {asset} yet; it is reading the DAGs")
        self._request("POST", "/api/v2/assets/events", json={"asset_id": ids[0], "extra": extra})

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """Return the newest 50 runs of a DAG, newest first."""
        page = self._request("GET", f"/api/v2/dags/{dag}/dagRuns", params={"order_by": "-run_after", "limit": 50})
        return list(page["dag_runs"])

    def last_success(self, dag: str) -> datetime | None:
        """Return when a run of a DAG last succeeded; None when none of its newest runs did."""
        ended = [run["end_date"] for run in self.runs(dag) if run["state"] == "success" and run["end_date"]]
        return max(map(datetime.fromisoformat, ended), default=None)

    def note(self, dag: str, run_id: str, text: str) -> None:
        """Write the note that Airflow shows beside a run; it stores at most a thousand characters."""
        self._request("PATCH", f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}", json={"note": text[:1000]})

    def wait_for(
        self, dag: str, timeout_s: float, *, run_id: str = "", ignore: frozenset[str] = frozenset(),
        tick: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:  # fmt: skip
        """Wait until a run has ended: the one of `run_id`, or the first asset-triggered one that is not in `ignore`.

        Raises ServiceError with the failed task's last log lines when it failed, and when `timeout_s` has passed.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            tick()
            for run in reversed(self.runs(dag)):
                is_new = run["run_type"] == "asset_triggered" and run["dag_run_id"] not in ignore
                wanted = run["dag_run_id"] == run_id if run_id else is_new
                if wanted and run["state"] in _FINAL:
                    if run["state"] == "failed":
                        raise ServiceError(f"{dag} failed:\n{self._failure(dag, run['dag_run_id'])}")
                    return run
            time.sleep(1)
        raise ServiceError(f"{dag} did not end within {timeout_s:.0f} s; look at {self.url}/dags/{dag}")

    def first_errors(self, dag: str, run_id: str) -> list[tuple[str, str]]:
        """Return each failed task of a run with the first line of its last error; the line is empty without an error.

        The exception in which Airflow wraps errors that are not retried is left out.
        """
        failed = []
        for task, lines in self._logs_of_failed(dag, run_id):
            errors = [line["error_detail"][0] for line in lines if line.get("error_detail")]
            kind, value = (str(errors[-1].get(name, "")) for name in ("exc_type", "exc_value")) if errors else ("", "")
            message = value if kind in ("", "AirflowFailException") else f"{kind}: {value}"
            failed.append((task, message.strip().partition("\n")[0]))
        return failed

    def _failure(self, dag: str, run_id: str) -> str:
        texts = []
        for task, log in self._logs_of_failed(dag, run_id):
            lines = [str(line.get("event", "")) for line in log]
            errors = [
                f"{error.get('exc_type')}: {error.get('exc_value')}"
                for line in log
                for error in line.get("error_detail") or ()
            ]
            texts.append(f"{task}: " + "\n".join([*lines[-8:], *errors]))
        return "\n".join(texts) or "no task failed; see the run in Airflow"

    def _logs_of_failed(self, dag: str, run_id: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield each failed task of a run with the log of its last try, a dictionary per line."""
        run = f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}"
        for task in self._request("GET", f"{run}/taskInstances")["task_instances"]:
            if task["state"] == "failed":
                path = f"{run}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
                log = self._request("GET", path, params={"map_index": task["map_index"], "full_content": "true"})
                yield task["task_id"], [line for line in log["content"] if isinstance(line, dict)]

    def _request(self, method: str, path: str, *, may_repeat: bool = False, **arguments: Any) -> Any:
        """Return what Airflow answers; what may be asked twice is asked again when its server failed.

        Its database on one machine is SQLite, which is locked for some seconds while DAG files are read.
        """
        answer = self._send(method, path, **arguments)
        for pause in _PAUSES_S if may_repeat or method in ("GET", "PATCH") else ():
            if answer.status_code < 500:
                break
            time.sleep(pause)
            answer = self._send(method, path, **arguments)
        if answer.status_code in (401, 403):
            raise CredentialsError(
                f"Airflow at {self.url} refuses the login; MASKLOOP_AIRFLOW_USER and MASKLOOP_AIRFLOW_PASSWORD must be "
                "an account of it"
            )
        if not answer.is_success:
            raise ServiceError(f"Airflow at {self.url}{path} answered HTTP {answer.status_code}: {answer.text[:300]}")
        try:
            return answer.json()
        except ValueError as error:
            raise self._not_airflow(f"does not answer in JSON at {path}") from error

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with _connection_errors(self.url):
            return self._http.request(method, path, **arguments)

    def _not_airflow(self, why: str) -> ServiceError:
        return ServiceError(f"the server at {self.url} {why}, so it is not Airflow; see MASKLOOP_AIRFLOW_URL")


@contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise ServiceError(f"cannot reach Airflow at {url} ({error}); start it with `maskloop up`") from error
