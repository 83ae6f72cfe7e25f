"""A whole round inside, workers that are killed, a backup that brings everything back, and new secrets."""

import json
import subprocess
import time

import pytest

from tests.server.conftest import Server

pytestmark = pytest.mark.timeout(3600)
STATE = """
import json
from pipelines.gcs import client as gcs
from pipelines.dataset.published import Published
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.params import load_params
from pipelines.settings import get_settings
from pipelines.models.registry import Registry
settings = get_settings()
labels = connect(settings)
project = find_project(labels, load_params(settings.params_path))
exported = labels.get(f"/api/projects/{project}/export", exportType="JSON", download_all_tasks="true")
people = sorted(one["email"] for one in labels.get("/api/users"))
registry = Registry(settings)
models = registry.client.search_model_versions(f"name='{registry.name}'")
print("STATE " + json.dumps({
    "tasks": sorted((one["id"], one["data"]["sha256"]) for one in exported),
    "annotations": sorted((a["unique_id"], json.dumps(a["result"])) for one in exported for a in one["annotations"]),
    "people": people,
    "tags": Published.of(settings, gcs.connect(settings)).tags(),
    "models": sorted((one.version, one.run_id, one.status) for one in models),
    "champion": registry.champion().served_as,
}))
"""


@pytest.fixture(scope="module")
def server_after_a_round(server: Server) -> Server:
    """Run the demo's rounds inside, unless they were run before."""
    if server.inside("airflow-worker", "git", "-C", "/var/lib/maskloop/workspace", "tag").split() == []:
        print(server.maskloop("demo", "--count", "40", "--rounds", "2"))
    return server


def state(server: Server) -> dict:
    [line] = [line for line in server.python("airflow-worker", STATE).splitlines() if line.startswith("STATE ")]
    return json.loads(line.removeprefix("STATE "))


def test_a_whole_round_runs_inside(server_after_a_round: Server) -> None:
    now = state(server_after_a_round)
    assert now["tags"][:2] == ["dataset-0001", "dataset-0002"]
    assert len(now["annotations"]) >= 40
    assert now["champion"].startswith("clothing:v")


PRELABEL = """
import sys, json
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.params import load_params
from pipelines.settings import get_settings
from pipelines.airflow_api import Airflow
settings = get_settings()
airflow = Airflow(settings)
run = airflow.trigger("prelabel_images")
print("RUN " + run)
"""
WATCH = """
import json, sys
from urllib.parse import quote
from pipelines.settings import get_settings
from pipelines.airflow_api import Airflow
airflow = Airflow(get_settings())
path = f"/api/v2/dags/prelabel_images/dagRuns/{quote(sys.argv[1], safe='')}"
run = airflow._request("GET", path)
tasks = airflow._request("GET", path + "/taskInstances?limit=200")["task_instances"]
print("WATCH " + json.dumps({"state": run["state"], "tasks": [
    [t["task_id"], t["map_index"], t["state"], t["hostname"], t["try_number"]] for t in tasks]}))
"""
OPEN = """
import json
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params
from pipelines.settings import get_settings
settings = get_settings()
labels = connect(settings)
project = find_project(labels, load_params(settings.params_path))
found = labels.get("/api/predictions", project=project)
print("OPEN " + json.dumps(sorted((one["task"], one["model_version"]) for one in found)))
"""
FORGET = """
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.predictions import delete_predictions
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks
from pipelines.params import load_params
from pipelines.settings import get_settings
settings = get_settings()
labels = connect(settings)
project = find_project(labels, load_params(settings.params_path))
tasks = [task.id for task in list_tasks(labels, project) if not task.opened]
delete_predictions(labels, project, tasks)
print("FORGOT", len(tasks))
"""


def said(text: str, word: str):
    [line] = [line for line in text.splitlines() if line.startswith(word + " ")]
    rest = line.removeprefix(word + " ")
    return json.loads(rest) if rest[0] in "[{" else rest


def watched(server: Server, run: str) -> dict:
    return said(server.python("airflow-api-server", WATCH, run), "WATCH")


