"""The request log of Label Studio; the module runs there, so it is loaded by its path."""

import importlib.util
import json
from types import SimpleNamespace

import pytest

from pipelines.log import REQUEST_ID
from pipelines.settings import PROJECT_ROOT


def test_requests_of_pipelines_are_logged_and_others_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    path = PROJECT_ROOT / "pipelines" / "labelstudio_site" / "maskloop_log.py"
    spec = importlib.util.spec_from_file_location("maskloop_log", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    middleware = module.RequestLog(lambda request: SimpleNamespace(status_code=201))
    as_django_names_it = f"HTTP_{REQUEST_ID.upper().replace('-', '_')}"

    middleware(SimpleNamespace(META={}, method="GET", path="/projects/"))
    middleware(SimpleNamespace(META={as_django_names_it: "dag/run/task"}, method="POST", path="/api/tasks/1/"))

    [line] = capfd.readouterr().err.splitlines()
    logged = json.loads(line)
    assert (logged["asked_by"], logged["method"], logged["status"]) == ("dag/run/task", "POST", 201)
