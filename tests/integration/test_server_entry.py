"""The server's only entry, a real Caddy with the server's own Caddyfile, before the stack's real servers.

Every address of Label Studio, Airflow and MLflow is asked with each method and in other letters: by nobody, and by a
labeler who was invited.
"""

import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from pipelines.contract import AIRFLOW, LABEL_STUDIO, MLFLOW
from pipelines.demo.labelers import Labeler
from pipelines.gcs import client as gcs
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.controls import IMAGE, POINT
from pipelines.labelstudio.project import SEGMENT_ANYTHING_TITLE, find_project, list_backends
from pipelines.labelstudio.tasks import list_tasks
from pipelines.labelstudio_site.maskloop_storage import SANDBOX
from pipelines.local_stack import services
from pipelines.params import load_params
from pipelines.settings import PROJECT_ROOT
from tests.conftest import Stack, free_ports
from tests.label_studio_routes import WALK, paths_in

UNPACKED = PROJECT_ROOT / ".tools" / "usr" / "bin" / "caddy"
CADDY = shutil.which("caddy") or (str(UNPACKED) if UNPACKED.exists() else "")
pytestmark = [
    pytest.mark.stack, pytest.mark.timeout(900),
    pytest.mark.skipif(not CADDY, reason="Caddy is not on this machine: `make caddy` fetches it where apt can"),
]  # fmt: skip
WRITES = ("POST", "PUT", "PATCH", "DELETE")
REFUSED = {400, 401, 403, 404, 405, 429}
PUBLIC = re.compile(
    r"/|/user/(login|signup)/?|/(static|react-app|label-studio-frontend)/.*|/health|/favicon\.ico|/robots\.txt"
    r"|/auth/(login|logout)/?|/auth/static/.*|/api/v2/monitor/health"
)
# What people write who label; asked by themselves below, because these would do something.
LABELLING = re.compile(
    r"POST /api/tasks/1/(annotations|drafts|annotations/1/drafts)|(PATCH|PUT|DELETE) /api/(annotations|drafts)/1"
    r"|POST /api/annotations/1/convert-to-draft|POST /api/ml/1/interactive-annotating|POST /api/dm/(views|views/order)"
    r"|(PATCH|PUT) /api/dm/views/1|(POST|PATCH) /api/current-user/(hotkeys|product-tour)|(GET|POST) /logout"
)
SAID = "this is done on the server"


@dataclass(frozen=True)
class Entry:
    labels: str
    loop: str


