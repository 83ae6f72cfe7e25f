"""The smallest gain that the gate could last detect; it decides whether the test split still has to grow."""

import logging
from collections.abc import Callable

from pipelines.errors import ServiceError
from pipelines.settings import Settings

logger = logging.getLogger(__name__)


def detectable_gain(settings: Settings) -> Callable[[str], float | None]:
    """Return a function from the hash of a split's configuration to the gain of mIoU (0..1) that was last detectable.

    It returns None when no gate has decided yet, and when MLflow cannot be asked.
    """

    def last_detectable(split_config: str) -> float | None:
        from pipelines.models.registry import Registry

        try:
            return Registry(settings).detectable_gain(split_config)
        except ServiceError as error:
            logger.warning("%s; the smallest gain that the test split detects is not known", error)
            return None

    return last_detectable
