"""Read the DAG files as Airflow's processor does, and print what they declare as JSON; run in a process of its own."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import airflow.sdk  # noqa: F401  # its own import time is not the DAG files' doing
from airflow.dag_processing.dagbag import DagBag

HEAVY = {"torch", "mlflow", "great_expectations"}
ALLOWED = {"pipelines.contract"}  # names only
FOLDER = Path(__file__).resolve().parents[2] / "dags"


def seconds(duration: timedelta | None) -> float | None:
    return duration.total_seconds() if duration else None


def _as_list(callbacks: object) -> list[Any]:
    return callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []


def woken_by(timetable: Any) -> list[str]:
    """Return the assets that start a DAG; none for one that only the clock starts."""
    return sorted(asset.name for asset in getattr(timetable.asset_condition, "objects", ()))


def main() -> None:
    sys.path.insert(0, str(FOLDER))  # Airflow does the same
    bag = DagBag(dag_folder=str(FOLDER))
    dags = {
        dag.dag_id: {
            "file": Path(dag.fileloc).name,
            "needs": type(dag.timetable.asset_condition).__name__ if woken_by(dag.timetable) else None,
            "woken_by": woken_by(dag.timetable),
            "cron": getattr(getattr(dag.timetable, "timetable", dag.timetable), "expression", None),
            "told_of_failure": [callback.__name__ for callback in _as_list(dag.on_failure_callback)],
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "timeout": seconds(dag.dagrun_timeout),
            "tasks": {
                task.task_id: {
                    "retries": task.retries,
                    "timeout": seconds(task.execution_timeout),
                    "pool": task.pool,
                    "before": sorted(task.downstream_task_ids),
                    "wakes": [asset.name for asset in task.outlets],
                }
                for task in dag.tasks
            },
        }
        for dag in bag.dags.values()
    }
    seconds_of = {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats}
    loaded = sorted(
        name for name in sys.modules if name in HEAVY or (name.startswith("pipelines.") and name not in ALLOWED)
    )
    print(json.dumps({"dags": dags, "errors": bag.import_errors, "seconds": seconds_of, "loaded": loaded}))


if __name__ == "__main__":
    main()
