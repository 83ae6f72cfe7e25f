"""The trigger that starts a sync, and with it a training, as soon as people have labelled enough that is new."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

POLL_S = 20.0
logger = logging.getLogger(__name__)


class EnoughAnnotations(BaseEventTrigger):
    """Fires when `retrain.min_new_annotations` are new since it last did, or since the triggerer started.

    Nothing is lost when the triggerer is restarted: the next sync by the clock takes over what was not counted.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how the triggerer, to which the folder of DAG files is a package, makes this trigger."""
        return "dags.new_annotations.EnoughAnnotations", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask Label Studio again and again how many annotations there are."""
        from pipelines.errors import MaskloopError
        from pipelines.labelstudio.pace import Pace, count_annotations
        from pipelines.settings import get_settings

        pace = Pace()
        while True:
            try:
                total, wanted = await asyncio.to_thread(count_annotations, get_settings())
                if pace.is_enough(total, wanted):
                    yield TriggerEvent({"annotations": total})
            except MaskloopError as error:  # Label Studio may be down, or not be set up yet
                logger.info("annotations are not counted: %s", error)
            await asyncio.sleep(POLL_S)
