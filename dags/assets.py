"""What the DAGs hand on: an event on an asset wakes the next DAG, which then reads the state itself."""

from airflow.sdk import Asset

bucket = Asset("maskloop://bucket")
tasks = Asset("maskloop://tasks")
predictions = Asset("maskloop://predictions")
annotations = Asset("maskloop://annotations")
dataset = Asset("maskloop://dataset")
model = Asset("maskloop://model")
