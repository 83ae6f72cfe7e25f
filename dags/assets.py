"""Airflow's assets: an event on one starts the DAGs that are scheduled on it, which then read the state themselves."""

from airflow.sdk import Asset, AssetWatcher
from new_annotations import EnoughAnnotations

from pipelines import contract

bucket = Asset(contract.BUCKET_ASSET)
tasks = Asset(contract.TASKS_ASSET)
predictions = Asset(contract.PREDICTIONS_ASSET)
annotations = Asset(contract.ANNOTATIONS_ASSET, watchers=[AssetWatcher("enough_annotations", EnoughAnnotations())])
dataset = Asset(contract.DATASET_ASSET)
model = Asset(contract.MODEL_ASSET)
