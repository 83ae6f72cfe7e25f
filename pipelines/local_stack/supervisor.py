"""The processes of the Procfile under supervisord: start, restart and stop exactly these.

supervisord restarts a process that dies and writes one rotated log per process; only the Procfile lists them.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path

import psutil
from supervisor.xmlrpc import SupervisorTransport

from pipelines.errors import ConfigurationError, ServiceError
from pipelines.local_stack.services import environment, read_procfile, services_in
from pipelines.settings import PROJECT_ROOT, Settings

_STOP_SECONDS = 15
_SOCKET_PATH_LIMIT = 100  # Unix sockets allow about 107 bytes


def is_running(settings: Settings) -> bool:
    """Return whether the supervisord of this state folder is running."""
    return _supervisor_process(settings) is not None


def require_free_ports(settings: Settings) -> None:
    """Raise ConfigurationError naming every port that is taken or assigned twice, before anything is started."""
    taken, owner = [], dict[int, str]()
    for service in services_in(settings):
        port = service.port(settings)
        first = owner.setdefault(port, service.name)
        problem = _bind_error(settings.host, port) if first == service.name else f"{first} has it as well"
        if problem:
            taken.append(f"{port} ({service.name}: {problem}; set MASKLOOP_{service.setting.upper()}_PORT)")
    if taken:
        raise ConfigurationError(f"these ports are not free: {', '.join(taken)}. Nothing was started")


def _bind_error(host: str, port: int) -> str:
    """Return why a server cannot listen on a port; empty when it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def start(settings: Settings) -> None:
    """Start supervisord with every service and return at once.

    Raises ServiceError with the output of supervisord when it does not start.
    """
    folder = settings.var / "supervisor"
    (settings.var / "logs").mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "supervisord.conf"
    config.write_text(_configuration(settings), encoding="utf-8")
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
    done = subprocess.run(
        command,
        env={**os.environ, **environment(settings)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    deadline = time.monotonic() + 10
    while done.returncode == 0 and time.monotonic() < deadline:
        if is_running(settings) and _socket(settings).exists():
            return
        time.sleep(0.1)
    raise ServiceError(f"supervisord did not start: {done.stdout}{done.stderr} (see {settings.var / 'logs'})")


def stop(settings: Settings) -> bool:
    """Stop supervisord and with it every service; return whether anything was running."""
    process = _supervisor_process(settings)
    if process is None:
        return False
    children = process.children(recursive=True)
    process.terminate()
    _, alive = psutil.wait_procs([process, *children], timeout=_STOP_SECONDS + 10)
    for survivor in alive:  # its own children that ignored SIGTERM
        survivor.kill()
    return True


def states(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return each process's state (RUNNING, BACKOFF, FATAL, …) and process id; empty when nothing is running."""
    if not is_running(settings):
        return {}
    with _rpc(settings) as server:
        answer = server.supervisor.getAllProcessInfo()
    assert isinstance(answer, list)
    return {str(info["name"]): (str(info["statename"]), int(info["pid"])) for info in answer}


def memory_mb(settings: Settings) -> dict[str, float]:
    """Measure the memory of each process and its children in MB, shared pages counted once (PSS)."""
    return {name: sum(map(_pss, _family(pid))) / 1e6 for name, (_, pid) in states(settings).items() if pid}


def processor_seconds(settings: Settings) -> dict[str, float]:
    """Return the seconds of processor time that each process and its children have used so far."""
    return {name: sum(map(_used, _family(pid))) for name, (_, pid) in states(settings).items() if pid}


def _used(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def _family(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:  # it has ended
        return []


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def log_tail(settings: Settings, process: str, lines: int = 15) -> str:
    """Return the last lines of a process's log."""
    path = settings.var / "logs" / f"{process}.log"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if path.exists() else ""


def _configuration(settings: Settings) -> str:
    # supervisord expands %(…)s in every value
    folder, logs, root, socket_path = (
        str(path).replace("%", "%%")
        for path in (settings.var / "supervisor", settings.var / "logs", PROJECT_ROOT, _socket(settings))
    )
    head = f"""[supervisord]
logfile={logs}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={logs}
identifier=maskloop

[unix_http_server]
file={socket_path}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    names = {name for service in services_in(settings) for name in service.processes}
    return head + "".join(
        f"""
[program:{name}]
command=sh -c {shlex.quote(command).replace("%", "%%")}
directory={root}
autorestart=true
startsecs=5
startretries=3
stopasgroup=true
killasgroup=true
stopwaitsecs={_STOP_SECONDS}
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""
        for name, command in read_procfile().items()
        if name in names
    )


def _socket(settings: Settings) -> Path:
    path = settings.var / "supervisor" / "s.sock"
    if len(str(path)) > _SOCKET_PATH_LIMIT:
        raise ConfigurationError(f"{settings.var} is too deep for a Unix socket; set MASKLOOP_VAR to a shorter path")
    return path


def _supervisor_process(settings: Settings) -> psutil.Process | None:
    try:
        pid = int((settings.var / "supervisor" / "supervisord.pid").read_text(encoding="utf-8"))
        process = psutil.Process(pid)
        is_own = str(settings.var / "supervisor" / "supervisord.conf") in process.cmdline()
        return process if is_own and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def _rpc(settings: Settings) -> xmlrpc.client.ServerProxy:
    transport = SupervisorTransport(None, None, serverurl=f"unix://{_socket(settings)}")
    return xmlrpc.client.ServerProxy("http://localhost", transport=transport)
