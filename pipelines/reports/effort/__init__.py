"""What people do with a model's masks and how many seconds these save; all of it stands in a dataset's manifest.

`photos` says which times count and whose they are, `saving` estimates what masks save, `measure` puts the figures of
each model together.
"""

from pipelines.reports.effort.measure import BY_HAND, Effort, EffortReport, costs_time, effort_of, measure_effort
from pipelines.reports.effort.saving import Interval, Learning, Saving

__all__ = [
    "BY_HAND", "Effort", "EffortReport", "Interval", "Learning", "Saving", "costs_time", "effort_of", "measure_effort",
]  # fmt: skip
