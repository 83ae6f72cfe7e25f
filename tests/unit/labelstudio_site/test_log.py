"""Who asked Label Studio: the module runs there, so it is loaded by its path."""

import importlib.util
import json
from types import SimpleNamespace

import pytest

from pipelines.log import REQUEST_ID
from pipelines.settings import PROJECT_ROOT


def test_requests_of_stations_are_noted_and_others_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    path = PROJECT_ROOT / "pipelines" / "stack" / "label_studio" / "maskloop_log.py"
    spec = importlib.util.spec_from_file_location("maskloop_log", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ask = module.AskedBy(lambda request: SimpleNamespace(status_code=201))
    as_django_names_it = f"HTTP_{REQUEST_ID.upper().replace('-', '_')}"

    ask(SimpleNamespace(META={}, method="GET", path="/projects/"))
    ask(SimpleNamespace(META={as_django_names_it: "dag/run/task"}, method="POST", path="/api/tasks/1/"))

    [line] = capfd.readouterr().err.splitlines()
    noted = json.loads(line)
    assert (noted["asked_by"], noted["method"], noted["status"]) == ("dag/run/task", "POST", 201)
