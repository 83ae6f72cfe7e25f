"""Alerts: one line to the people who run Maskloop, by webhook and by mail, about what failed while nobody looked.

An alert that cannot be delivered is a line in the log and never an error: it must not hide what it is about.
"""

import logging
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, unquote, urlsplit

import httpx
from pydantic import SecretStr

from pipelines.airflow_api import Airflow
from pipelines.contract import INGEST_DAG
from pipelines.errors import ConfigurationError, MaskloopError
from pipelines.log import configure_logging
from pipelines.settings import Settings, get_settings

logger = logging.getLogger(__name__)
_TIMEOUT_S = 8  # all of them together must fit into the 50 s that Airflow's DAG processor gives a callback
_LONGEST = 500  # characters of an error
_SHORTEST_SECRET = 6  # shorter ones occur by chance; none that Maskloop makes is
_PASSWORD = re.compile(r"^[^:]+://[^/@:]*:(.+)@")  # within an address, whatever signs it holds
_REASONS = {
    "timed_out": "it took longer than it may",
    "all_tasks_deadlocked": "no task of it can run any more",
    "task_failure": "see its log",
}
_KILLED = "its process ended without an error: it was killed, perhaps because memory ran out"


def alert_of_failed_run(settings: Settings, dag: str, run_id: str, task: str, reason: str) -> str:
    """Tell people that a run of a DAG failed: which task (may be empty), the error's first line, and where to look.

    `reason` is Airflow's: `task_failure`, `timed_out` or `all_tasks_deadlocked`. Returns the text that was sent.
    """
    error = _REASONS.get(reason, reason)
    if reason == "task_failure":
        try:
            errors = Airflow(settings, timeout_s=_TIMEOUT_S).first_errors(dag, run_id)
            task, error = next(((name, line) for name, line in errors if line), (task, _KILLED))
        except MaskloopError as problem:
            logger.warning("what failed in %s cannot be asked for: %s", run_id, problem)
    return send_alert(settings, f"{dag} failed{f' in {task}' if task else ''}: {error}", dag, run_id)


def send_alert(settings: Settings, what: str, dag: str, run_id: str) -> str:
    """Log a line about a run of a DAG, and post and mail it where the settings say so; returns the whole text.

    Values of secret settings are struck out. Raises nothing: what cannot be delivered is a warning in the log.
    """
    first = _without_secrets(what, settings).strip().partition("\n")[0][:_LONGEST]
    place = f"{settings.address('airflow')}/dags/{dag}/runs/{quote(run_id, safe='')}"
    text = f"{first} · run {run_id} · {place}"
    logger.error("%s", text)
    if address := settings.alert_webhook.get_secret_value():
        _try("webhook", lambda: _post(address, text))
    if settings.alert_email:
        _try("mail", lambda: _mail(settings, f"Maskloop: {first}", text))
    return text


def _try(way: str, send: Callable[[], None]) -> None:
    """Send, or log why not; addresses hold secrets and so may the words of libraries, which are left out therefore."""
    try:
        send()
    except ConfigurationError as error:
        logger.warning("no alert by %s: %s", way, error)
    except smtplib.SMTPResponseException as error:
        logger.warning(
            "no alert by %s: the mail server answered %s with code %d", way, type(error).__name__, error.smtp_code
        )
    except (httpx.HTTPError, httpx.InvalidURL, smtplib.SMTPException, OSError, ValueError) as error:
        logger.warning("no alert by %s: %s%s", way, type(error).__name__, _reason_of(error))


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
    """Take apart the mail server's address; raises ConfigurationError for one that is none."""
    server = urlsplit(url)
    try:
        good = server.scheme in ("smtp", "smtps") and bool(server.hostname) and (server.port or 1) > 0
    except ValueError:  # a port that is no number: there was an unquoted sign in the password
        good = False
    if not good:
        raise ConfigurationError(
            "MASKLOOP_SMTP_URL is no address such as smtp://user:password@host:587 or smtps://…; signs such as : / @ "
            "in user and password are written %3A %2F %40"
        )
    return server


def _connect(server: SplitResult) -> smtplib.SMTP:
    host, here = str(server.hostname), socket.gethostname()
    if server.scheme == "smtps":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, server.port or 465, here, timeout=_TIMEOUT_S, context=context)
    connection = smtplib.SMTP(host, server.port or 25, here, timeout=_TIMEOUT_S)
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
    secrets += [found[1] for found in map(_PASSWORD.search, secrets) if found]
    for secret in sorted({secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def main() -> None:
    """Send an alert in which nothing failed, to see whether it arrives; the log says why when it does not."""
    configure_logging()
    send_alert(get_settings(), "a test of alerts: nothing failed", INGEST_DAG, "test")


if __name__ == "__main__":
    main()
