"""Alerts: one line to the people who run Maskloop, by webhook and by mail, about runs that failed.

An alert that cannot be delivered is a line in the log and never an error: it must not hide what it is about. The same
failure of the same DAG is sent once in six hours, so that a DAG that fails every half hour does not fill a mailbox.
"""

import json
import logging
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

import httpx
from pydantic import SecretStr

from pipelines.airflow_api import Airflow
from pipelines.contract import AIRFLOW, INGEST_DAG
from pipelines.errors import ConfigurationError, MaskloopError
from pipelines.fs import write_atomically
from pipelines.log import configure_logging
from pipelines.settings import Settings, get_settings

logger = logging.getLogger(__name__)
_TIMEOUT_S = 8  # all of them together must fit into the 50 s that Airflow's DAG processor gives a callback
_SAME_FAILURE_AFTER = timedelta(hours=6)
_NEVER = datetime.min.replace(tzinfo=UTC)
_MAX_ERROR_LENGTH = 500  # characters
_MIN_SECRET_LENGTH = 6  # shorter ones occur by chance, and Maskloop generates none
_PASSWORD = re.compile(r"^[^:]+://[^/@:]*:(.+)@")  # within a URL, whatever characters it holds
_REASONS = {
    "timed_out": "it took longer than it may",
    "all_tasks_deadlocked": "no task of it can run any more",
    "task_failure": "see its log",
}
_KILLED = "its process ended without an error: it was killed, perhaps because memory ran out"


def alert_of_failed_run(settings: Settings, dag: str, run_id: str, task: str, reason: str) -> str:
    """Report that a run of a DAG failed: the task (may be empty), the error's first line, and the run's address.

    `reason` is Airflow's: `task_failure`, `timed_out` or `all_tasks_deadlocked`. The same text about the same DAG is
    sent again after six hours, or after a run that succeeded. Return the whole text, whether it was sent or not.
    """
    error, last_success = _REASONS.get(reason, reason), datetime.now(UTC)  # unless Airflow says otherwise
    try:
        airflow = Airflow(settings, timeout_s=_TIMEOUT_S)
        if reason == "task_failure":
            errors = airflow.first_errors(dag, run_id)
            task, error = next(((name, line) for name, line in errors if line), (task, _KILLED))
        last_success = airflow.last_success(dag) or _NEVER
    except (MaskloopError, LookupError, TypeError, ValueError) as problem:  # it must not stop the alert
        logger.warning("what failed in %s cannot be asked for: %s", run_id, problem)
    subject, text = _compose(settings, f"{dag} failed{f' in {task}' if task else ''}: {error}", dag, run_id)
    sent_at = _read_sent(settings, dag).get(_key(subject), _NEVER)
    if sent_at > last_success and datetime.now(UTC) - sent_at < _SAME_FAILURE_AFTER:
        logger.error("%s (not sent again; the same was sent at %s)", text, sent_at.isoformat(timespec="seconds"))
    elif _deliver(settings, subject, text):
        _store_sent(settings, dag, subject)
    return text


def send_alert(settings: Settings, what: str, dag: str, run_id: str) -> str:
    """Log a line about a run of a DAG, and post and mail it where the settings say so; return the whole text.

    Values of secret settings are struck out. Raises nothing: what cannot be delivered is a warning in the log.
    """
    subject, text = _compose(settings, what, dag, run_id)
    _deliver(settings, subject, text)
    return text


def _compose(settings: Settings, what: str, dag: str, run_id: str) -> tuple[str, str]:
    """Return the first line of what happened, without secrets, and the same with the run and its address."""
    subject = _without_secrets(what, settings).strip().partition("\n")[0][:_MAX_ERROR_LENGTH]
    url = f"{settings.address(AIRFLOW)}/dags/{dag}/runs/{quote(run_id, safe='')}"
    return subject, f"{subject} · run {run_id} · {url}"


def _deliver(settings: Settings, subject: str, text: str) -> bool:
    """Log a text, and post and mail it; return whether it went out in any way."""
    logger.error("%s", text)
    delivered = False
    if address := settings.alert_webhook.get_secret_value():
        delivered |= _try("webhook", lambda: _post(address, text))
    if settings.alert_email:
        delivered |= _try("mail", lambda: _mail(settings, f"Maskloop: {subject}", text))
    return delivered


