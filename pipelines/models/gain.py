"""How small a gain the gate could last detect, for whoever decides whether the test split still has to grow."""

import logging
from collections.abc import Callable

from pipelines.errors import ServiceError
from pipelines.settings import Settings

logger = logging.getLogger(__name__)


def detectable_gain(settings: Settings) -> Callable[[str], float | None]:
    """Return a function that gives, for a split's configuration, the gain of mIoU (0..1) that was last detectable.

    It returns None when no gate has looked yet, and when MLflow cannot be asked.
    """

    def last_detectable(division: str) -> float | None:
        from pipelines.models.registry import Registry

        try:
            return Registry(settings).detectable_gain(division)
        except ServiceError as error:
            logger.warning("%s; how small a gain the test split detects is not known", error)
            return None

    return last_detectable
