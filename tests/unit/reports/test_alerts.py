"""Alerts reach people by webhook and mail, name what failed, hold no secret, and are never an error themselves."""

import base64
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_string, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest

from pipelines.reports import alerts
from pipelines.reports.alerts import alert_of_failed_run, send_alert
from pipelines.settings import Settings

RUN = "scheduled__2026-01-01T05:00:00+00:00"
PLACE = "https://loop.example.org/dags/sync_annotations/runs/scheduled__2026-01-01T05%3A00%3A00%2B00%3A00"
Sent = tuple[str, Any]


@contextmanager
def serving(server: BaseServer) -> Iterator[int]:
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@dataclass
class Web:
    """A server of webhooks, and an Airflow as far as it is asked; notes what is posted."""

    port: int = 0
    answers: dict[str, Any] = field(default_factory=dict)  # JSON by path, or a status
    posted: list[Sent] = field(default_factory=list)

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            path = self.path.partition("?")[0]
            if length:
                server.posted.append((path, json.loads(self.rfile.read(length))))
            answer = server.answers.get(path, {})
            self.send_response(answer if isinstance(answer, int) else 200)
            body = json.dumps(answer).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server.port:
        yield server


@dataclass
class Post:
    """A mail server of a few words; notes what it is told. `refuses` is its answer to a recipient."""

    port: int = 0
    refuses: str = ""
    told: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)


@pytest.fixture
def post() -> Iterator[Post]:
    server = Post()

    class Handler(StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 a mail server")
            while line := self.rfile.readline().decode().rstrip("\r\n"):
                server.told.append(line)
                word = line.partition(" ")[0].upper()
                if word == "EHLO":
                    self.say("250-hello\r\n250 AUTH PLAIN")
                elif word == "AUTH":
                    self.say("235 welcome")
                elif word == "RCPT" and server.refuses:
                    self.say(server.refuses)
                elif word == "DATA":
                    self.say("354 go on")
                    lines = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                    server.mails.append("".join(lines))
                    self.say("250 thank you")
                elif word == "QUIT":
                    self.say("221 good bye")
                    break
                else:
                    self.say("250 fine")

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with serving(Server(("127.0.0.1", 0), Handler)) as server.port:
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**fields: Any) -> Settings:
        return Settings(_env_file=None, var=tmp_path, airflow_address="https://loop.example.org/", **fields)

    return make


def test_without_settings_it_is_a_line_in_the_log(
    settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    text = send_alert(settings(), "sync_annotations failed", "sync_annotations", RUN)

    assert text == f"sync_annotations failed · run {RUN} · {PLACE}"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("ERROR", text)]


def test_the_webhook_is_told_as_chats_want_it(settings: Callable[..., Settings], web: Web) -> None:
    text = send_alert(settings(alert_webhook=web.url("/hooks/T0/B0")), "it failed\nand more", "sync_annotations", RUN)

    assert web.posted == [("/hooks/T0/B0", {"text": text})]
    assert text.startswith("it failed · run")


def test_everybody_is_mailed(settings: Callable[..., Settings], post: Post) -> None:
    configured = settings(alert_email="ada@example.org, bob@example.org", smtp_url=f"smtp://127.0.0.1:{post.port}")
    text = send_alert(configured, "«sync» failed: no größe", "sync_annotations", RUN)

    sender, *receivers = [line.lower() for line in post.told if line.lower().startswith(("mail", "rcpt"))]
    assert sender.startswith("mail from:<ada@example.org>")
    assert receivers == ["rcpt to:<ada@example.org>", "rcpt to:<bob@example.org>"]
    [mail] = [message_from_string(text, policy=policy.default) for text in post.mails]
    assert (mail["Subject"], mail["To"]) == ("Maskloop: «sync» failed: no größe", "ada@example.org, bob@example.org")
    assert mail["Date"]
    assert mail.get_content().strip() == text


def test_an_account_of_the_mail_server_sends(settings: Callable[..., Settings], post: Post) -> None:
    address = f"smtp://loop%40example.org:p%2Fss%3Aword@127.0.0.1:{post.port}"
    send_alert(settings(alert_email="ada@example.org", smtp_url=address), "it failed", "sync_annotations", RUN)

    [login] = [line.split()[-1] for line in post.told if line.startswith("AUTH")]
    assert base64.b64decode(login).decode() == "\0loop@example.org\0p/ss:word"
    assert message_from_string(post.mails[0])["From"] == "loop@example.org"


def test_no_password_goes_to_another_machine_in_the_clear(
    settings: Callable[..., Settings], post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "_is_loopback", lambda host: False)
    address = f"smtp://loop:password@127.0.0.1:{post.port}"
    send_alert(settings(alert_email="ada@example.org", smtp_url=address), "it failed", "sync_annotations", RUN)

    assert not any(line.startswith("AUTH") for line in post.told)
    assert post.mails == []
    assert "no alert by mail: the mail server 127.0.0.1 offers no TLS, so it gets no password" in caplog.text


