"""A file is written whole or not at all, by several writers as well, and only its owner reads what is private."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.fs import PART_PATTERN, atomic_path, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_whole_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_atomically(path, b"a long first text")
    write_atomically(path, b"short")
    assert path.read_bytes() == b"short"
    assert list(path.parent.iterdir()) == [path]


def test_a_private_file_is_private_from_the_first_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o644)
    with atomic_path(path, mode=0o600) as part:
        assert mode(part) == 0o600
        part.write_text("secret", encoding="utf-8")
    assert (path.read_text(encoding="utf-8"), mode(path)) == ("secret", 0o600)


def test_without_a_mode_the_umask_decides(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("", encoding="utf-8")
    write_atomically(tmp_path / "file", b"")
    assert mode(tmp_path / "file") == mode(tmp_path / "plain")


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as part:
        part.write_bytes(b"half")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_written_file_has_the_suffix_that_its_writer_needs(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "network.xml", suffix=".xml") as part:
        assert part.suffix == ".xml"
        part.write_bytes(b"<net/>")
    assert (tmp_path / "network.xml").read_bytes() == b"<net/>"


def test_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", [bytes([number]) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            list(pool.map(lambda text: write_atomically(path, text), texts))
            assert path.read_bytes() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = (
        "import os, sys; from pathlib import Path; from pipelines.fs import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as part:\n"
        "    part.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    [left] = tmp_path.glob(PART_PATTERN)
    assert left.read_bytes() == b"half"
