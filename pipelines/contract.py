"""Names that several packages and the DAG files share: Airflow's assets, DAGs and pools, and Maskloop's services.

Airflow reads this module whenever it parses a DAG file, so that it imports nothing but the standard library.
"""

from typing import Final, Literal

# An event on an asset starts the DAGs that are scheduled on it. Maskloop itself emits none on the bucket: that is for a
# bucket's notification, by a POST to Airflow's /api/v2/assets/events.
BUCKET_ASSET: Final = "maskloop://bucket"
TASKS_ASSET: Final = "maskloop://tasks"
PREDICTIONS_ASSET: Final = "maskloop://predictions"
ANNOTATIONS_ASSET: Final = "maskloop://annotations"
DATASET_ASSET: Final = "maskloop://dataset"
MODEL_ASSET: Final = "maskloop://model"

# Each DAG is a function, and a file, of this name.
INGEST_DAG: Final = "ingest_images"
PRELABEL_DAG: Final = "prelabel_images"
SYNC_DAG: Final = "sync_annotations"
RETRAIN_DAG: Final = "retrain_model"
REVIEW_DAG: Final = "review_labels"
SPACE_DAG: Final = "free_space"
DAG_IDS: Final = frozenset({INGEST_DAG, PRELABEL_DAG, SYNC_DAG, RETRAIN_DAG, REVIEW_DAG, SPACE_DAG})

# Every pool has one slot; `maskloop setup` creates them with these descriptions.
WORKSPACE_POOL: Final = "workspace"
EMBEDDINGS_POOL: Final = "embeddings"
POOLS: Final = {
    WORKSPACE_POOL: "One writer per dataset workspace",
    EMBEDDINGS_POOL: "One run at a time encodes photos",
}

# Services by the names that their settings start with, such as MASKLOOP_SEGMENTATION_URL.
LABEL_STUDIO: Final = "label_studio"
MLFLOW: Final = "mlflow"
AIRFLOW: Final = "airflow"
SEGMENTATION: Final = "segmentation"
SEGMENT_ANYTHING: Final = "segment_anything"
ServiceName = Literal["label_studio", "mlflow", "airflow", "segmentation", "segment_anything"]
ModelService = Literal["segmentation", "segment_anything"]