@pytest.mark.parametrize(
    ("host", "is_local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("mail.example.org", False)]
)
def test_what_is_on_this_machine_is_known(host: str, is_local: bool) -> None:
    assert alerts._is_loopback(host) is is_local


class TestUndelivered:
    """Every way of not arriving is a warning without secrets, and the other way is taken all the same."""

    @pytest.mark.parametrize("way", ["refused", "status", "scheme", "port"])
    def test_a_webhook_that_cannot_be_reached(
        self, settings: Callable[..., Settings], web: Web, post: Post, free_port: int, way: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        web.answers["/hush-hush"] = 404
        address = {
            "refused": f"http://127.0.0.1:{free_port}/hush-hush",
            "status": web.url("/hush-hush"),
            "scheme": "hps://127.0.0.1/hush-hush",
            "port": "http://hush-hush:seven/",
        }[way]
        mail = {"alert_email": "ada@example.org", "smtp_url": f"smtp://127.0.0.1:{post.port}"}
        send_alert(settings(alert_webhook=address, **mail), "it failed", "sync_annotations", RUN)

        [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warning.startswith("no alert by webhook: ")
        assert "hush" not in caplog.text
        assert len(post.mails) == 1

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("smtp://loop:hush-hush@127.0.0.1:{free}", "ConnectionRefusedError (Connection refused)"),
            ("smtp://loop:hush/hush@127.0.0.1:{smtp}", "MASKLOOP_SMTP_URL is no address such as smtp://user"),
            ("http://loop:hush-hush@127.0.0.1:{smtp}", "MASKLOOP_SMTP_URL is no address"),
            ("", "MASKLOOP_SMTP_URL is no address"),
            ("smtps://127.0.0.1:{smtp}", "SSLError"),
            ("smtp://127.0.0.1:{smtp}", "SMTPRecipientsRefused"),
        ],
    )
    def test_a_mail_server_that_takes_nothing(
        self, settings: Callable[..., Settings], web: Web, post: Post, free_port: int, address: str, said: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        post.refuses = "550 nobody of this name"
        smtp_url = address.format(free=free_port, smtp=post.port)
        configured = settings(alert_webhook=web.url("/hook"), alert_email="ada@example.org", smtp_url=smtp_url)
        send_alert(configured, "it failed", "sync_annotations", RUN)

        [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warning.startswith("no alert by mail: ")
        assert said in warning
        assert "hush" not in caplog.text
        assert len(web.posted) == 1


def test_secrets_are_struck_out(settings: Callable[..., Settings], web: Web) -> None:
    configured = settings(
        alert_webhook=web.url("/hush-hook"), label_studio_token="hush-token", airflow_password="abc",
        mlflow_database="postgresql+psycopg2://mlflow:hush/pass@postgres/mlflow",
    )  # fmt: skip
    words = f"abc: POST {web.url('/hush-hook')} with hush-token: hush/pass is wrong"
    send_alert(configured, words, "sync_annotations", RUN)

    [(_, told)] = web.posted
    assert told["text"].startswith("abc: POST *** with ***: *** is wrong · run")


def test_a_long_error_is_cut(settings: Callable[..., Settings]) -> None:
    assert len(send_alert(settings(), "e" * 9000, "sync_annotations", RUN)) < 800


class TestFailedRun:
    RUNS = "/api/v2/dags/sync_annotations/dagRuns"
    TASKS = "/api/v2/dags/sync_annotations/dagRuns/scheduled__2026-01-01T05%3A00%3A00%2B00%3A00/taskInstances"

    @pytest.fixture
    def airflow(self, web: Web) -> Callable[[list[dict[str, Any]]], None]:
        """Let the run have a failed task with these lines in its log."""

        def failed(lines: list[dict[str, Any]]) -> None:
            task = {"task_id": "publish", "state": "failed", "try_number": 2, "map_index": -1}
            later = {"task_id": "log", "state": "upstream_failed", "try_number": 0, "map_index": -1}
            web.answers |= {
                "/auth/token": {"access_token": "t"},
                self.RUNS: {"dag_runs": []},
                self.TASKS: {"task_instances": [later, task]},
                f"{self.TASKS}/publish/logs/2": {"content": ["a text", *lines]},
            }

        return failed

    def told(self, settings: Callable[..., Settings], web: Web, reason: str = "task_failure") -> str:
        configured = settings(alert_webhook=web.url("/hook"), airflow_url=web.url())
        text = alert_of_failed_run(configured, "sync_annotations", RUN, "publish", reason)
        assert web.posted[-1] == ("/hook", {"text": text})
        return text

    @pytest.mark.parametrize(
        ("kind", "value", "said"),
        [
            ("AirflowFailException", "ChecksError: check: not published\nmore", "ChecksError: check: not published"),
            ("ServiceError", "Label Studio is down\nmore", "ServiceError: Label Studio is down"),
            ("RuntimeError", "", "RuntimeError:"),
        ],
    )
    def test_it_names_dag_task_error_run_and_place(
        self, settings: Callable[..., Settings], web: Web, airflow: Callable[..., None], kind: str, value: str,
        said: str,
    ) -> None:  # fmt: skip
        earlier = {"event": "tried", "error_detail": [{"exc_type": "ServiceError", "exc_value": "no answer yet"}]}
        last = [{"exc_type": kind, "exc_value": value}, {"exc_type": "ChecksError", "exc_value": "its cause"}]
        airflow([earlier, {"event": "Task failed", "error_detail": last}, {"event": "the end"}])

        assert self.told(settings, web) == f"sync_annotations failed in publish: {said} · run {RUN} · {PLACE}"

    def test_a_process_without_an_error_was_killed(
        self, settings: Callable[..., Settings], web: Web, airflow: Callable[..., None]
    ) -> None:
        airflow([{"event": "at work"}])

        assert "failed in publish: its process ended without an error: it was killed, perhaps" in self.told(
            settings, web
        )

    def test_without_airflows_answer_people_are_told_all_the_same(
        self, settings: Callable[..., Settings], web: Web
    ) -> None:
        web.answers["/auth/token"] = 503

        assert self.told(settings, web).startswith("sync_annotations failed in publish: see its log · run")

    def test_a_run_that_took_too_long_says_so(self, settings: Callable[..., Settings], web: Web) -> None:
        text = self.told(settings, web, "timed_out")

        assert text.startswith("sync_annotations failed in publish: it took longer than it may · run")

    @pytest.mark.parametrize(
        ("change", "sent"),
        [
            ("nothing", 1),  # the same again, half an hour later
            ("another error", 2),
            ("a success since", 2),
            ("a success before", 1),
            ("six hours later", 2),
            ("Airflow does not answer", 2),
            ("a damaged file", 2),
            ("another DAG", 2),
        ],
    )
    def test_the_same_failure_is_sent_once_in_six_hours(
        self, settings: Callable[..., Settings], web: Web, airflow: Callable[..., None], tmp_path: Path, change: str,
        sent: int, caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        airflow([{"event": "at work"}])
        self.told(settings, web)
        state = tmp_path / "alerts" / "sync_annotations.json"
        [(key, at)] = json.loads(state.read_text(encoding="utf-8")).items()
        hour = timedelta(hours=1)
        if change == "another error":
            airflow([{"error_detail": [{"exc_type": "ServiceError", "exc_value": "MLflow is down"}]}])
        elif change.startswith("a success"):
            ended = datetime.fromisoformat(at) + (hour if change.endswith("since") else -hour)
            runs = [{"state": "failed", "end_date": None}, {"state": "success", "end_date": ended.isoformat()}]
            web.answers[self.RUNS] = {"dag_runs": runs}
        elif change == "six hours later":
            state.write_text(json.dumps({key: (datetime.now(UTC) - 6 * hour).isoformat()}), encoding="utf-8")
        elif change == "Airflow does not answer":
            web.answers[self.RUNS] = 503
        elif change == "a damaged file":
            state.write_text("half a", encoding="utf-8")
        dag = "retrain_model" if change == "another DAG" else "sync_annotations"
        web.answers |= {path.replace("sync_annotations", dag): answer for path, answer in web.answers.items()}

        configured = settings(alert_webhook=web.url("/hook"), airflow_url=web.url())
        text = alert_of_failed_run(configured, dag, RUN, "publish", "task_failure")

        assert len([path for path, _ in web.posted if path == "/hook"]) == sent
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert errors[-1].startswith(text)
        assert ("not sent again" in errors[-1]) == (sent == 1)

    def test_what_did_not_arrive_is_sent_with_the_next_failure(
        self, settings: Callable[..., Settings], web: Web, airflow: Callable[..., None]
    ) -> None:
        airflow([{"event": "at work"}])
        web.answers["/hook"] = 503
        self.told(settings, web)
        web.answers["/hook"] = 200
        self.told(settings, web)
        assert len([path for path, _ in web.posted if path == "/hook"]) == 2

    def test_a_folder_that_cannot_be_written_stops_no_alert(
        self, settings: Callable[..., Settings], web: Web, airflow: Callable[..., None], tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        airflow([{"event": "at work"}])
        (tmp_path / "alerts").write_text("a file where the folder should be", encoding="utf-8")
        self.told(settings, web)
        self.told(settings, web)
        assert len([path for path, _ in web.posted if path == "/hook"]) == 2
        assert "so that alerts may be sent again" in caplog.text
