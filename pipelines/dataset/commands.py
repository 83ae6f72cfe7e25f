"""Programs that a workspace runs: git, DVC and its stages, and how the failure of one becomes an error.

DVC hands on neither the class nor the words of what a stage fails with, so the stage leaves both in a file: callers
then see the same error as if they had called the stage, and know whether trying again can mend it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipelines import errors
from pipelines.errors import ConfigurationError, DataError, DatasetError, ImageError, MaskloopError
from pipelines.log import STAGE_ERROR

GIT_IDENTITY = ("-c", "user.name=Maskloop", "-c", "user.email=maskloop@localhost", "-c", "commit.gpgsign=false")
_EXITED = re.compile(r"exited with (-?\d+)")  # as DVC says it of a stage
_KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)


def run(
    command: list[str],
    folder: Path,
    environment: dict[str, str] | None = None,
    *,
    show: bool = False,
    keep_open: tuple[int, ...] = (),
) -> str:
    """Run a command; with `show` its output goes to this process's standard output line by line as well.

    Where that is a terminal the command gets it itself, so that it draws its progress there, and nothing is given
    back. `keep_open` are file descriptors that it inherits. Raises DatasetError with its own words when it fails.
    """
    lines: list[str] = []
    terminal = show and sys.stdout.isatty()
    if terminal:
        sys.stdout.flush()
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, start_new_session=True, pass_fds=keep_open,
            stdin=subprocess.DEVNULL, stdout=None if terminal else subprocess.PIPE,
            stderr=subprocess.STDOUT if show else subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ConfigurationError(f"{command[0]} is not installed: sudo apt-get install {command[0]}") from error
    complaints = ""
    try:
        if terminal:
            process.wait()
        elif show:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    sys.stdout.write(line)
                    lines.append(line)
            process.wait()
        else:
            output, complaints = process.communicate()
            lines.append(output)
    except BaseException:  # a timeout or Ctrl-C: nothing may go on writing after the lock is released
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if process.returncode:
        said = "\n".join(text for text in ("".join(lines).strip(), complaints.strip()) if text)
        why = _killed(process.returncode, said) + (said[-1500:] or "it says why above")
        raise DatasetError(f"`{_shown(command)}` failed in {folder}: {why}")
    return "".join(lines).strip()


def run_stages(
    command: list[str], folder: Path, environment: Mapping[str, str], *, show: bool, keep_open: tuple[int, ...] = ()
) -> str:
    """Run a command that runs stages, as `run` does.

    Raises what a stage failed with (see `log.run_stage`); DatasetError when none says so, because it was killed or met
    something that nobody expected.
    """
    with tempfile.TemporaryDirectory(prefix="maskloop-stage-") as scratch:
        left = Path(scratch) / "error.json"
        try:
            return run(command, folder, {**environment, STAGE_ERROR: str(left)}, show=show, keep_open=keep_open)
        except DatasetError as error:
            raise _error_of_stage(left, f"`{_shown(command)}` in {folder}") or error from error


def _error_of_stage(left: Path, where: str) -> MaskloopError | None:
    """Return the error that a stage left behind, or None when it left none."""
    try:
        told = json.loads(left.read_text(encoding="utf-8"))
        kind, message = getattr(errors, told["class"], None), f"{told['message']} ({where})"
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
    if not (isinstance(kind, type) and issubclass(kind, MaskloopError)):  # the stage's code is of another version
        return DatasetError(message)
    return DataError(message) if issubclass(kind, ImageError) else kind(message)


def _shown(command: list[str]) -> str:
    return " ".join(part for part in command[1:] if part not in GIT_IDENTITY)


def _killed(code: int, said: str) -> str:
    """Say which signal ended the program, or a stage that DVC ran; nothing when none did.

    An exit code below 0 is a signal's number, and so is what a shell adds to 128.
    """
    numbers = {-code if code < 0 else code - 128 for code in (code, *map(int, _EXITED.findall(said)))}
    names = [one.name for one in _KILLED if one in numbers]
    return f"it was killed ({', '.join(names)}), which often means that memory ran out; " if names else ""
