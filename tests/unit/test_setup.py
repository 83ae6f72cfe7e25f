"""What `make setup` does before and while it installs, on machines that are made of small programs on PATH."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pipelines.settings import PROJECT_ROOT

TOOLS = (
    "awk", "basename", "cat", "df", "dirname", "env", "git", "grep", "make",
    "mkdir", "mktemp", "rm", "sed", "sh", "sort", "test", "touch",
)  # fmt: skip
PYTHON = """\
#!/bin/sh
case "$*" in
  *version_info*) echo {version} ;;
  *ensurepip*) exit {without_venv} ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip install "*) cp "$(dirname "$0")/../../uv-of-pip" "$(dirname "$0")/uv" ;;
  *) exit 9 ;;
esac
"""
UV = """\
#!/bin/sh
case "$*" in
  "--quiet python install 3.11") exit {status} ;;
  "python find 3.11") echo "$UV_PYTHON_INSTALL_DIR/python3.11" ;;
  *) exit 9 ;;
esac
"""


class Machine:
    """A folder of programs that is all there is on PATH, and a checkout without environments."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.checkout = folder / "bin", folder / "checkout"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "/bin/false")
        for name in ("Makefile", "scripts", "requirements", "pyproject.toml"):
            copy = shutil.copytree if (PROJECT_ROOT / name).is_dir() else shutil.copy
            self.checkout.mkdir(exist_ok=True)
            copy(PROJECT_ROOT / name, self.checkout / name)

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str, *, venv: bool = True) -> Path:
        return self.program(name, PYTHON.format(version=version, without_venv=0 if venv else 1))

    def disk(self, megabytes: int) -> None:
        """Leave this much space on every disk."""
        kib = megabytes * 1_000_000 // 1024 + 1
        self.program("df", f"#!/bin/sh\necho Filesystem\necho /dev/disk 1 1 {kib} 1% /\n")

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.checkout.parent), **variables}
        return subprocess.run(
            [str(self.bin / command[0]) if "/" not in command[0] else command[0], *command[1:]],
            cwd=self.checkout, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def chosen_python(machine: Machine, **variables: str) -> str:
    done = machine.run("scripts/find-python", **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(machine: Machine, **variables: str) -> str:
    done = machine.run("scripts/find-python", **variables)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3.11": "3.11", "python3.12": "3.12", "python3.13": "3.13"}, "python3.11"),
        ({"python3": "3.12", "python3.12": "3.12"}, "python3.12"),  # Ubuntu 24.04
        ({"python3": "3.13", "python3.13": "3.13"}, "python3.13"),  # Debian 13
        ({"python3": "3.10", "python3.10": "3.10", "python3.12": "3.12"}, "python3.12"),
        ({"python3": "3.13"}, "python3"),
        ({"python": "3.12"}, "python"),
    ],
)
def test_the_first_supported_python_is_taken(machine: Machine, pythons: Mapping[str, str], chosen: str) -> None:
    for name, number in pythons.items():
        machine.python(name, number)
    assert chosen_python(machine) == str(machine.bin / chosen)


def test_a_python_that_cannot_make_environments_is_passed_over(machine: Machine) -> None:
    machine.python("python3.11", "3.11", venv=False)
    python = machine.python("python3.12", "3.12")
    assert chosen_python(machine) == str(python)


def test_a_name_that_does_not_run_is_passed_over(machine: Machine) -> None:
    machine.program("python3.11", "#!/bin/sh\necho 'python3.11: command not found' >&2\nexit 127\n")
    python = machine.python("python3.13", "3.13")
    assert chosen_python(machine) == str(python)


def test_ubuntu_without_its_venv_package_is_told_which_one(machine: Machine) -> None:
    machine.python("python3.12", "3.12", venv=False)
    machine.python("python3", "3.12", venv=False)
    assert "sudo apt-get install python3.12-venv" in refused(machine)


def test_a_chosen_python_is_taken_or_refused_with_the_reason(machine: Machine) -> None:
    machine.python("python3.11", "3.11")
    chosen = machine.python("mine", "3.13")
    old = machine.python("old", "3.10")
    bare = machine.python("bare", "3.12", venv=False)

    assert chosen_python(machine, PYTHON=str(chosen)) == str(chosen)
    assert chosen_python(machine, PYTHON="mine") == str(chosen)
    assert "is Python 3.10; Maskloop needs Python 3.11, 3.12 or 3.13" in refused(machine, PYTHON=str(old))
    assert "python3.12-venv" in refused(machine, PYTHON=str(bare))
    assert "does not run" in refused(machine, PYTHON="/nowhere/python3.12")


