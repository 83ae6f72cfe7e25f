"""What people say about photos, on its way to whoever is in charge."""

from pipelines.fs import held, is_held
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.remarks import show_remarks
from pipelines.params import load_params
from pipelines.settings import Settings


def pass_on_remarks(settings: Settings) -> str:
    """Show new doubts and skips in the tab "Review"; return a line about them, or an empty text when there are none.

    While ingest is writing tasks, nothing is done: the next call shows them.
    """
    lock = settings.var / "ingest.lock"
    if is_held(lock):
        return ""
    labels = connect(settings)
    with held(lock):
        remarks = show_remarks(labels, find_project(labels, load_params(settings.params_path)))
    words = ", ".join(f"#{remark.task} {remark}" for remark in remarks)
    return f"{len(remarks)} new in the tab Review: {words}" if remarks else ""
