"""deploy/maskloop with a stand-in for Docker: what happens when something fails half-way. tests/server has the rest."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from google.cloud.storage import Client

from pipelines.gcs import client as gcs
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
  *Config.Image*) echo "postgres:16 sha256:before" ;;
  *"compose up -d") if [ -e "$STATE/sick" ]; then rm "$STATE/sick"; exit 7; fi ;;
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


def run(folder: Path, *arguments: str, failing: str = "", ok: bool = True, cwd: Path | None = None) -> list[str]:
    """Run the script and return what it asked of Docker."""
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "STATE": str(folder), "FAILING": failing}
    done = subprocess.run(
        [folder / "deploy" / "maskloop", *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=60,
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


@pytest.fixture
def repository(folder: Path) -> Path:
    """The folder as a git repository whose first commit was healthy, and which has a second one now."""
    (folder / ".gitignore").write_text("*\n!deploy/maskloop\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    for message in ("healthy", "newer"):
        git(folder, "add", "--force", "deploy/maskloop")
        git(folder, "commit", "--quiet", "--allow-empty", "-m", message)
        if message == "healthy":
            run(folder, "up")
    return folder


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_an_update_begins_with_a_backup_and_leaves_no_old_images(repository: Path) -> None:
    calls = run(repository, "update")
    order = [next(i for i, call in enumerate(calls) if part in call) for part in (
        "pg_dump", "build --pull", "compose pull", "compose stop airflow-scheduler", "compose up -d", "image prune",
    )]  # fmt: skip
    assert order == sorted(order)
    assert (repository / "before-update.tar").exists()
    assert not [call for call in calls if call.startswith("tag ")]
    assert git(repository, "log", "-1", "--format=%s") == "newer"


def test_an_update_that_fails_goes_back_by_itself(repository: Path) -> None:
    (repository / "sick").touch()
    calls = run(repository, "update", ok=False)
    assert "tag sha256:before postgres:16" in calls
    assert [call for call in calls if "pg_restore" in call]
    assert git(repository, "log", "-1", "--format=%s") == "healthy"


@pytest.mark.parametrize("failing", ["pg_dump", "--pull", "compose pull"])
def test_an_update_that_cannot_begin_stops_nothing(repository: Path, failing: str) -> None:
    calls = run(repository, "update", failing=failing, ok=False)
    assert not [call for call in calls if "compose stop" in call or call.startswith("tag ")]
    assert git(repository, "log", "-1", "--format=%s") == "newer"


@pytest.fixture
def bucket(folder: Path, bucket_server: str, empty_bucket: str, bucket_client: Client) -> str:
    """An empty bucket; `maskloop backups` of the stand-in for Docker is the real one."""
    program, port = folder / "bin" / "docker", bucket_server.rpartition(":")[2]
    maskloop = Path(sys.executable).with_name("maskloop")
    inside = f"""
