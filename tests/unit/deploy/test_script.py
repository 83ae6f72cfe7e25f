"""deploy/maskloop with a stand-in for Docker: what happens when something fails half-way. tests/server has the rest."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipelines.settings import PROJECT_ROOT

DOCKER = """#!/usr/bin/env bash
# Notes what is asked, and gives a text for whatever prints.
echo "$*" >> "$STATE/calls"
for failing in ${FAILING:-}; do [[ "$*" != *"$failing"* ]] || exit 7; done
case "$*" in
  *"tar -C /secrets"*) cat "$STATE/empty.tar" ;;
  *pg_dump*|*volumes*flock*) echo content ;;
  *"-e /secrets/anew"*) if [ -e "$STATE/anew" ]; then echo yes; else echo no; fi ;;
  *"rm /secrets/anew"*) rm "$STATE/anew" ;;
  *"secrets.sh anew"*) touch "$STATE/anew" ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of deploy/, and a `docker` that keeps its notes beside it."""
    (tmp_path / "deploy" / "secrets").mkdir(parents=True)
    shutil.copy2(PROJECT_ROOT / "deploy" / "maskloop", tmp_path / "deploy" / "maskloop")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "docker"
    program.write_text(DOCKER, encoding="utf-8")
    program.chmod(0o755)
    tarfile.open(tmp_path / "empty.tar", "w").close()
    return tmp_path


def run(folder: Path, *arguments: str, failing: str = "", ok: bool = True) -> list[str]:
    """Run the script and return what it asked of Docker."""
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "STATE": str(folder), "FAILING": failing}
    done = subprocess.run(
        [folder / "deploy" / "maskloop", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


def test_a_backup_is_one_file(folder: Path) -> None:
    run(folder, "backup", str(folder / "backup.tar"))
    with tarfile.open(folder / "backup.tar") as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {"secrets.tar", "volumes.tar", "label_studio.dump", "mlflow.dump", "airflow.dump"} <= names
    assert (folder / "backup.tar").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("failing", ["pg_dump", "flock", "/secrets"])
def test_a_backup_that_fails_says_so_and_leaves_the_last_one(folder: Path, failing: str) -> None:
    (folder / "backup.tar").write_text("yesterday's", encoding="utf-8")
    before = {path.name for path in folder.iterdir()}
    run(folder, "backup", str(folder / "backup.tar"), failing=failing, ok=False)
    assert (folder / "backup.tar").read_text(encoding="utf-8") == "yesterday's"
    assert {path.name for path in folder.iterdir()} - {"calls"} == before


def test_a_full_disk_does_not_pass_for_a_backup(folder: Path) -> None:
    (folder / "backup.tar").write_text("yesterday's", encoding="utf-8")
    tar = folder / "bin" / "tar"
    tar.write_text(
        '#!/bin/sh\nfor one; do case $one in *.part) echo half > "$one" ;; esac; done; exit 2\n', encoding="utf-8"
    )
    tar.chmod(0o755)
    run(folder, "backup", str(folder / "backup.tar"), ok=False)
    assert (folder / "backup.tar").read_text(encoding="utf-8") == "yesterday's"
    assert not list(folder.glob("backup.*.part")) + list(folder.glob("backup.??????"))


def test_the_database_learns_its_passwords_on_every_start(folder: Path) -> None:
    calls = run(folder, "up")
    assert [call for call in calls if "psql" in call and "ON_ERROR_STOP=1" in call]
    assert not [call for call in calls if "--force-recreate" in call or "rotate-fernet-key" in call]


@pytest.mark.parametrize("failing", ["psql", "--force-recreate", "rotate-fernet-key"])
def test_a_rotation_that_was_cut_short_is_ended_by_the_next_start(folder: Path, failing: str) -> None:
    run(folder, "rotate", failing=failing, ok=False)
    assert (folder / "anew").exists()
    calls = run(folder, "up")
    assert [call for call in calls if "--force-recreate" in call]
    assert [call for call in calls if "rotate-fernet-key" in call]
    assert not (folder / "anew").exists()


def test_a_stop_takes_nothing_away(folder: Path) -> None:
    assert [call for call in run(folder, "down") if "compose" in call and "version" not in call] == ["compose stop"]


def test_what_is_no_backup_changes_nothing(folder: Path) -> None:
    assert run(folder, "restore", str(folder / "empty.tar"), ok=False) == []


# What a container as root has: folder the files are one's own, in the current folder.
SECRETS = 'cd() { :; }; id() { command id -u; }; chown() { :; }; . "$SCRIPT"'


def given(folder: Path, *lines: str) -> dict[str, str]:
    """Let secrets.sh make its files in a folder, with these lines on standard input; gives what it was given."""
    environment = {"PATH": os.environ["PATH"], "SCRIPT": str(PROJECT_ROOT / "deploy" / "secrets.sh")}
    text = "".join(f"{line}\n" for line in lines)
    subprocess.run(["bash", "-c", SECRETS], cwd=folder, env=environment, input=text, text=True, check=True)
    names = ("maskloop_alert_webhook", "maskloop_smtp_url", "maskloop_google_key")
    for path in folder.iterdir():
        path.chmod(0o600)  # as root, for whom that makes no difference
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def test_secrets_that_are_given_stay_until_others_or_none_are(tmp_path: Path) -> None:
    def told(webhook: str, server: str, key: str) -> list[str]:
        return list(given(tmp_path, webhook, server, key).values())

    assert told("", "", "") == ["", "", ""]
    assert told("https://chat/hook?a=%20b", "", "a2V5\na2V5") == ["https://chat/hook?a=%20b", "", "a2V5\na2V5"]
    password = (tmp_path / "postgres_password").read_text(encoding="utf-8")
    assert told("", "smtp://me:p%40ss@host", "") == ["https://chat/hook?a=%20b", "smtp://me:p%40ss@host", "a2V5\na2V5"]
    assert told("none", "", "none") == ["", "smtp://me:p%40ss@host", ""]
    assert (tmp_path / "postgres_password").read_text(encoding="utf-8") == password


def test_the_script_hands_on_what_it_is_given(folder: Path) -> None:
    (folder / ".env").write_text(
        "MASKLOOP_ALERT_WEBHOOK=https://chat/hook\nMASKLOOP_GOOGLE_KEY=a2V5\n", encoding="utf-8"
    )
    docker = (folder / "bin" / "docker").read_text(encoding="utf-8")
    (folder / "bin" / "docker").write_text(
        docker.replace('case "$*" in', 'case "$*" in\n  *secrets.sh*) cat > "$STATE/given" ;;'), encoding="utf-8"
    )
    run(folder, "up")
    assert (folder / "given").read_text(encoding="utf-8") == "https://chat/hook\n\na2V5\n"
