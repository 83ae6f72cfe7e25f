"""Two DAGs that fail and one that has something to say; as a program it runs them and prints how they ended as JSON.

Airflow reads the file from a folder of DAGs, so the test copies it into one.
"""

import importlib
import json
import sys
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.utils.db import initdb

from pipelines.errors import ChecksError, ServiceError
from pipelines.settings import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "dags"))  # Airflow does the same for its folder
callbacks = importlib.import_module("callbacks")


def failing(dag_id: str, error: Exception) -> Any:
    @dag(dag_id=dag_id, schedule=None, on_failure_callback=callbacks.tell_people)
    def flow() -> None:
        @task(retries=2, retry_delay=timedelta(0))
        def work() -> None:
            with callbacks.no_retry_on_user_error():
                raise error

        work()

    return flow()


@dag(schedule=None, on_failure_callback=callbacks.tell_people)
def cut_short() -> None:
    @task
    def work() -> None:
        callbacks.tell_people_that("the training was cut short")

    work()


flows = [
    cut_short(),
    failing("stopped_by_checks", ChecksError("no garment")),
    failing("out_of_reach", ServiceError("Label Studio does not answer")),
]


def main() -> None:
    initdb()
    runs = {flow.dag_id: flow.test() for flow in flows}
    tasks = {name: run.get_task_instances()[0] for name, run in runs.items()}
    print(json.dumps({name: [one.state, one.try_number] for name, one in tasks.items()}))  # of the task


if __name__ == "__main__":
    main()
