"""create.sh and delete.sh against a stand-in for gcloud that records what it created; tests have no cloud."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.settings import PROJECT_ROOT

GCLOUD = """#!/usr/bin/env bash
# `describe` succeeds for what was created and not deleted.
echo "$*" >> "$STATE/calls"
words=()
for word in "$@"; do case $word in --*) break ;; *) words+=("$word") ;; esac; done
[ "${words[*]}" ] || { shift 3; for word in "$@"; do case $word in --*) break ;; *) words+=("$word") ;; esac; done; }
line=" ${words[*]} "
verbs='create|describe|delete|update|snapshot-schedule'
key=$(printf '%s\\n' "${words[@]}" | grep -vxE "$verbs" | sed 's/@.*//' | tr '/:\\n' '___')
case $line in
  *" describe "*)
    case "$*" in *"value(address)"*) echo 203.0.113.9; exit ;; esac
    [ -e "$STATE/$key" ] ;;
  *" snapshots list "*) printf '%s\n' maskloop-20260101 maskloop-20260102 ;;
  *" create "*) touch "$STATE/$key" ;;
  *" delete "*) rm "$STATE/$key" ;;
esac
"""
SETTINGS = """
PROJECT=my-project ZONE=europe-west4-a MACHINE=e2-standard-4 DISK_GB=100 REPOSITORY=https://example.org/maskloop.git
REVISION=main LABELS_HOST= LOOP_HOST= EMAIL=me@example.org SOURCE_BUCKET=photos SOURCE_PREFIX=photos/
CATALOG=catalogue.csv TARGET_BUCKET=labels DVC_BUCKET=datasets
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """A folder with the scripts, their settings, and a gcloud that keeps its state beside them."""
    shutil.copytree(PROJECT_ROOT / "deploy" / "gcp", tmp_path / "gcp")
    (tmp_path / "gcp" / "settings.sh").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    program = tmp_path / "bin" / "gcloud"
    program.write_text(GCLOUD, encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def run(cloud: Path, script: str, *arguments: str, ok: bool = True, typed: str = "") -> tuple[str, list[str]]:
    (cloud / "state" / "calls").unlink(missing_ok=True)
    path = f"{cloud / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "STATE": str(cloud / "state")}
    done = subprocess.run(
        [cloud / "gcp" / script, *arguments], env=environment, capture_output=True, text=True, check=False, input=typed
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    calls = cloud / "state" / "calls"
    return done.stdout + done.stderr, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


def test_everything_is_made_once(cloud: Path) -> None:
    said, calls = run(cloud, "create.sh")
    made = [call for call in calls if " create" in call]
    assert len([call for call in made if "buckets create" in call]) == 3
    assert len(made) == 10  # buckets, identity, address, network, two rules, server, schedule of snapshots
    assert "labels.203-0-113-9.sslip.io" in said
    _, again = run(cloud, "create.sh")
    assert [call for call in again if " create" in call] == []


def test_the_server_may_do_little(cloud: Path) -> None:
    _, calls = run(cloud, "create.sh")
    roles = {call.split("--role ")[1].split()[0] for call in calls if "--role" in call}
    assert roles == {"roles/storage.objectViewer", "roles/storage.objectUser", "roles/storage.legacyBucketReader"}
    assert not [call for call in calls if "projects add-iam-policy-binding" in call]
    of_source = [call for call in calls if "gs://photos" in call and "--role" in call]
    assert not any("objectUser" in call for call in of_source)
    assert [call for call in calls if "firewall-rules create" in call and "0.0.0.0/0" in call] == []


def test_photos_that_are_there_stay_as_they_are_for_others(cloud: Path) -> None:
    run(cloud, "create.sh")
    for path in (cloud / "state").iterdir():
        if "photos" not in path.name:
            path.unlink()
    said, calls = run(cloud, "create.sh")
    assert "--harden" in said
    changed = {call.split("gs://")[1].split()[0] for call in calls if "buckets update" in call}
    assert changed == {"labels", "datasets"}
    bound = [call for call in calls if "add-iam-policy-binding gs://photos" in call]
    assert len(bound) == 2
    _, calls = run(cloud, "create.sh", "--harden")
    assert [call for call in calls if "buckets update gs://photos" in call]
    assert run(cloud, "create.sh", "--hard", ok=False)[1] == []


@pytest.mark.parametrize("prefix", ["Summer 2024/", "l'été/", "a$b;c/", ""])
def test_settings_reach_the_server_as_they_were_written(cloud: Path, prefix: str) -> None:
    quoted = prefix.replace("'", "'\\''")
    (cloud / "gcp" / "settings.sh").write_text(f"{SETTINGS}\nSOURCE_PREFIX='{quoted}'\n", encoding="utf-8")
    program = cloud / "bin" / "gcloud"
    keep = 'for word; do case $word in *maskloop-settings=*) cp "${word##*maskloop-settings=}" "$STATE/env"; esac; done'
    program.write_text(
        program.read_text(encoding="utf-8").replace("words=()", f"{keep}\nwords=()", 1), encoding="utf-8"
    )
    run(cloud, "create.sh")
    done = subprocess.run(
        ["bash", "-euc", 'set -a; . "$0"; printf %s "$MASKLOOP_SOURCE_PREFIX"', cloud / "state" / "env"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == prefix


def test_settings_of_a_server_follow(cloud: Path) -> None:
    _, first = run(cloud, "create.sh")
    made = next(call for call in first if "instances create" in call)
    assert "maskloop-settings=" in made
    assert [call for call in first if "compute ssh" in call] == []
    _, again = run(cloud, "create.sh")
    told = [call for call in again if "add-metadata" in call or "compute ssh" in call]
    assert len(told) == 2
    assert "maskloop-settings=" in told[0]
    assert "systemctl reload-or-restart --no-block maskloop" in told[1]


def test_what_was_made_goes_and_buckets_stay(cloud: Path) -> None:
    run(cloud, "create.sh")
    said, calls = run(cloud, "delete.sh")
    assert not [call for call in calls if "storage rm" in call or "snapshots delete" in call]
    assert "Kept: gs://photos" in said
    assert "maskloop-20260102" in said
    assert {path.name for path in (cloud / "state").iterdir() if "buckets" not in path.name} == {"calls"}
    _, calls = run(cloud, "delete.sh", "--with-data", ok=False)  # nobody typed the project's name
    assert not [call for call in calls if "storage rm" in call or "snapshots delete" in call]


def test_data_goes_when_the_projects_name_is_typed(cloud: Path) -> None:
    run(cloud, "create.sh")
    said, calls = run(cloud, "delete.sh", "--with-data", typed="my-project\n")
    gone = [call for call in calls if "storage rm" in call or "snapshots delete" in call]
    assert [call.split()[-1] for call in gone] == [
        "gs://labels",
        "gs://datasets",
        "maskloop-20260101",
        "maskloop-20260102",
    ]
    assert "Kept: gs://photos" in said


def test_settings_are_asked_for(cloud: Path) -> None:
    (cloud / "gcp" / "settings.sh").unlink()
    said, calls = run(cloud, "create.sh", ok=False)
    assert "copy settings.sh.example" in said
    assert calls == []


def test_the_first_start_is_yaml_that_names_no_secret(cloud: Path) -> None:
    document = yaml.safe_load((cloud / "gcp" / "cloud-init.yaml").read_text(encoding="utf-8"))
    files = {file["path"]: file["content"] for file in document["write_files"]}
    service = files["/etc/systemd/system/maskloop.service"]
    assert service.index("ExecStartPre=/usr/local/bin/maskloop-settings") < service.index("ExecStart=/opt")
    assert not [path for path, content in files.items() if "PASSWORD" in content]
    assert {"curl", "docker.io", "docker-compose-v2", "unattended-upgrades"} <= set(document["packages"])


def test_backups_have_a_bucket_of_their_own_where_one_is_named(cloud: Path) -> None:
    """It is nobody's but the server's, and `delete.sh --with-data` deletes it as well."""
    settings = cloud / "gcp" / "settings.sh"
    settings.write_text(SETTINGS + "BACKUP_BUCKET=backups\n", encoding="utf-8")

    _, calls = run(cloud, "create.sh")

    [update] = [call for call in calls if "buckets update gs://backups" in call]
    assert "--public-access-prevention" in update
    assert "--soft-delete-duration 30d" in update
    rights = [call.split("--role ")[1] for call in calls if "add-iam-policy-binding gs://backups" in call]
    assert rights == ["roles/storage.objectUser", "roles/storage.legacyBucketReader"]
    _, calls = run(cloud, "delete.sh", "--with-data", typed="my-project\n")
    assert [call for call in calls if "storage rm --recursive gs://backups" in call]


@pytest.mark.parametrize("bucket", ["", "backups"])
def test_the_server_knows_where_its_backups_go(cloud: Path, bucket: str) -> None:
    (cloud / "gcp" / "settings.sh").write_text(SETTINGS + f"BACKUP_BUCKET={bucket}\n", encoding="utf-8")
    gcloud = cloud / "bin" / "gcloud"
    copy = """for word in "$@"; do
  case $word in *maskloop-settings=*) cp "${word##*maskloop-settings=}" "$STATE/env" ;; esac
done
"""
    gcloud.write_text(GCLOUD.replace("words=()", copy + "words=()", 1), encoding="utf-8")

    run(cloud, "create.sh")

    place = f"gs://{bucket}/maskloop" if bucket else "/var/backups/maskloop.tar"
    assert f"MASKLOOP_BACKUP={place}" in (cloud / "state" / "env").read_text(encoding="utf-8").splitlines()
    service = next(
        f
        for f in yaml.safe_load((cloud / "gcp" / "cloud-init.yaml").read_text())["write_files"]
        if "backup.service" in f["path"]
    )
    assert service["content"].rstrip().endswith("/opt/maskloop/deploy/maskloop backup")
