"""Model versions in MLflow: registered once per fingerprint, promoted by alias, rolled back to what served before.

MLflow's client repeats requests whose answers were lost, so versions are searched by their fingerprint before and after
they are created. Each change is written in an order that leaves no wrong state behind when the process is killed.
"""

import json
import logging

import numpy as np
from mlflow.exceptions import MlflowException

from pipelines.errors import ModelError
from pipelines.models import overview
from pipelines.models.attempts import Attempts
from pipelines.models.overview import GATE, VersionStatus, experiment_note
from pipelines.models.reader import CHAMPION
from pipelines.models.run import DATASET, FINGERPRINT, STARTED_FROM, STEPS_DONE, Training, logged_model
from pipelines.models.versions import DECISION, ENDED_BY, PAUSED, Versions
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
# Tags that people's registries hold, so their names never change.
_EVENT = "maskloop.event"  # of a version: what happened to it since the gate decided
_SERVED = "maskloop.served"  # of the model: numbers of the versions in the order in which they started to serve
_MAX_SERVED = 500
_GATE_TABLE = "gate.md"
_LONGEST_TAG = 4000


class Registry(Versions):
    """The trainings and versions of one model name on one MLflow server.

    All methods raise ServiceError when MLflow does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._attempts = Attempts(self.client, self.name)

    def begin_run(self, training: Training, params: Params) -> str:
        """Open the run of a training that is about to start, and return its id; see `Attempts.begin`."""
        with self._reader.explained():
            return self._attempts.begin(training, params)

    def note_result(self, run_id: str, training: Training) -> None:
        """Note in a run that its training is done, so that the run is used even if it is registered later."""
        with self._reader.explained():
            self.client.set_tag(run_id, FINGERPRINT, training.fingerprint)

    def end_failed_run(self, run_id: str) -> None:
        """Mark the run of a training that ended with an error."""
        with self._reader.explained():
            self.client.set_terminated(run_id, "FAILED")

    def awaits_decision(self, training: Training) -> bool:
        """Return whether the network in a training's folder is registered and the gate has not judged it yet."""
        registered = self._search(f"tags.`{FINGERPRINT}` = '{training.fingerprint}'") if training.is_finished else []
        return bool(registered) and not registered[0].tags.get(DECISION)

    def register(self, training: Training, params: Params, photo: np.ndarray) -> ModelVersion:
        """Complete a training's run and register its model; returns the existing version when that was done before.

        A training without a run (MLflow was down when it started) gets one. `photo` is a (H, W, 3) uint8 RGB example.
        """
        same_training = f"tags.`{FINGERPRINT}` = '{training.fingerprint}'"
        if registered := self._search(same_training):
            return self._describe(registered[0])
        with self._reader.explained():
            run_id = self._attempts.finished(training) or self._attempts.complete(training, params, photo)
            self._ensure_name()
            if not (registered := self._search(same_training)):
                self._create_version(run_id, training)
                registered = self._search(same_training)
            for duplicate in registered[1:]:  # a repeated request created it; the lowest number stays
                self.client.delete_model_version(self.name, str(duplicate.version))
        version = self._describe(registered[0])
        self._update_pages(version)
        return version

    def promote(self, version: ModelVersion, reason: str, table: str = "") -> None:
        """Make a version champion because the gate decided so; `table` is Markdown that MLflow shows with it.

        The decision is noted last: a version without one is judged again. Doing it twice changes nothing.
        """
        if self._serve(version) or not self._is_decided(version):
            self.note_decision(version, reason, table, promoted=True)

    def log_gate_table(self, version: ModelVersion, table: str) -> None:
        """Log what the gate weighed as Markdown, before the version that it decided for is promoted."""
        with self._reader.explained():
            self.client.log_text(version.run_id, table, _GATE_TABLE)

    def _is_decided(self, version: ModelVersion) -> bool:
        with self._reader.explained():
            return bool(self.client.get_model_version(self.name, str(version.version)).tags.get(DECISION))

    def promote_by_hand(self, version: ModelVersion) -> None:
        """Make a version champion, or let a paused champion draw masks again."""
        if self._serve(version):
            self._update_pages(version, event="promoted by hand")
            self._write_note()
        elif version.paused:
            self._clear(version, PAUSED)
            self._update_pages(version)
            self._write_note()

    def pause(self, version: ModelVersion, reason: str) -> None:
        """Keep a champion from drawing masks for people until a version is promoted, or this one is by hand."""
        self.tag(version, {PAUSED: reason[:_LONGEST_TAG]})
        self._update_pages(version)
        self._write_note()

    def roll_back(self) -> tuple[ModelVersion | None, ModelVersion]:
        """Make the version that served before the champion serve again; returns the version that left and this one.

        Each further call goes back further. The first value is None when the champion was deleted. Raises ModelError
        when there is nothing to go back to.
        """
        leaving = self.champion()
        served = self._served_before(leaving)
        before = self.version(str(served[-1]))
        assert before is not None, "`_served_before` returns versions that exist"
        self._clear(before, PAUSED)
        self._note_served(served)  # before the alias: after a kill in between, `_served` adds the champion again
        with self._reader.explained():
            self.client.set_registered_model_alias(self.name, CHAMPION, str(before.version))
        if leaving:
            self._update_pages(leaving, event=f"rolled back to {before.served_as} by hand")
        gone = f"{leaving.served_as} was rolled back" if leaving else "the version after it was deleted"
        self._update_pages(before, event=f"champion again because {gone}")
        self._write_note()
        return leaving, before

    def version_before(self) -> ModelVersion | None:
        """Return the version that `roll_back` would make champion; None when there is none."""
        try:
            served = self._served_before(self.champion())
        except ModelError:
            return None
        return self.version(str(served[-1]))

    def note_decision(self, version: ModelVersion, reason: str, table: str = "", *, promoted: bool = False) -> None:
        """Write why a challenger became champion or not; `table` is Markdown that MLflow shows with the version."""
        with self._reader.explained():
            if table:
                self.client.log_text(version.run_id, table, _GATE_TABLE)
        verdict = "promoted" if promoted else "not promoted" if version.is_complete else "cut short"
        self.tag_run(version.run_id, {GATE: f"{verdict}: {reason}"[:_LONGEST_TAG]})
        self._update_pages(version)
        self._write_note()

    def tag_run(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags of a run."""
        with self._reader.explained():
            for name, value in tags.items():
                self.client.set_tag(run_id, name, value)

    def _serve(self, version: ModelVersion) -> bool:
        """Point the alias at a version and note that it serves; does nothing and returns False when it already does."""
        before = self.champion()
        if before and before.version == version.version:
            return False
        served = self._served(before)
        self._clear(version, PAUSED)
        with self._reader.explained():
            self.client.set_registered_model_alias(self.name, CHAMPION, str(version.version))
        self._note_served([*served, version.version])
        if before:
            self._update_pages(before, event=f"replaced by {version.served_as}")
        return True

    def _served(self, champion: ModelVersion | None) -> list[int]:
        """Return the numbers of the versions that served; the champion comes last even if it got its alias by hand."""
        with self._reader.explained():
            tags = self.client.get_registered_model(self.name).tags if champion or self._search() else {}
        served = [int(number) for number in json.loads(tags.get(_SERVED, "[]"))]
        if champion and served[-1:] != [champion.version]:
            served.append(champion.version)
        return served

    def _served_before(self, leaving: ModelVersion | None) -> list[int]:
        """Return the numbers of the versions that served, up to the last one before the champion that still exists.

        Raises ModelError when there is none.
        """
        served = self._served(leaving)
        while served and ((leaving and served[-1] == leaving.version) or self.version(str(served[-1])) is None):
            served.pop()
        if not served and leaving is None:
            raise ModelError(f"{self.name} has no champion yet, so there is nothing to roll back")
        if not served and leaving:
            raise ModelError(
                f"{leaving.served_as} is the first champion, or those before it were deleted; choose a version of "
                f"{self.url} with `maskloop promote NUMBER`"
            )
        return served

    def _note_served(self, served: list[int]) -> None:
        with self._reader.explained():
            self.client.set_registered_model_tag(self.name, _SERVED, json.dumps(served[-_MAX_SERVED:]))

    def _update_pages(self, version: ModelVersion, *, event: str | None = None) -> None:
        """Write a version's present status: its description and decision, and the name and tags of its run."""
        if event is not None:
            self.tag(version, {_EVENT: event})
        status, table = self._status(version), self._text(version.run_id, _GATE_TABLE)
        with self._reader.explained():
            self.client.update_model_version(self.name, str(version.version), status.description(table))
            self.client.update_run(version.run_id, name=status.run_name)
        sentence = status.sentence[:_LONGEST_TAG]
        self.tag_run(version.run_id, {overview.VERSION: status.served_as, overview.DECISION: sentence})
        if status.decision:
            self.tag(version, {DECISION: status.decision[:_LONGEST_TAG]})

    def _status(self, version: ModelVersion) -> VersionStatus:
        with self._reader.explained():
            tags = self.client.get_model_version(self.name, str(version.version)).tags
            run = self.client.get_run(version.run_id)
        verdict, _, reason = run.data.tags.get(GATE, "").partition(": ")
        return VersionStatus(version.served_as, run, verdict, reason, tags.get(_EVENT, ""), tags.get(PAUSED, ""))

    def _write_note(self) -> None:
        champion = self.champion()
        with self._reader.explained():
            runs = self._attempts.newest(overview.LISTED_RUNS)
            note = experiment_note(self.name, self._status(champion) if champion else None, runs)
            self.client.set_experiment_tag(self._attempts.experiment(), "mlflow.note.content", note)

    def _clear(self, version: ModelVersion, tag: str) -> None:
        with self._reader.explained():
            if tag in self.client.get_model_version(self.name, str(version.version)).tags:
                self.client.delete_model_version_tag(self.name, str(version.version), tag)

    def _create_version(self, run_id: str, training: Training) -> None:
        model = logged_model(self.client, run_id)
        if model is None:
            raise ModelError(f"run {run_id} in {self.url} holds no model; delete the run and register again")
        steps, run_tags = training.steps, self.client.get_run(run_id).data.tags
        ended_by = "" if steps.get("ended_by") == "schedule" else steps.get("ended_by", "")
        tags = {FINGERPRINT: training.fingerprint, DATASET: training.dataset, ENDED_BY: ended_by}
        tags |= {name: run_tags.get(name, "") for name in (STEPS_DONE, STARTED_FROM)}
        known = {name: value for name, value in tags.items() if value}
        self.client.create_model_version(self.name, f"models:/{model}", run_id, tags=known, model_id=model)

    def _ensure_name(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
