"""Programs forked from servers that imported what they need: but for the time, they are what `python -m` runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.dataset.warm import Program, warm_servers
from pipelines.settings import PROJECT_ROOT

NEEDED = """
import os
with open("imports.txt", "a") as file:
    file.write(f"{os.getpid()}\\n")
def prepare():
    with open("prepared.txt", "a") as file:
        file.write("prepared\\n")
"""
PROGRAM = """
import needed, os, sys, time
def main():
    print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("GREETING"), needed.__name__, flush=True)
    print("a warning", file=sys.stderr, flush=True)
    if "fail" in sys.argv:
        raise SystemExit("it failed")
    if "crash" in sys.argv:
        raise ValueError("it crashed")
    if "die" in sys.argv:
        os.kill(os.getpid(), 9)
    if "wait" in sys.argv:
        time.sleep(60)
if __name__ == "__main__":
    main()
"""
SERVED = (Program("program", ("needed:prepare",)),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "needed.py").write_text(NEEDED, encoding="utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{folder}:{PROJECT_ROOT}"}


@pytest.fixture
def python(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    with warm_servers([SERVED], folder, environment) as place:
        yield str(place / "python")


def run(python: str, folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=30
    )


def imports(folder: Path) -> list[str]:
    return (folder / "imports.txt").read_text(encoding="utf-8").split()


def wait_until_gone(process: psutil.Process) -> None:
    process.wait(timeout=10)


def children_of_servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "warm.server" in " ".join(child.cmdline())]


def test_it_runs_as_the_interpreter_would(python: str, folder: Path, environment: dict[str, str]) -> None:
    own = environment | {"GREETING": "good morning"}
    for arguments in (("one", "zwei drei"), ("fail",), ("crash",)):
        quick = run(python, folder, own, "-m", "program", *arguments)
        usual = run(sys.executable, folder, own, "-m", "program", *arguments)
        assert (quick.returncode, quick.stdout) == (usual.returncode, usual.stdout)
        assert quick.stderr.splitlines()[-1] == usual.stderr.splitlines()[-1]


def test_the_program_is_told_apart_when_a_signal_ends_it(
    python: str, folder: Path, environment: dict[str, str]
) -> None:
    assert run(python, folder, environment, "-m", "program", "die").returncode == 128 + signal.SIGKILL


def test_what_it_needs_is_imported_once_for_all_runs(python: str, folder: Path, environment: dict[str, str]) -> None:
    for _ in range(3):
        assert run(python, folder, environment, "-m", "program").returncode == 0
    assert len(imports(folder)) == 1
    assert (folder / "prepared.txt").read_text(encoding="utf-8") == "prepared\n"


def test_runs_at_the_same_time_do_not_mix(python: str, folder: Path, environment: dict[str, str]) -> None:
    started = [
        subprocess.Popen(
            [python, "-m", "program", str(number)], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        for number in range(8)
    ]
    for number, process in enumerate(started):
        assert f"['{number}']" in process.communicate(timeout=30)[0]
        assert process.returncode == 0


def test_other_programs_get_the_ordinary_interpreter(python: str, folder: Path, environment: dict[str, str]) -> None:
    assert run(python, folder, environment, "-c", "import needed; print(needed.__name__)").stdout == "needed\n"
    assert run(python, folder, environment, "-m", "needed").returncode == 0


def test_without_a_server_programs_run_all_the_same(python: str, folder: Path, environment: dict[str, str]) -> None:
    assert run(python, folder, environment, "-m", "program").returncode == 0
    [server] = children_of_servers()
    server.kill()
    wait_until_gone(server)
    assert "__main__" in run(python, folder, environment, "-m", "program").stdout
    assert len(imports(folder)) == 2


def test_a_program_ends_with_the_one_who_asked_for_it(python: str, folder: Path, environment: dict[str, str]) -> None:
    asking = subprocess.Popen(
        [python, "-m", "program", "wait"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert asking.stdout is not None
    assert "wait" in asking.stdout.readline()
    [server] = children_of_servers()
    [program] = server.children()
    asking.kill()
    wait_until_gone(program)
    assert server.is_running()
    assert run(python, folder, environment, "-m", "program").returncode == 0
    asking.communicate()


def test_everything_ends_when_the_starter_is_killed(folder: Path, environment: dict[str, str]) -> None:
    starter = f"""
import os, subprocess
from pathlib import Path
from pipelines.dataset.warm import Program, warm_servers
served = (Program("program", ("needed:prepare",)),)
with warm_servers([served], Path({str(folder)!r}), dict(os.environ)) as place:
    print(place, flush=True)
    subprocess.run([place / "python", "-m", "program", "wait"], cwd={str(folder)!r})
"""
    process = subprocess.Popen(
        [sys.executable, "-c", starter], env=environment, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    )
    assert process.stdout is not None
    place = Path(process.stdout.readline().strip())
    assert "wait" in process.stdout.readline()
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("warm.server" in " ".join(one.cmdline()) for one in family)
    process.kill()
    for one in family:
        wait_until_gone(one)
    assert not place.exists()
    process.communicate()


def test_nothing_is_left_at_the_end(folder: Path, environment: dict[str, str]) -> None:
    with warm_servers([SERVED], folder, environment) as place:
        run(str(place / "python"), folder, environment, "-m", "program")
        [server] = children_of_servers()
    assert not server.is_running()
    assert not place.exists()


def test_leaving_waits_for_no_import(folder: Path, environment: dict[str, str]) -> None:
    (folder / "slow.py").write_text("import time; time.sleep(30)", encoding="utf-8")
    begin = time.monotonic()
    with warm_servers([(Program("slow"),)], folder, environment):
        pass
    assert time.monotonic() - begin < 10
