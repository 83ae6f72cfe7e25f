"""Run the programs that a workspace needs (git, DVC and its stages), and turn their failures into errors.

DVC passes on neither the class nor the message of a stage's error, so the stage writes both to a file: callers then see
the same error as if they had called the stage, and know whether it is worth trying again.
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
_EXITED = re.compile(r"exited with (-?\d+)")  # DVC's words about a stage
_KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)


def run(
    command: list[str],
    folder: Path,
    environment: dict[str, str] | None = None,
    *,
    show: bool = False,
    keep_open: tuple[int, ...] = (),
) -> str:
    """Run a command and return its output; with `show` it also goes to this process's standard output, line by line.

    Where that is a terminal, the command inherits it, so that it draws its progress there, and an empty text is
    returned. `keep_open` are file descriptors that it inherits. Raise DatasetError with its own message when it fails.
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
    stderr = ""
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
            stdout, stderr = process.communicate()
            lines.append(stdout)
    except BaseException:  # a timeout or Ctrl-C: nothing may go on writing after the lock is released
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if process.returncode:
        output = "\n".join(text for text in ("".join(lines).strip(), stderr.strip()) if text)
        why = _killed(process.returncode, output) + (output[-1500:] or "it says why above")
        raise DatasetError(f"`{_shown(command)}` failed in {folder}: {why}")
    return "".join(lines).strip()


def run_stages(
    command: list[str], folder: Path, environment: Mapping[str, str], *, show: bool, keep_open: tuple[int, ...] = ()
) -> str:
    """Run a command that runs stages, as `run` does.

    Raise what a stage failed with (see `log.run_stage`); DatasetError when no stage recorded it, because it was killed
    or failed with an unexpected error.
    """
    with tempfile.TemporaryDirectory(prefix="maskloop-stage-") as scratch:
        record = Path(scratch) / "error.json"
        try:
            return run(command, folder, {**environment, STAGE_ERROR: str(record)}, show=show, keep_open=keep_open)
        except DatasetError as error:
            raise _error_of_stage(record, f"`{_shown(command)}` in {folder}") or error from error


def _error_of_stage(record: Path, where: str) -> MaskloopError | None:
    """Return the error that a stage recorded, or None when it recorded none."""
    try:
        fields = json.loads(record.read_text(encoding="utf-8"))
        kind, message = getattr(errors, fields["class"], None), f"{fields['message']} ({where})"
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
    if not (isinstance(kind, type) and issubclass(kind, MaskloopError)):  # the stage's code is of another version
        return DatasetError(message)
    return DataError(message) if issubclass(kind, ImageError) else kind(message)


def _shown(command: list[str]) -> str:
    return " ".join(part for part in command[1:] if part not in GIT_IDENTITY)


def _killed(code: int, output: str) -> str:
    """Return which signal ended the program, or a stage that DVC ran; an empty text when none did.

    An exit code below 0 is a signal's number with a minus sign; a shell returns 128 plus the number.
    """
    numbers = {-code if code < 0 else code - 128 for code in (code, *map(int, _EXITED.findall(output)))}
    names = [number.name for number in _KILLED if number in numbers]
    return f"it was killed ({', '.join(names)}), which often means that memory ran out; " if names else ""