def test_uv_on_path_brings_a_python_into_the_checkout(machine: Machine) -> None:
    machine.python("python3", "3.14")
    machine.program("uv", UV.format(status=0))
    assert chosen_python(machine) == str(machine.checkout / ".python" / "python3.11")


def test_without_uv_another_python_installs_it_for_the_moment(machine: Machine, tmp_path: Path) -> None:
    machine.python("python3", "3.10")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    machine.program("uv-of-pip", UV.format(status=0)).rename(temporary / "uv-of-pip")
    machine.program("cp", f'#!/bin/sh\nexec {shutil.which("cp")} "$@"\n')

    assert chosen_python(machine, TMPDIR=str(temporary)) == str(machine.checkout / ".python" / "python3.11")
    assert [path.name for path in temporary.iterdir()] == ["uv-of-pip"], "and nothing of it stays"


def test_a_machine_that_no_python_can_be_brought_to_is_told_so(machine: Machine) -> None:
    assert "sudo apt-get install python3 python3-venv" in refused(machine)
    machine.python("python3", "3.14")
    machine.program("uv", UV.format(status=1))
    said = refused(machine)
    assert "uv could not download one" in said
    assert "PYTHON=/path/to/python3.12" in said


@pytest.mark.parametrize(
    ("torch", "installed", "says"),
    [
        ("locked", (), "downloads about 4.2 GB and needs about 10.7 GB"),
        ("cpu", (), "downloads about 1.4 GB and needs about 5.9 GB"),
        ("locked", (".venv-label-studio",), "downloads about 4.0 GB and needs about 9.7 GB"),
        ("cpu", (".venv",), "downloads about 0.2 GB and needs about 1.0 GB"),
    ],
)
def test_setup_says_how_much_it_brings(machine: Machine, torch: str, installed: tuple[str, ...], says: str) -> None:
    machine.disk(50_000)
    for environment in installed:
        (machine.checkout / environment).mkdir()
        (machine.checkout / environment / ".installed").touch()

    done = machine.run("scripts/check-machine", TORCH=torch)

    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout
    assert ("TORCH=cpu" in done.stdout) == (torch == "locked")


def test_setup_stops_before_it_starts_when_the_disk_is_too_small(machine: Machine) -> None:
    machine.python("python3.11", "3.11")
    machine.disk(8_000)

    done = machine.run("make", "setup")

    assert done.returncode == 2
    assert "Only 8.0 GB are free in" in done.stderr
    assert not (machine.checkout / ".venv").exists()


