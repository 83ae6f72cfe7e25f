"""Access from outside: two published ports, no data without a login, no visible secret, no unknown address."""

import json
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.label_studio_routes import WALK, paths_in
from tests.server.conftest import LABELS, LOOP, Server

pytestmark = pytest.mark.timeout(1800)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
REFUSED = {400, 401, 403, 404, 405, 429}
# What is visible without a login: the pages to log in at, what they load, and whether the server is alive.
PUBLIC = {
    LABELS: re.compile(
        r"/user/(login|signup)/?|/(static|react-app|label-studio-frontend)/.*|/health|/favicon\.ico|/robots\.txt"
    ),
    LOOP: re.compile(r"/auth/(login|logout)/?|(/auth)?/static/.*|/api/v2/monitor/health|/favicon\.ico"),
}


def published_ports(server: Server) -> set[int]:
    ports = [one["NetworkSettings"]["Ports"] or {} for one in server.inspect()]
    return {int(binding["HostPort"]) for of_one in ports for bindings in of_one.values() for binding in bindings or []}


def test_only_caddys_ports_are_open_on_the_host(server: Server) -> None:
    assert published_ports(server) == {80, 443}
    expected = {
        443: True,
        80: True,
        5432: False,
        6379: False,
        8080: False,
        8081: False,
        5000: False,
        7070: False,
        9090: False,
    }

    def is_open(port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with ThreadPoolExecutor(16) as pool:
        assert dict(zip(expected, pool.map(is_open, expected), strict=True)) == expected


LABEL_STUDIO_SETTINGS = """
import os, sys, label_studio
os.environ.update(BASE_DATA_DIR="/tmp/routes", DJANGO_DB="sqlite", DJANGO_SETTINGS_MODULE="maskloop_settings")
sys.path[:0] = ["/opt/maskloop/site", os.path.dirname(label_studio.__file__)]
"""


def routes_of_label_studio(server: Server) -> set[tuple[str, str]]:
    printed = server.python("label-studio", LABEL_STUDIO_SETTINGS + WALK)
    return {(method, path) for path in paths_in(printed) for method in METHODS}


def routes_of_airflow(server: Server) -> set[tuple[str, str]]:
    program = (
        "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8081/openapi.json').read().decode())"
    )
    paths = json.loads(server.python("airflow-api-server", program))["paths"]
    return {(method, re.sub(r"\{[^}]*\}", "1", path)) for path in paths for method in METHODS}


def routes_of_mlflow(server: Server) -> set[tuple[str, str]]:
    program = (
        "from mlflow.server import app; print('\\n'.join('ROUTE ' + str(one) for one in app.url_map.iter_rules()))"
    )
    found = re.findall(r"^ROUTE (.*)$", server.python("mlflow", program), flags=re.MULTILINE)
    return {(method, "/mlflow" + re.sub(r"<[^>]*>", "1", path)) for path in found for method in METHODS}


@pytest.mark.parametrize(
    ("host", "routes", "least"),
    [(LABELS, routes_of_label_studio, 400), (LOOP, routes_of_airflow, 400), (LOOP, routes_of_mlflow, 300)],
    ids=["label-studio", "airflow", "mlflow"],
)
def test_no_route_tells_or_changes_anything_without_a_login(server: Server, host: str, routes, least: int) -> None:
    asked = sorted(one for one in routes(server) if not PUBLIC[host].fullmatch(one[1]) and one[1] != "/")
    assert len(asked) > least
    with server.visitor(host) as visitor, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda one: visitor.request(*one, json={} if one[0] != "GET" else None), asked)
        told = {
            one: answer.status_code
            for one, answer in zip(asked, answers, strict=True)
            if answer.status_code not in REFUSED
        }
    assert told == {}


def test_who_is_redirected_comes_to_the_login(server: Server) -> None:
    pages = [
        (LABELS, "/projects/1/data", "/user/login/"), (LOOP, "/mlflow/", "/auth/login/"),
        (LOOP, "/grafana/d/maskloop", "/auth/login/"),
    ]  # fmt: skip
    for host, page, login in pages:
        with server.visitor(host) as visitor:
            answer = visitor.get(page, headers={"Accept": "text/html"})
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith(login)


def test_nobody_signs_up_without_an_invitation(server: Server) -> None:
    with server.visitor(LABELS) as visitor:
        page = visitor.get("/user/signup/")
        form = {"email": "eve@example.org", "password": "long-enough-1", "csrfmiddlewaretoken": csrf_of(page.text)}
        answer = visitor.post("/user/signup/", data=form, headers={"Referer": f"https://{LABELS}/user/signup/"})
        assert answer.status_code in (403, 200, 302)
        assert visitor.get("/api/current-user/whoami").status_code == 401


