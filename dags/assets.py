"""What the DAGs hand on: an event on an asset wakes the next DAG, which then reads the state itself.

Nobody here emits `bucket` and `annotations`: they are for callers from outside (a bucket's notification, a webhook's
relay) that want a station to run sooner than its clock says, by a POST to Airflow's /api/v2/assets/events.
"""

from airflow.sdk import Asset

bucket = Asset("maskloop://bucket")
tasks = Asset("maskloop://tasks")
predictions = Asset("maskloop://predictions")
annotations = Asset("maskloop://annotations")
dataset = Asset("maskloop://dataset")
model = Asset("maskloop://model")