def test_a_small_disk_is_enough_once_all_is_installed(machine: Machine) -> None:
    machine.disk(10)
    for environment in (".venv", ".venv-label-studio"):
        (machine.checkout / environment).mkdir()
        (machine.checkout / environment / ".installed").touch()
    done = machine.run("scripts/check-machine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_cache_on_another_small_disk_is_noticed(machine: Machine) -> None:
    cache = machine.checkout.parent / "cache"
    cache.mkdir()
    machine.program(
        "df",
        f'#!/bin/sh\necho Filesystem\ncase "$*" in *{cache}) echo /dev/small 1 1 5000000 1% / ;; '
        "*) echo /dev/large 1 1 50000000 1% / ;; esac\n",
    )
    done = machine.run("scripts/check-machine", UV_CACHE_DIR=str(cache))
    assert done.returncode == 1
    assert f"uv's cache in {cache} is on another disk" in done.stderr


def test_unknown_builds_of_pytorch_and_a_missing_git_are_named(machine: Machine) -> None:
    assert "TORCH=gpu is unknown" in machine.run("scripts/check-machine", TORCH="gpu").stderr
    (machine.bin / "git").unlink()
    assert "sudo apt-get install git" in machine.run("scripts/check-machine").stderr


def make_plan(machine: Machine, *arguments: str) -> list[str]:
    """Return what `make` would run."""
    done = machine.run("make", "--dry-run", "setup", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def installed_with(machine: Machine, torch: str) -> None:
    for environment in (".venv", ".venv-label-studio"):
        (machine.checkout / environment).mkdir()
        for stamp in (".bootstrapped", ".installed"):
            (machine.checkout / environment / stamp).touch()
    (machine.checkout / ".venv" / ".torch").write_text(f"{torch}\n", encoding="utf-8")


def test_make_installs_everything_once(machine: Machine) -> None:
    plan = make_plan(machine)
    assert [line for line in plan if "sync-packages" in line and " locked " in line] != []
    assert plan.index("scripts/check-machine") == 0

    installed_with(machine, "locked")
    assert make_plan(machine) == ["scripts/check-machine"]


@pytest.mark.parametrize(
    ("last", "asked", "now"),
    [
        ("cpu", (), None),
        ("cpu", ("TORCH=cpu",), None),
        ("locked", ("TORCH=cpu",), "cpu"),
        ("cpu", ("TORCH=locked",), "locked"),
    ],
)
def test_make_keeps_the_last_pytorch_until_another_is_asked_for(
    machine: Machine, last: str, asked: tuple[str, ...], now: str | None
) -> None:
    installed_with(machine, last)
    syncs = [line for line in make_plan(machine, *asked) if "sync-packages" in line]
    assert [f"requirements/maskloop.txt {now} " in line for line in syncs] == ([True] if now else [])

    (machine.checkout / "requirements" / "maskloop.txt").touch()
    os.utime(machine.checkout / ".venv" / ".installed", (0, 0))
    [sync] = [line for line in make_plan(machine, *asked) if "sync-packages" in line]
    assert f"requirements/maskloop.txt {now or last} " in sync


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[[str, str, Path], Path]:
    def make(name: str, number: str, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{number}-py3-none-any.whl"
        info = f"{name}-{number}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.py", f"NUMBER = '{number}'\n")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return path

    return make


class Environment:
    """An empty environment, a lock of four packages that a folder holds, and an index of builds for processors."""

    def __init__(self, folder: Path, wheel: Callable[[str, str, Path], Path]) -> None:
        self.python, self.lock, self.index = folder / "venv/bin/python", folder / "lock.txt", folder / "index"
        self.folder = folder
        subprocess.run(["uv", "--quiet", "venv", "--python", sys.executable, folder / "venv"], check=True)
        self.versions = {"torch": "2.14.1", "torchvision": "0.29.2", "nvidia_nvtx": "13.0", "nvidia_ml_py": "13.1"}
        for name, number in self.versions.items():
            wheel(name, number, folder / "wheels")
        for name in ("torch", "torchvision"):
            path = wheel(name, f"{self.versions[name]}+cpu", self.index / name)
            (self.index / name / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>', encoding="utf-8")
        lines = (f"{name.replace('_', '-')}=={number}\n" for name, number in self.versions.items())
        self.lock.write_text("".join(lines), encoding="utf-8")
        (folder / "no-index").mkdir()

    def sync(self, torch: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "UV_DEFAULT_INDEX": f"file://{self.folder / 'no-index'}",
            "UV_FIND_LINKS": str(self.folder / "wheels"),
            "UV_NO_CACHE": "1",
            "UV_HTTP_TIMEOUT": "2",
            "UV_HTTP_RETRIES": "0",
            **variables,
        }
        return subprocess.run(
            [PROJECT_ROOT / "scripts" / "sync-packages", self.python, self.lock, torch],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def holds(self) -> dict[str, str]:
        done = subprocess.run(
            ["uv", "pip", "freeze", "--python", self.python], capture_output=True, text=True, check=True
        )
        pairs = (line.partition(" @ ")[0].split("==") for line in done.stdout.split("\n") if line)
        return {pair[0]: pair[-1] for pair in pairs}


@pytest.fixture
def environment(tmp_path: Path, wheel: Callable[[str, str, Path], Path]) -> Environment:
    return Environment(tmp_path, wheel)


LOCKED = {"torch": "2.14.1", "torchvision": "0.29.2", "nvidia-nvtx": "13.0", "nvidia-ml-py": "13.1"}
FOR_PROCESSORS = {"torch": "2.14.1+cpu", "torchvision": "0.29.2+cpu", "nvidia-ml-py": "13.1"}


def test_pytorch_for_processors_comes_without_cuda_and_goes_again(environment: Environment) -> None:
    index = f"file://{environment.index}"
    assert environment.sync("locked").returncode == 0
    assert environment.holds() == LOCKED

    done = environment.sync("cpu", TORCH_INDEX=index)
    assert done.returncode == 0, done.stderr
    assert environment.holds() == FOR_PROCESSORS

    shutil.rmtree(environment.index)
    assert environment.sync("cpu", TORCH_INDEX=index).returncode == 0, "what is installed is not asked for again"
    assert environment.sync("locked").returncode == 0
    assert environment.holds() == LOCKED


def test_an_index_that_cannot_be_reached_changes_nothing_and_is_named(environment: Environment) -> None:
    assert environment.sync("locked").returncode == 0

    done = environment.sync("cpu", TORCH_INDEX="http://127.0.0.1:9/simple", UV_FIND_LINKS="")

    assert done.returncode == 1
    assert "could not be had from http://127.0.0.1:9/simple, so nothing was installed" in done.stderr
    assert "TORCH_INDEX=" in done.stderr
    assert environment.holds() == LOCKED


def test_uv_knows_pytorchs_own_index() -> None:
    done = subprocess.run(["uv", "pip", "install", "--help"], capture_output=True, text=True, check=True)
    assert "--torch-backend" in done.stdout