def test_whom_somebody_invites_comes_in_and_goes_when_the_account_is_closed(server: Server) -> None:
    with server.visitor(LABELS) as owner, server.visitor(LABELS) as visitor:
        log_in_to_label_studio(server, owner)
        invitation = owner.get("/api/invite").json()["invite_url"]
        address = f"ada-{time.time_ns()}@example.org"
        page = visitor.get(invitation)
        form = {"email": address, "password": "long-enough-1", "csrfmiddlewaretoken": csrf_of(page.text)}
        visitor.post(invitation, data=form, headers={"Referer": f"https://{LABELS}{invitation}"})
        assert visitor.get("/api/current-user/whoami").json()["email"] == address

        assert "can't log in any more" in server.maskloop("deactivate", address)

        assert visitor.get("/api/current-user/whoami").status_code == 401
        assert owner.get("/api/invite").json()["invite_url"] != invitation
    server.maskloop("deactivate", "nobody@example.org", ok=False)
    server.maskloop("deactivate", "admin@maskloop.local", ok=False)


def csrf_of(page: str) -> str:
    found = re.search(r'name="(?:csrfmiddlewaretoken|csrf_token)"[^>]*value="([^"]+)"', page)
    return found[1] if found else ""


def log_in(visitor: httpx.Client, path: str, token: str, **form: str) -> httpx.Response:
    """Log in as a person does, whose browser must keep the cookies to itself and to TLS."""
    page = visitor.get(path)
    referer = str(visitor.base_url.join(path))
    answer = visitor.post(path, data={**form, token: csrf_of(page.text)}, headers={"Referer": referer})
    assert answer.status_code == 302, answer.text[:500]
    cookies = answer.headers.get_list("Set-Cookie")
    assert cookies
    assert all({"Secure", "HttpOnly"} <= set(re.split(r"; ?", cookie)) for cookie in cookies), cookies
    for name, value in (("Strict-Transport-Security", "max-age="), ("X-Content-Type-Options", "nosniff")):
        assert value in answer.headers[name]
    return answer


def log_in_to_label_studio(server: Server, visitor: httpx.Client) -> None:
    password = server.secrets()["maskloop_label_studio_password"]
    log_in(visitor, "/user/login/", "csrfmiddlewaretoken", email="admin@maskloop.local", password=password)


def test_people_log_in_over_tls_with_cookies_that_stay_there(server: Server) -> None:
    with server.visitor(LABELS) as visitor:
        log_in_to_label_studio(server, visitor)
        assert visitor.get("/api/current-user/whoami").json()["email"] == "admin@maskloop.local"
        assert visitor.get("/api/projects").json()["count"] == 1


def test_one_login_opens_airflow_and_mlflow(server: Server) -> None:
    with server.visitor(LOOP) as visitor:
        password = server.secrets()["maskloop_airflow_password"]
        answer = log_in(visitor, "/auth/login/", "csrf_token", username="admin", password=password)
        while answer.is_redirect:
            answer = visitor.get(answer.headers["Location"])
        assert visitor.get("/api/v2/dags").json()["total_entries"] == 5
        assert "MLflow" in visitor.get("/mlflow/").text
        search = visitor.post("/mlflow/ajax-api/2.0/mlflow/experiments/search", json={"max_results": 10})
        assert search.json()["experiments"]
        assert visitor.get("/execution/health").status_code == 404


# Label Studio allows each of these to everybody who is logged in.
CLOSED = [
    ("DELETE", "/api/projects/1/"), ("PATCH", "/api/projects/1/"), ("DELETE", "/api/projects/1/tasks/"),
    ("POST", "/api/projects/"), ("POST", "/api/projects"), ("DELETE", "/api/tasks/1/"), ("POST", "/api/users/"),
    ("PATCH", "/api/users/1/"), ("DELETE", "/api/users/1/"), ("DELETE", "/api/organizations/1/memberships/1/"),
    ("PATCH", "/api/organizations/1"), ("POST", "/api/jwt/settings"), ("POST", "/api/labels/bulk/"),
    ("DELETE", "/api/dm/views/reset/"), ("POST", "/api/webhooks/"), ("DELETE", "/api/webhooks/1/"),
    ("POST", "/api/ml/"), ("DELETE", "/api/ml/1"), ("POST", "/api/ml/1/train"),
    ("POST", "/api/storages/gcs/"), ("POST", "/API/storages/s3"),
    ("POST", "/api/%73torages/localfiles"), ("POST", "/api/storages/export/gcs/1/sync"),
    ("POST", "/api/dm/actions/?project=1&id=delete_tasks"), ("POST", "/api/dm/actions/?project=1&id=%64elete_tasks"),
    ("POST", "/api/dm/actions?id=next_task&id=delete_tasks"), ("POST", "/api/dm/actions?project=1&id=rename_labels"),
    ("POST", "/api/dm/actions?project=1&id=add_data_field"), ("POST", "/api/dm/actions?project=1"),
]  # fmt: skip


