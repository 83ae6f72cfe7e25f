"""The Procfile under a real supervisord, with services that only sleep."""

import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from supervisor.options import ServerOptions

from pipelines.errors import ConfigurationError
from pipelines.local_stack import supervisor
from pipelines.local_stack.services import SERVICES, read_procfile, services_in
from pipelines.settings import Settings

TRICKY = """exec sh -c 'echo "it'"'"'s 100% of $HOME"; exec sleep 60'"""


@pytest.fixture
def stack_of_sleepers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A project whose Procfile has two sleeping services, and a state folder with a space in its name."""
    (tmp_path / "Procfile").write_text(f"mlflow: {TRICKY}\nsegmentation: exec sleep 60\n", encoding="utf-8")
    monkeypatch.setattr(supervisor, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(supervisor, "read_procfile", lambda: read_procfile(tmp_path / "Procfile"))
    short = Path(tempfile.mkdtemp(prefix="maskloop ", dir="/tmp"))  # the socket's path must be short
    settings = Settings(_env_file=None, var=short)
    yield settings
    supervisor.stop(settings)
    shutil.rmtree(short)


@pytest.fixture
def free_ports(tmp_path: Path) -> Settings:
    """Settings in which every service has a port that is free."""
    probes = [socket.socket() for _ in SERVICES]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = {f"{s.setting}_port": p.getsockname()[1] for s, p in zip(SERVICES, probes, strict=True)}
    for probe in probes:
        probe.close()
    return Settings(_env_file=None, var=tmp_path, **ports)


class TestPorts:
    def test_free_ports_are_fine(self, free_ports: Settings) -> None:
        supervisor.require_free_ports(free_ports)

    def test_every_taken_port_is_named_with_service_and_variable(self, free_ports: Settings) -> None:
        port = free_ports.mlflow_port
        with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError) as caught:
            supervisor.require_free_ports(free_ports)
        assert str(caught.value) == (
            f"these ports are not free: {port} (mlflow: Address already in use; set MASKLOOP_MLFLOW_PORT). "
            "Nothing was started"
        )

    def test_two_services_on_one_port_are_named(self, free_ports: Settings) -> None:
        with pytest.raises(ConfigurationError, match="segmentation: mlflow has it as well; set MASKLOOP_SEGMENT"):
            supervisor.require_free_ports(free_ports.model_copy(update={"segmentation_port": free_ports.mlflow_port}))


class TestConfiguration:
    def test_supervisord_understands_it(self, stack_of_sleepers: Settings) -> None:
        options = read_by_supervisord(stack_of_sleepers)
        assert options.logfile == str(stack_of_sleepers.var / "logs" / "supervisord.log")
        programs = {group.name: group.process_configs[0] for group in options.process_group_configs}
        assert set(programs) == {"mlflow", "segmentation"}
        assert shlex.split(programs["mlflow"].command) == ["sh", "-c", TRICKY]
        assert programs["mlflow"].stdout_logfile == str(stack_of_sleepers.var / "logs" / "mlflow.log")
        assert all(program.autorestart and program.stopasgroup and program.killasgroup for program in programs.values())

    def test_the_projects_own_procfile_survives_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(supervisor, "_SOCKET_PATH_LIMIT", 1000)
        settings = Settings(_env_file=None, var=tmp_path)
        programs = [group.process_configs[0] for group in read_by_supervisord(settings).process_group_configs]
        commands = {program.name: shlex.split(program.command)[2] for program in programs}
        assert commands == read_procfile()

    def test_a_state_folder_too_deep_for_a_socket_is_named(self, tmp_path: Path) -> None:
        settings = Settings(_env_file=None, var=tmp_path / ("deep" * 30))
        with pytest.raises(ConfigurationError, match="too deep for a Unix socket; set MASKLOOP_VAR to a shorter path"):
            supervisor.start(settings)


def read_by_supervisord(settings: Settings) -> ServerOptions:
    config = settings.var / "supervisord.conf"
    for name in ("logs", "supervisor"):
        (settings.var / name).mkdir(parents=True)
    config.write_text(supervisor._configuration(settings), encoding="utf-8")
    options = ServerOptions()
    options.realize(["-c", str(config)], doc="")
    return options


class TestRunning:
    def test_nothing_runs_before_the_start(self, stack_of_sleepers: Settings) -> None:
        assert not supervisor.is_running(stack_of_sleepers)
        assert supervisor.states(stack_of_sleepers) == {}
        assert not supervisor.stop(stack_of_sleepers)

    def test_what_was_started_is_seen_restarted_and_ended(self, stack_of_sleepers: Settings) -> None:
        supervisor.start(stack_of_sleepers)
        first = eventually(lambda: alive(stack_of_sleepers))
        assert set(first) == {"mlflow", "segmentation"}
        assert supervisor.memory_mb(stack_of_sleepers).keys() == set(first)
        assert eventually(lambda: "it's 100% of /" in supervisor.log_tail(stack_of_sleepers, "mlflow"))

        psutil.Process(first["segmentation"]).kill()
        second = eventually(lambda: (now := alive(stack_of_sleepers)) != first and now)
        assert second["mlflow"] == first["mlflow"]

        assert supervisor.stop(stack_of_sleepers)
        assert not any(psutil.pid_exists(pid) for pid in second.values())
        assert not supervisor.is_running(stack_of_sleepers)

    def test_a_process_id_that_another_program_has_now_is_left_alone(self, stack_of_sleepers: Settings) -> None:
        folder = stack_of_sleepers.var / "supervisor"
        folder.mkdir()
        (folder / "supervisord.pid").write_text(str(psutil.Process().pid), encoding="utf-8")
        assert not supervisor.is_running(stack_of_sleepers)
        assert not supervisor.stop(stack_of_sleepers)


def alive(settings: Settings) -> dict[str, int]:
    """Return the process id of each service, or nothing while one does not sleep yet."""
    pids = {name: pid for name, (_, pid) in supervisor.states(settings).items()}
    asleep = {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "sleep"}
    return pids if asleep.issuperset(pids.values()) else {}


def eventually(ask: Callable[[], Any], timeout_s: float = 15) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return answer


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert supervisor.log_tail(Settings(_env_file=None, var=tmp_path), "mlflow") == ""


def test_services_of_the_procfile_have_distinct_ports(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, var=tmp_path)
    ports = [service.port(settings) for service in services_in(settings)]
    assert len(ports) == len(set(ports))
