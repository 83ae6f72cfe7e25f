"""What the DAG files connect to."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.cloud.storage import Client

    from pipelines.settings import Settings


def connect_bucket(settings: "Settings") -> "Client":
    """Return a client for the buckets, with the credentials of the Airflow connection that the settings name."""
    from airflow.providers.google.cloud.hooks.gcs import GCSHook

    return GCSHook(gcp_conn_id=settings.google_connection).get_conn()