def _try(way: str, send: Callable[[], None]) -> bool:
    """Send, or log why not. URLs hold secrets, and messages of libraries may quote them: both are left out."""
    try:
        send()
        return True
    except ConfigurationError as error:
        logger.warning("no alert by %s: %s", way, error)
    except smtplib.SMTPResponseException as error:
        logger.warning(
            "no alert by %s: the mail server answered %s with code %d", way, type(error).__name__, error.smtp_code
        )
    except (httpx.HTTPError, httpx.InvalidURL, smtplib.SMTPException, OSError, ValueError) as error:
        logger.warning("no alert by %s: %s%s", way, type(error).__name__, _reason_of(error))
    return False


def _sent_file(settings: Settings, dag: str) -> Path:
    return settings.var / "alerts" / f"{dag}.json"


def _key(subject: str) -> str:
    return sha256(subject.encode()).hexdigest()


def _read_sent(settings: Settings, dag: str) -> dict[str, datetime]:
    """Return when each failure of a DAG was sent, by its key; nothing is known when the file cannot be read."""
    path = _sent_file(settings, dag)
    try:
        times = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): datetime.fromisoformat(time).astimezone(UTC) for key, time in times.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be read, so that alerts may be sent again: %s", path, error)
        return {}


def _store_sent(settings: Settings, dag: str, subject: str) -> None:
    now = datetime.now(UTC)
    recent = {key: time for key, time in _read_sent(settings, dag).items() if now - time < _SAME_FAILURE_AFTER}
    times = {key: time.isoformat() for key, time in (recent | {_key(subject): now}).items()}
    try:
        write_atomically(_sent_file(settings, dag), json.dumps(times).encode())
    except OSError as error:
        logger.warning("%s cannot be written, so that alerts may be sent again: %s", _sent_file(settings, dag), error)


def _reason_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f" ({error.strerror})"
    return f" (HTTP {error.response.status_code})" if isinstance(error, httpx.HTTPStatusError) else ""


def _post(address: str, text: str) -> None:
    httpx.post(address, json={"text": text}, timeout=_TIMEOUT_S).raise_for_status()


def _mail(settings: Settings, subject: str, text: str) -> None:
    to = [address.strip() for address in settings.alert_email.split(",") if address.strip()]
    server = _server(settings.smtp_url.get_secret_value())
    user = unquote(server.username or "")
    message = EmailMessage()
    message["Subject"], message["To"] = subject[:200], ", ".join(to)
    message["From"] = user if "@" in user else to[0]
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="maskloop.invalid")
    message.set_content(text)
    with _connect(server) as connection:
        if server.username:
            _require_encryption(connection, server)
            connection.login(user, unquote(server.password or ""))
        connection.send_message(message)


def _server(url: str) -> SplitResult:
    """Parse the mail server's URL; raise ConfigurationError for one that is none."""
    server = urlsplit(url)
    try:
        valid = server.scheme in ("smtp", "smtps") and bool(server.hostname) and (server.port or 1) > 0
    except ValueError:  # a port that is no number: the password has a character that is not quoted
        valid = False
    if not valid:
        raise ConfigurationError(
            "MASKLOOP_SMTP_URL is no address such as smtp://user:password@host:587 or smtps://…; signs such as : / @ "
            "in user and password are written %3A %2F %40"
        )
    return server


def _connect(server: SplitResult) -> smtplib.SMTP:
    host, own_name = str(server.hostname), socket.gethostname()
    if server.scheme == "smtps":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, server.port or 465, own_name, timeout=_TIMEOUT_S, context=context)
    connection = smtplib.SMTP(host, server.port or 25, own_name, timeout=_TIMEOUT_S)
    connection.ehlo()
    if connection.has_extn("starttls"):
        connection.starttls(context=ssl.create_default_context())
        connection.ehlo()
    return connection


def _require_encryption(connection: smtplib.SMTP, server: SplitResult) -> None:
    """Raise ConfigurationError rather than send a password in the clear to another machine."""
    host = str(server.hostname)
    if not isinstance(connection.sock, ssl.SSLSocket) and not _is_loopback(host):
        raise ConfigurationError(
            f"the mail server {host} offers no TLS, so it gets no password; use smtps://, or an account-less relay"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_secrets(text: str, settings: Settings) -> str:
    values = (getattr(settings, name) for name in type(settings).model_fields)
    secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    secrets += [match[1] for match in map(_PASSWORD.search, secrets) if match]
    for secret in sorted({secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def main() -> None:
    """Send an alert in which nothing failed, to see whether it arrives; the log says why when it does not."""
    configure_logging()
    send_alert(get_settings(), "a test of alerts: nothing failed", INGEST_DAG, "test")


if __name__ == "__main__":
    main()