words=" $* "
[[ $words != *" setup backups "* ]] || \\
  MASKLOOP_STORAGE_PORT={port} MASKLOOP_VAR="$STATE/var" exec {maskloop} ${{words##* setup }}
"""
    text = program.read_text(encoding="utf-8")
    program.write_text(text.replace('\ncase "$*" in', f'\n{inside}case "$*" in', 1), encoding="utf-8")
    return empty_bucket


def objects(client: Client, bucket: str) -> list[str]:
    return [ref.name.partition("/")[2] for ref in gcs.list_objects(client, bucket)]


def test_a_backup_in_a_bucket_leaves_nothing_here_and_is_restored(
    folder: Path, bucket: str, bucket_client: Client
) -> None:
    place, before = f"gs://{bucket}/maskloop", {path.name for path in folder.iterdir()}
    run(folder, "backup", place)
    assert {path.name for path in folder.iterdir()} - {"calls", "var"} == before
    assert {Path(name).name for name in objects(bucket_client, bucket)} >= {
        "secrets.tar",
        "volumes.tar",
        "complete.json",
    }

    calls = run(folder, "restore", place)

    restored = [
        call for call in calls if "pg_restore" in call or "tar -C /volumes -xf" in call or "rm -f /secrets" in call
    ]
    assert len(restored) == 5
    assert not list(folder.glob("restore.*"))


def test_where_backups_go_may_be_a_setting(folder: Path, bucket: str, bucket_client: Client) -> None:
    (folder / ".env").write_text(f"MASKLOOP_BACKUP=gs://{bucket}/nightly\n", encoding="utf-8")
    run(folder, "backup")
    assert objects(bucket_client, bucket)
    (folder / ".env").unlink()
    assert run(folder, "backup", ok=False) == []


@pytest.mark.parametrize("failing", ["pg_dump", "flock", "/secrets", "complete"])
def test_a_backup_in_a_bucket_that_fails_is_never_restored(
    folder: Path, bucket: str, bucket_client: Client, failing: str
) -> None:
    place = f"gs://{bucket}/maskloop"
    run(folder, "backup", place, failing=failing, ok=False)
    assert not [name for name in objects(bucket_client, bucket) if name.endswith("complete.json")]

    calls = run(folder, "restore", place, ok=False)

    assert not [call for call in calls if "compose rm" in call or "-delete" in call], "nothing was changed"


def test_a_damaged_backup_changes_nothing(folder: Path, bucket: str, bucket_client: Client) -> None:
    place = f"gs://{bucket}/maskloop"
    run(folder, "backup", place)
    [dump] = [ref for ref in gcs.list_objects(bucket_client, bucket) if ref.name.endswith("mlflow.dump")]
    gcs.put(bucket_client, bucket, dump.name, b"x" * dump.size, "application/octet-stream")

    calls = run(folder, "restore", place, ok=False)

    assert not [call for call in calls if "compose rm" in call or "-delete" in call]


def test_a_backup_is_where_its_name_says_from_the_callers_folder(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run(folder, "backup", "mine.tar", cwd=elsewhere)
    assert (elsewhere / "mine.tar").exists()


@pytest.mark.parametrize(("port", "suffix"), [("", ""), ("443", ""), ("8443", ":8443")])
def test_another_port_is_in_all_addresses(folder: Path, port: str, suffix: str) -> None:
    docker = (folder / "bin" / "docker").read_text(encoding="utf-8")
    note = 'echo "${MASKLOOP_HTTPS_SUFFIX-unset}" > "$STATE/suffix"\ncase "$*" in'
    (folder / "bin" / "docker").write_text(docker.replace('case "$*" in', note), encoding="utf-8")
    (folder / ".env").write_text(f"MASKLOOP_HTTPS_PORT={port}\n", encoding="utf-8")
    run(folder, "up")
    assert (folder / "suffix").read_text(encoding="utf-8").strip() == suffix


def test_a_clone_that_others_cannot_read_is_opened_but_for_secrets(folder: Path) -> None:
    for name in ("deploy/caddy/Caddyfile", "deploy/secrets/password", ".env", "before-update.tar"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("", encoding="utf-8")
        (folder / name).chmod(0o600)
    (folder / "deploy" / "caddy").chmod(0o700)
    run(folder, "up")
    assert (folder / "deploy" / "caddy").stat().st_mode & 0o777 == 0o755
    assert (folder / "deploy" / "caddy" / "Caddyfile").stat().st_mode & 0o777 == 0o644
    for name in ("deploy/secrets/password", ".env", "before-update.tar"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize(
    ("setting", "files", "image"),
    [("true", "docker-compose.yml:docker-compose.gpu.yml", "maskloop/serving-gpu"), ("false", "", "maskloop/serving")],
)
def test_a_gpu_adds_a_file_and_an_image(folder: Path, setting: str, files: str, image: str) -> None:
    docker = (folder / "bin" / "docker").read_text(encoding="utf-8")
    note = 'echo "${COMPOSE_FILE-}" > "$STATE/files"\ncase "$*" in'
    (folder / "bin" / "docker").write_text(docker.replace('case "$*" in', note), encoding="utf-8")
    (folder / ".env").write_text(f"MASKLOOP_GPU={setting}\n", encoding="utf-8")
    calls = run(folder, "up")
    assert (folder / "files").read_text(encoding="utf-8").strip() == files
    assert f"image inspect maskloop/airflow {image}" in calls


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
    names = ("maskloop_alert_webhook", "maskloop_smtp_url", "maskloop_git_remote", "maskloop_google_key")
    for path in folder.iterdir():
        path.chmod(0o600)  # as root, for whom that makes no difference
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def test_secrets_that_are_given_stay_until_others_or_none_are(tmp_path: Path) -> None:
    def told(webhook: str, server: str, remote: str, key: str) -> list[str]:
        return list(given(tmp_path, webhook, server, remote, key).values())

    assert told("", "", "", "") == ["", "", "", ""]
    assert told("https://chat/hook?a=%20b", "", "", "a2V5\na2V5") == ["https://chat/hook?a=%20b", "", "", "a2V5\na2V5"]
    password = (tmp_path / "postgres_password").read_text(encoding="utf-8")
    server, remote = "smtp://me:p%40ss@host", "https://token@host/datasets.git"
    assert told("", server, remote, "") == ["https://chat/hook?a=%20b", server, remote, "a2V5\na2V5"]
    assert told("none", "", "", "none") == ["", server, remote, ""]
    assert (tmp_path / "postgres_password").read_text(encoding="utf-8") == password


def test_the_script_hands_on_what_it_is_given(folder: Path) -> None:
    (folder / ".env").write_text(
        "MASKLOOP_ALERT_WEBHOOK=https://chat/hook\nMASKLOOP_GIT_REMOTE=https://token@host/d.git\n"
        "MASKLOOP_GOOGLE_KEY=a2V5\n",
        encoding="utf-8",
    )
    docker = (folder / "bin" / "docker").read_text(encoding="utf-8")
    (folder / "bin" / "docker").write_text(
        docker.replace('case "$*" in', 'case "$*" in\n  *secrets.sh*) cat > "$STATE/given" ;;'), encoding="utf-8"
    )
    run(folder, "up")
    assert (folder / "given").read_text(encoding="utf-8") == "https://chat/hook\n\nhttps://token@host/d.git\na2V5\n"
