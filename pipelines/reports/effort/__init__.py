"""Usage of pre-labels and the time they save, computed from the manifest of a dataset version.

`photos` decides which times count, `regression` and `saving` estimate the time saved, `measure` collects the metrics of
each model.
"""

from pipelines.reports.effort.measure import BY_HAND, Effort, EffortReport, costs_time, effort_of, measure_effort
from pipelines.reports.effort.saving import Interval, Learning, Saving

__all__ = [
    "BY_HAND", "Effort", "EffortReport", "Interval", "Learning", "Saving", "costs_time", "effort_of", "measure_effort",
]  # fmt: skip
