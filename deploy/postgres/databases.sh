#!/usr/bin/env bash
# Runs once, when PostgreSQL's volume is new: a user and a database of its own for each service, and nothing shared.
set -euo pipefail
psql --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --file /run/secrets/databases.sql
