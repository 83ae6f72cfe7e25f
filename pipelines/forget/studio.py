"""What Label Studio holds: tasks with all that was drawn on them, export snapshots, and accounts."""

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipelines.errors import DataError, ServiceError
from pipelines.forget.subjects import Person, Subjects
from pipelines.forget.traces import Trace
from pipelines.labelstudio.client import LabelStudioClient
from pipelines.labelstudio.controls import IMAGE
from pipelines.labelstudio.people import (
    Account,
    delete_export,
    list_accounts,
    list_exports,
    list_projects,
    read_export,
    remove_account,
    rename_account,
)
from pipelines.labelstudio.schema import TaskJson
from pipelines.labelstudio.tasks import delete_task, is_maskloop_task, list_task_json, parse_image
from pipelines.settings import PROJECT_ROOT, Settings

_PAGE = 500
_PROGRAM_S = 120  # seconds that the program in Label Studio's environment may take


class LabelStudioStore:
    """Label Studio's projects and accounts."""

    name = "Label Studio"

    def __init__(self, client: LabelStudioClient, settings: Settings, subjects: Subjects) -> None:
        self._client, self._settings, self._subjects = client, settings, subjects

    def traces(self) -> Iterator[Trace]:
        """Yield the tasks that show the photos, exports that name photos or people, and the people's accounts."""
        for project in list_projects(self._client):
            yield from self._tasks(int(project["id"]))
            yield from self._exports(int(project["id"]))
        if self._subjects.people:
            accounts = {account.id: account for account in list_accounts(self._client)}
            for person in self._subjects.people:
                yield from self._account(person, accounts.get(person.user))

    def _tasks(self, project: int) -> Iterator[Trace]:
        for task in list_task_json(self._client, project, page_size=_PAGE, query={}):
            text = json.dumps(task["data"], ensure_ascii=False).encode()
            place = f"task {task['id']} of project {project}"
            if self._shows(task):
                drawn = int(task.get("total_annotations") or 0) + int(task.get("cancelled_annotations") or 0)
                what = "task with its drafts and predictions" if not drawn else "task with annotations"
                yield Trace(self.name, what, place, len(text), partial(delete_task, self._client, int(task["id"])))
            elif self._subjects.pattern.search(text):
                reason = "the task's data name it beside another photo; change them by hand"
                yield Trace(self.name, "task data", place, len(text), None, reason)

    def _shows(self, task: TaskJson) -> bool:
        if is_maskloop_task(task):
            try:
                return parse_image(task["data"]).sha256 in self._subjects.hashes
            except DataError:
                return False
        image = str(task["data"].get(IMAGE, ""))
        return any(image in photo.texts for photo in self._subjects.photos)

    def _exports(self, project: int) -> Iterator[Trace]:
        for export in list_exports(self._client, project):
            place = f'export {export.id} "{export.title}" of project {project}'
            try:
                data = read_export(self._client, export)
            except ServiceError as error:  # one that failed when it was made
                yield Trace(self.name, "export snapshot", place, 0, None, f"it cannot be read: {error}")
                continue
            if self._subjects.pattern.search(data):
                yield Trace(
                    self.name, "export snapshot", place, len(data), partial(delete_export, self._client, export)
                )

    def _account(self, person: Person, account: Account | None) -> Iterator[Trace]:
        if account is None:
            return
        if not account.is_removed and account.email.lower() == person.email.lower():
            size = len(person.email.encode())
            yield Trace(self.name, "account", f"user {account.id}", size, partial(self._forget_account, person))
        elif not is_local(self._settings):
            reason = (
                "its API neither shows nor changes the address of a removed account; run "
                f"`deploy/maskloop forget-account ADDRESS {person.pseudonym}` on the server"
            )
            yield Trace(self.name, "address in the database", f"user {account.id}", 0, None, reason)

    def _forget_account(self, person: Person) -> None:
        """Rename an account and close it; the address first, because the API no longer shows a removed account's."""
        rename_account(self._client, person.user, person.pseudonym)
        if is_local(self._settings):
            _rename_in_database(self._settings, person)
        remove_account(self._client, person.user)


def is_local(settings: Settings) -> bool:
    """Return whether Label Studio runs on this machine, from this folder, with its database in the state folder."""
    return not (settings.composed or settings.label_studio_url) and _python().exists()


def _python() -> Path:
    return PROJECT_ROOT / ".venv-label-studio" / "bin" / "python"


def _rename_in_database(settings: Settings, person: Person) -> None:
    """Replace a person's address in Label Studio's database; raise ServiceError when that fails."""
    from pipelines.local_stack.services import environment

    program = PROJECT_ROOT / "pipelines" / "labelstudio_site" / "maskloop_account.py"
    site = {"PYTHONPATH": str(program.parent), "DJANGO_SETTINGS_MODULE": "maskloop_settings"}
    command = [str(_python()), str(program), "forget", person.email, person.pseudonym]
    done = subprocess.run(
        command, env={**environment(settings), **site}, capture_output=True, text=True, timeout=_PROGRAM_S, check=False
    )
    if done.returncode:
        raise ServiceError(f"Label Studio's account cannot be renamed: {(done.stderr or done.stdout).strip()[-500:]}")
