#!/usr/bin/env bash
# Make the server's secrets in /secrets, each in a file that one account can read; runs as root in a container without a
# network (see `deploy/maskloop`). Those that are there stay, unless the argument is `anew`: then the file of that name
# stays as well, until all services have the new ones. On standard input come a line for the webhook of alerts, one for the
# mail server, one for the git remote, and a Google key in base64: an empty one keeps what is there, and `none` takes it
# away.
set -euo pipefail
cd /secrets
umask 077
ours=10001 database=$(id -u postgres) # who reads: every service of Maskloop, and PostgreSQL

text() { head -c 64 /dev/urandom | base64 -w0 | tr -d '/+=' | cut -c1-32 | tr -d '\n'; }
keep_or_make() { if [ "$anew" ] || [ ! -s "$1" ]; then "${@:2}" > "$1.part" && mv "$1.part" "$1"; fi; }
hex() { head -c 20 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
fernet() { # Airflow writes with the first key and reads with all; those that a finished rotation left behind go
  printf %s "$(head -c 32 /dev/urandom | base64 -w0 | tr '/+' '_-')"
  [ ! -s "$keys" ] || printf ',%s' "$(if [ "$unfinished" ]; then cat "$keys"; else cut -d, -f1 "$keys"; fi)"
}

anew=${1:-} keys=maskloop_airflow_fernet_key unfinished=$(ls anew 2>/dev/null || true)
[ ! "$anew" ] || : > anew
for name in postgres_password label_studio_database_password mlflow_password airflow_password redis_password \
    label_studio_secret_key maskloop_airflow_jwt_secret maskloop_service_password maskloop_label_studio_password \
    maskloop_airflow_password; do
  keep_or_make "$name" text
done
keep_or_make maskloop_label_studio_token hex
keep_or_make "$keys" fernet
given() { [ -z "$2" ] && [ -e "$1" ] || case "$2" in none) : > "$1" ;; *) printf %s "$2" > "$1" ;; esac; }
for name in maskloop_alert_webhook maskloop_smtp_url maskloop_git_remote; do
  IFS= read -r line || line=
  given "$name" "$line"
done
given maskloop_google_key "$(cat)"

# What is made of these, as the programs want it.
printf 'postgresql+psycopg2://mlflow:%s@postgres/mlflow' "$(cat mlflow_password)" > maskloop_mlflow_database
printf 'postgresql+psycopg2://airflow:%s@postgres/airflow' "$(cat airflow_password)" > maskloop_airflow_database
printf 'redis://:%s@redis:6379/0' "$(cat redis_password)" > maskloop_airflow_broker
printf 'bind 0.0.0.0\nport 6379\ndir /data\nsave ""\nrequirepass %s\n' "$(cat redis_password)" > redis.conf
: > databases.sql
printf "ALTER ROLE postgres PASSWORD '%s';\n" "$(cat postgres_password)" > passwords.sql
for pair in label_studio:label_studio_database_password mlflow:mlflow_password airflow:airflow_password; do
  user=${pair%%:*} password=$(cat "${pair#*:}")
  printf "CREATE ROLE %s LOGIN PASSWORD '%s';\nCREATE DATABASE %s OWNER %s;\nREVOKE ALL ON DATABASE %s FROM PUBLIC;\n" \
    "$user" "$password" "$user" "$user" "$user" >> databases.sql
  printf "ALTER ROLE %s PASSWORD '%s';\n" "$user" "$password" >> passwords.sql
done

chown "$ours:$ours" ./*
chown "$database" postgres_password databases.sql passwords.sql
chmod 0400 ./*
chmod 0711 .
