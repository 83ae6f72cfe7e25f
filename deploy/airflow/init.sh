#!/bin/sh
# Once per start, before any part of Airflow: its tables, and Maskloop's account.
set -eu
maskloop exec airflow-migrate
maskloop exec airflow-account