def test_two_workers_share_a_run_and_one_may_die(server_after_a_round: Server) -> None:
    server = server_after_a_round
    server.compose("up", "-d", "--no-recreate", "--scale", "airflow-worker=2")
    workers = server.containers("airflow-worker")
    assert len(workers) == 2
    server.docker("exec", workers[0], "python3", "-c", "import time; time.sleep(25)")  # until the second one is up
    server.python("airflow-worker", FORGET)
    run = said(server.python("airflow-worker", PRELABEL), "RUN")
    names = {server.docker("inspect", "--format", "{{.Config.Hostname}}", one).strip(): one for one in workers}
    killed, deadline = "", time.monotonic() + 900
    while (now := watched(server, run))["state"] not in ("success", "failed"):
        assert time.monotonic() < deadline, now
        busy = {host for task, _, state, host, _ in now["tasks"] if task == "predict" and state == "running"}
        if not killed and busy:
            killed = sorted(busy)[0]
            server.docker("kill", "--signal", "KILL", names[killed])
        time.sleep(2)
    assert killed, "nothing was running long enough to be killed"
    assert now["state"] == "success", now
    hosts = {host for task, _, _, host, _ in now["tasks"] if task == "predict"}
    tries = [number for task, _, _, _, number in now["tasks"] if task == "predict"]
    assert max(tries) > 1, "no task was repeated"
    assert hosts - {killed}
    predictions = said(python_on(server, names, killed, OPEN), "OPEN")
    server.maskloop("up")  # one worker again, and running
    assert len(predictions) == len({tuple(one) for one in predictions}), "a task has two predictions of one model"


def test_one_id_leads_from_a_run_to_label_studio_and_the_model(server_after_a_round: Server) -> None:
    server = server_after_a_round
    server.python("airflow-worker", FORGET)
    run = said(server.python("airflow-worker", PRELABEL), "RUN")
    deadline = time.monotonic() + 600
    while watched(server, run)["state"] not in ("success", "failed"):
        assert time.monotonic() < deadline
        time.sleep(2)
    for service in ("label-studio", "segmentation"):
        text = "".join(map(server.log, server.containers(service)))
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{") and '"asked_by"' in line]
        assert [line for line in lines if line["asked_by"].startswith(f"prelabel_images/{run}/")], service


def python_on(server: Server, names: dict[str, str], killed: str, program: str) -> str:
    alive = next(container for host, container in names.items() if host != killed)
    return server.docker("exec", alive, "python3", "-c", program)


def test_a_backup_brings_everything_back(server_after_a_round: Server, tmp_path) -> None:
    server = server_after_a_round
    before = state(server)
    file = tmp_path / "maskloop.tar"
    server.maskloop("backup", str(file))
    assert file.stat().st_mode & 0o077 == 0
    server.compose("down", "--volumes", "--remove-orphans")
    server.docker("run", "--rm", "--user", "0", "--entrypoint", "sh", "-v", f"{server.folder}/deploy/secrets:/s",
                  "postgres:16", "-c", "rm -f /s/*")  # fmt: skip
    server.maskloop("restore", str(file))
    assert state(server) == before


def test_the_database_is_stopped_properly(server_after_a_round: Server) -> None:
    server = server_after_a_round
    [postgres] = server.containers("postgres")
    before = server.log(postgres).count("not properly shut down")
    server.compose("restart", "--timeout", "60", "postgres")
    server.maskloop("up")
    assert server.log(postgres).count("not properly shut down") == before


def test_newer_code_comes_in_and_nothing_is_lost(server_after_a_round: Server) -> None:
    server = server_after_a_round
    before = state(server)
    params = server.folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("  ahead: 100 ", "  ahead: 99  ", 1), encoding="utf-8")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", *who, "commit", "--quiet", "--all", "-m", "Fewer ahead"], cwd=server.folder, check=True)
    server.compose("build", "volumes", "segmentation")  # `update` would ask a registry for newer base images as well
    server.maskloop("up")
    assert state(server) == before
    server.maskloop("sync")  # takes the commit into the workspace
    log = server.inside("airflow-worker", "git", "-C", "/var/lib/maskloop/workspace", "log", "--format=%s")
    assert "Fewer ahead" in log.splitlines()


def test_secrets_are_changed_and_everything_goes_on(server_after_a_round: Server) -> None:
    server = server_after_a_round
    before, secrets = state(server), server.secrets()
    server.maskloop("rotate")
    now = server.secrets()
    kept = {name for name in secrets if now[name] == secrets[name]}
    assert kept == {  # issued by others
        "maskloop_google_key", "maskloop_alert_webhook", "maskloop_smtp_url", "maskloop_git_remote",
    }  # fmt: skip
    assert state(server) == before