def test_what_belongs_to_set_up_is_closed_to_people(server: Server) -> None:
    with server.visitor(LABELS) as visitor:
        log_in_to_label_studio(server, visitor)
        headers = {"X-CSRFToken": visitor.cookies["csrftoken"], "Referer": f"https://{LABELS}/"}
        answers = {one: visitor.request(*one, json={}, headers=headers) for one in CLOSED}
        shut = {one for one, answer in answers.items() if "done on the server" in answer.text}
        assert {one: answer.status_code for one, answer in answers.items() if one not in shut} == {}
        for path in ("/api/ml/1/interactive-annotating", "/api/dm/actions?project=1&id=next_task"):
            answer = visitor.post(path, json={"task": 0, "context": {}}, headers=headers)
            assert "done on the server" not in answer.text


@pytest.mark.parametrize("host", [LABELS, LOOP])
def test_what_could_be_read_in_two_ways_is_refused(server: Server, host: str) -> None:
    """As it stands in the request: clients of tests and browsers would put it straight."""
    trust = ssl.create_default_context(cadata=server.authority())
    crooked = [
        ("delete", "/api/projects/1/"), ("Patch", "/api/projects/1/"), ("post", "/api/ml/"), ("TRACE", "/health"),
        ("GET", "/version/../health"), ("GET", "/health/../version/"), ("GET", "/version/%2e%2e/health"),
        ("GET", "//version/"), ("GET", "/static/../version/"), ("PATCH", "/api//ml/1"),
        ("GET", "/auth/static/../../docs"),
    ]  # fmt: skip
    said = {}
    for method, path in crooked:
        plain = socket.create_connection(("127.0.0.1", 443), 20)
        with trust.wrap_socket(plain, server_hostname=host) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            said[method, path] = connection.makefile("rb").readline().split()[1]
    assert set(said.values()) <= {b"400", b"405"}, said


ADD_BACKENDS = """
import json, sys, urllib.error, urllib.request
for url in sys.argv[2:]:
    body = json.dumps({"project": 1, "url": url, "title": "x"}).encode()
    headers = {"Authorization": "Token " + sys.argv[1], "Content-Type": "application/json"}
    try:
        print(urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8080/api/ml/", body, headers)).status)
    except urllib.error.HTTPError as error:
        print(error.code, error.read()[:600])
"""


def test_label_studio_calls_no_private_address_but_the_models(server: Server) -> None:
    token = server.secrets()["maskloop_label_studio_token"]
    wrong = [
        "http://postgres:5432", "http://169.254.169.254/computeMetadata/v1/", "http://mlflow:5000", "http://127.0.0.1:8080",
        "http://[::1]:8080", "http://0x7f000001", "http://airflow-api-server:8081", "http://2852039166/", "http://10.0.0.1",
        "http://[::ffff:10.0.0.1]", "http://[64:ff9b::a00:1]", "http://buckets.invalid", "file:///etc/passwd",
    ]  # fmt: skip
    said = server.python("label-studio", ADD_BACKENDS, token, *wrong).splitlines()
    assert len(said) == len(wrong)
    # Its own words; an IPv6 address in brackets is no name to it, so it never gets as far as the address.
    refused = re.compile("reserved network address|resolve hostname|must use http://")
    assert {url: line for url, line in zip(wrong, said, strict=True) if not refused.search(line)} == {}


@pytest.mark.parametrize("host", [LABELS, LOOP])
def test_passwords_cannot_be_guessed_quickly(server: Server, host: str) -> None:
    path, token, user = {
        LABELS: ("/user/login/", "csrfmiddlewaretoken", "email"), LOOP: ("/auth/login/", "csrf_token", "username"),
    }[host]  # fmt: skip
    with server.visitor(host) as visitor:
        page = visitor.get(path)
        form = {user: "eve@example.org", "password": "wrong", token: csrf_of(page.text)}
        said = [
            visitor.post(path, data=form, headers={"Referer": f"https://{host}{path}"}).status_code for _ in range(30)
        ]
    assert 429 in said
    assert said.count(200) + said.count(302) <= 20


KNOCK = """
import http.client, re, sys, urllib.parse
for address in sys.argv[1:]:
    ask = http.client.HTTPConnection("127.0.0.1", 8081)
    headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https", "Host": "loop.localhost",
               "Referer": "https://loop.localhost/auth/login/", "Content-Type": "application/x-www-form-urlencoded"}
    ask.request("GET", "/auth/login/", headers=headers)
    page = ask.getresponse()
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.read().decode())[1]
    headers["Cookie"] = "; ".join(one.partition(";")[0] for one in page.headers.get_all("Set-Cookie"))
    form = urllib.parse.urlencode({"username": "eve", "password": "wrong", "csrf_token": token})
    ask.request("POST", "/auth/login/", form, headers)
    print(ask.getresponse().status)
"""


def test_one_persons_tries_lock_nobody_else_out_of_airflow(server: Server) -> None:
    """From behind Caddy, which alone says for whom it asks."""
    said = server.python("airflow-api-server", KNOCK, *["203.0.113.5"] * 15, "203.0.113.6").split()
    assert said[14:] == ["429", "302"]
