"""What the DAG files connect to."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.cloud.storage import Client

    from pipelines.settings import Settings


def connect_bucket() -> "tuple[Settings, Client]":
    """Return the settings, and a client for the buckets with the Airflow connection that they name."""
    from airflow.providers.google.cloud.hooks.gcs import GCSHook

    from pipelines.gcs.client import with_billing_project
    from pipelines.settings import get_settings

    settings = get_settings()
    return settings, with_billing_project(GCSHook(gcp_conn_id=settings.google_connection).get_conn(), settings)