@pytest.fixture(scope="module")
def entry(stack_after_two_rounds: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    folder, (labels, loop, nobody) = tmp_path_factory.mktemp("entry"), free_ports(3)
    settings = stack_after_two_rounds.settings
    text = (PROJECT_ROOT / "deploy" / "caddy" / "Caddyfile").read_text(encoding="utf-8")
    for service, name in (
        ("label-studio:8080", LABEL_STUDIO), ("airflow-api-server:8081", AIRFLOW), ("mlflow:5000", MLFLOW)
    ):  # fmt: skip
        assert service in text
        text = text.replace(service, settings.url(name).removeprefix("http://"))
    (folder / "Caddyfile").write_text(text.replace("grafana:3000", f"127.0.0.1:{nobody}"), encoding="utf-8")
    here = Entry(f"http://127.0.0.1:{labels}", f"http://127.0.0.1:{loop}")
    environment = os.environ | {
        "MASKLOOP_LABELS_HOST": here.labels, "MASKLOOP_LOOP_HOST": here.loop, "MASKLOOP_TLS": "auto_https off",
        "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder),
    }  # fmt: skip
    command = [CADDY, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            for _ in range(300):
                if process.poll() is not None:
                    pytest.fail((folder / "log").read_text())
                try:
                    httpx.get(f"{here.labels}/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield here
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def labeler(entry: Entry, stack_after_two_rounds: Stack) -> Labeler:
    """Somebody who signs up by the invitation, and comes through the entry."""
    invitation = connect(stack_after_two_rounds.settings).get("/api/invite")["invite_url"]
    return Labeler(entry.labels, "entry@maskloop.local", "long-enough-1", re.sub(r"^https?://[^/]+", "", invitation))


def routes_of_label_studio() -> set[str]:
    """Return a path of each route, one for all pages of Django's own administration."""
    before = """
import os, sys, label_studio
os.environ.update(DJANGO_DB="sqlite", DJANGO_SETTINGS_MODULE="core.settings.label_studio")
sys.path.insert(0, os.path.dirname(label_studio.__file__))
"""
    python = PROJECT_ROOT / ".venv-label-studio" / "bin" / "python"
    with_folder = os.environ | {"BASE_DATA_DIR": "/tmp"}
    command = [python, "-c", before + WALK]
    printed = subprocess.run(command, env=with_folder, capture_output=True, text=True, check=True).stdout
    return {path for path in paths_in(printed) if not path.startswith("/admin/")} | {"/admin/"}


def routes_of_airflow(stack: Stack) -> set[str]:
    paths = httpx.get(f"{stack.settings.url(AIRFLOW)}/openapi.json").json()["paths"]
    return {re.sub(r"\{[^}]*\}", "1", path) for path in paths}


def routes_of_mlflow() -> set[str]:
    from mlflow.server import app

    return {"/mlflow" + re.sub(r"<[^>]*>", "1", str(rule)) for rule in app.url_map.iter_rules()}


def in_other_letters(path: str) -> list[str]:
    """Return a path, and what Label Studio's patterns without a beginning find below addresses that are open."""
    return [path, path.upper(), f"/STATIC{path}", f"/static{path}", f"/React-App{path}"]


Asked = list[tuple[str, str]]  # methods and paths


def ask(url: str, asked: Asked, cookies: httpx.Cookies | None = None) -> dict[tuple[str, str], httpx.Response]:
    token = {"X-CSRFToken": (cookies.get("csrftoken") or "") if cookies else ""}
    with httpx.Client(base_url=url, timeout=60, cookies=cookies) as visitor, ThreadPoolExecutor(4) as pool:

        def one(method_and_path: tuple[str, str]) -> httpx.Response:
            method, path = method_and_path
            return visitor.request(method, path, json=None if method == "GET" else {}, headers=token)

        return dict(zip(asked, pool.map(one, asked), strict=True))


def answered(answers: dict[tuple[str, str], httpx.Response]) -> dict[tuple[str, str], int]:
    """Return the status of what was not refused."""
    return {one: answer.status_code for one, answer in answers.items() if answer.status_code not in REFUSED}


def test_nobody_is_told_anything_without_a_login(entry: Entry, stack_after_two_rounds: Stack) -> None:
    paths = routes_of_label_studio()
    assert len(paths) > 150
    asked = [
        (method, other) for path in sorted(paths) for other in in_other_letters(path) for method in ("GET", "POST")
        if not PUBLIC.fullmatch(other) or re.search(r".(version|metrics|trigger500|samples|local-files)/", other)
    ]  # fmt: skip
    asked += [(method, path) for path in sorted(paths) for method in WRITES[1:] if not PUBLIC.fullmatch(path)]
    assert answered(ask(entry.labels, asked)) == {}

    others = routes_of_airflow(stack_after_two_rounds) | routes_of_mlflow()
    assert len(others) > 150
    asked = [
        (method, path) for route in sorted(others) for method, path in (
            ("GET", route.upper()), *((method, route) for method in ("GET", *WRITES))
        ) if not PUBLIC.fullmatch(path)
    ]  # fmt: skip
    assert answered(ask(entry.loop, asked)) == {}


@pytest.mark.parametrize("path", ["/projects/1/data?tab=3&task=12", "/projects/1/data?q=a%26b+c&r=%C3%A9"])
def test_a_link_leads_where_it_points_to_after_the_login(entry: Entry, path: str) -> None:
    page = httpx.get(entry.labels + path, headers={"Accept": "text/html"})
    assert (page.status_code, dict(page.next_request.url.params)) == (302, {"next": path})  # type: ignore[union-attr]  # of a redirect
    page = httpx.get(entry.loop + path, headers={"Accept": "text/html"})
    host = entry.loop.removeprefix("http://")
    assert (page.status_code, dict(page.next_request.url.params)) == (302, {"next": f"https://{host}{path}"})  # type: ignore[union-attr]  # of a redirect


def test_a_labeler_writes_what_labelling_needs_and_nothing_else(entry: Entry, labeler: Labeler) -> None:
    asked = [
        (method, other) for path in sorted(routes_of_label_studio()) for method in WRITES
        for other in {path, path.upper(), path.rstrip("/") or "/"}
        if not LABELLING.fullmatch(f"{method} {other.rstrip('/')}") and not PUBLIC.fullmatch(other)
    ]  # fmt: skip
    answers = ask(entry.labels, asked, labeler._http.cookies)
    assert answered(answers) == {}
    for path in ("/api/session-policy/", "/api/webhooks/", "/api/projects/1/import/predictions", "/api/predictions/1/"):
        assert SAID in answers["PATCH" if "session" in path or "predictions/1" in path else "POST", path].text


def test_no_answer_to_a_labeler_holds_a_secret_of_the_server(
    entry: Entry, labeler: Labeler, stack_after_two_rounds: Stack
) -> None:
    asked = [("GET", path) for path in sorted(routes_of_label_studio()) if not LABELLING.match(f"GET {path}")]
    asked += [("GET", "/api/webhooks/?project=1"), ("GET", "/API/webhooks/"), ("GET", "/api/webhooks")]
    answers = ask(entry.labels, asked, labeler._http.cookies)
    secrets = dict(re.findall(r"^(\w+)=(.+)$", (stack_after_two_rounds.settings.var / "secrets.env").read_text(), re.M))
    secrets = {name: value.strip("'\"") for name, value in secrets.items()}
    assert len(secrets) > 3
    settings = stack_after_two_rounds.settings
    login = f"{settings.service_user}:{settings.service_password.get_secret_value()}"
    secrets["the services' login"] = base64.b64encode(login.encode()).decode()
    for one, answer in answers.items():
        assert not [name for name, value in secrets.items() if len(value) > 7 and value in answer.text], one
    assert sum(answer.is_success for answer in answers.values()) > 30, "a labeler sees the pages"


def test_a_page_among_the_photos_runs_nothing(entry: Entry, labeler: Labeler, stack_after_two_rounds: Stack) -> None:
    settings = stack_after_two_rounds.settings
    name, bucket = f"{settings.source_prefix}page.html", gcs.connect(settings)
    gcs.put(bucket, settings.source_bucket, name, b"<script>alert(1)</script>", "text/html")
    project = find_project(connect(settings), load_params(settings.params_path))
    file = base64.b64encode(f"gs://{settings.source_bucket}/{name}".encode()).decode()

    answer = labeler._http.get(f"/projects/{project}/resolve/", params={"fileuri": file})

    assert (answer.status_code, answer.text) == (200, "<script>alert(1)</script>")
    assert answer.headers["Content-Security-Policy"] == SANDBOX
    bucket.bucket(settings.source_bucket).blob(name).delete()


def test_the_work_of_a_labeler_goes_on(entry: Entry, labeler: Labeler, stack_after_two_rounds: Stack) -> None:
    """Take a photo, look at it, click, keep a draft, submit, correct, and make a tab of one's own."""
    settings = stack_after_two_rounds.settings
    labels = connect(settings)
    project = find_project(labels, load_params(settings.params_path))
    free = next(task for task in list_tasks(labels, project) if not task.opened and task.prediction_versions)
    task = labels.get(f"/api/tasks/{free.id}/")
    assert labeler.next_task(project) is not None
    assert labeler._http.get(task["data"][IMAGE]).headers["Content-Type"].startswith("image/")

    def send(method: str, path: str, body: object = None, **query: object) -> dict:
        headers = {"X-CSRFToken": labeler._http.cookies.get("csrftoken") or ""}
        answer = labeler._http.request(method, path, json=body, params=query, headers=headers)
        assert answer.is_success, (method, path, answer.status_code, answer.text[:300])
        return answer.json() if answer.content else {}

    height, width = free.image.shown_size
    prompt = {
        "id": "click", "type": "keypointlabels", "from_name": POINT, "to_name": IMAGE, "image_rotation": 0,
        "original_width": width, "original_height": height, "is_positive": True,
        "value": {"x": 50, "y": 50, "width": 0.3, "keypointlabels": ["coat"]},
    }  # fmt: skip
    [backend] = [b["id"] for b in list_backends(labels, project) if b["title"] == SEGMENT_ANYTHING_TITLE]
    send("POST", f"/api/ml/{backend}/interactive-annotating", {"task": free.id, "context": {"result": [prompt]}})
    draft = send("POST", f"/api/tasks/{free.id}/drafts", {"result": [], "lead_time": 1}, project=project)
    send("PATCH", f"/api/drafts/{draft['id']}/", {"result": [], "lead_time": 2})
    made = send("POST", f"/api/tasks/{free.id}/annotations/", {"result": [], "lead_time": 3}, project=project)
    send("PATCH", f"/api/annotations/{made['id']}/", {"result": [], "lead_time": 4})
    again = send("POST", f"/api/tasks/{free.id}/annotations/{made['id']}/drafts", {"result": [], "lead_time": 5})
    send("DELETE", f"/api/drafts/{again['id']}/")
    tab = send("POST", "/api/dm/views/", {"project": project, "data": {"title": "my tab"}})
    send("PATCH", f"/api/dm/views/{tab['id']}/", {"project": project, "data": {"title": "my own tab"}})
    send("DELETE", f"/api/annotations/{made['id']}/")
    labels.delete(f"/api/dm/views/{tab['id']}/")


def test_people_change_their_own_name_and_password(
    entry: Entry, labeler: Labeler, stack_after_two_rounds: Stack
) -> None:
    labels, http = connect(stack_after_two_rounds.settings), labeler._http
    other = Labeler(entry.labels, labeler.email, "long-enough-1")
    token = http.get("/api/current-user/token").json()["token"]
    before = {user["email"]: user["first_name"] for user in labels.get("/api/users/")}
    page = http.get("/maskloop/account")
    assert labeler.email in page.text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    form = {"first_name": "Ada <b>", "last_name": "Lovelace", "new": "a better one 2", "again": "a better one 2"}

    def send(present: str, **headers: str) -> httpx.Response:
        return http.post("/maskloop/account", data=form | {"present": present}, headers=headers)

    # Attempts are few: ten in five minutes, with the logins of this module.
    assert send("long-enough-1", Origin="https://evil.example.org").status_code == 400
    assert "Present password" in send("a guess", Origin=entry.labels).text
    assert {user["email"]: user["first_name"] for user in labels.get("/api/users/")} == before, "nothing was changed"

    saved = send("long-enough-1", Origin=entry.labels)

    assert saved.status_code == 200
    assert "Ada &lt;b&gt;" in saved.text
    after = {user["email"]: user["first_name"] for user in labels.get("/api/users/")}
    assert after == before | {labeler.email: "Ada <b>"}
    assert http.get("/api/current-user/whoami").is_success, "this session goes on"
    assert other._http.get("/api/current-user/whoami").status_code == 401, "another one is over"
    assert http.get("/api/current-user/token").json()["token"] != token
    assert Labeler(entry.labels, labeler.email, "a better one 2").email == labeler.email


def test_a_forgotten_password_is_replaced(entry: Entry, labeler: Labeler, stack_after_two_rounds: Stack) -> None:
    settings = stack_after_two_rounds.settings
    site = PROJECT_ROOT / "pipelines" / "labelstudio_site"
    environment = services.environment(settings) | {
        "PYTHONPATH": str(site), "DJANGO_SETTINGS_MODULE": "maskloop_settings",
    }  # fmt: skip

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        python = PROJECT_ROOT / ".venv-label-studio" / "bin" / "python"
        command = [python, site / "maskloop_account.py", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    said = program("password", labeler.email.upper()).stdout

    password = re.search(rf"{labeler.email} logs in with (\S+) from now on", said)[1]
    assert labeler._http.get("/api/current-user/whoami").status_code == 401, "the old session is over"
    assert Labeler(entry.labels, labeler.email, password).email == labeler.email
    assert "nobody has an account" in program("password", "nobody@example.org").stderr
