"""Model versions in MLflow: registered once per fingerprint, promoted by alias, rolled back through what served.

MLflow's client repeats requests whose answers were lost, so versions are searched by their fingerprint before and after
they are made. Each change is written in an order that leaves no wrong state behind when the process is killed.
"""

import json
import logging

import numpy as np
from mlflow.exceptions import MlflowException

from pipelines.errors import ModelError
from pipelines.models import overview
from pipelines.models.attempts import Attempts
from pipelines.models.overview import GATE, Shown, experiment_note
from pipelines.models.run import DATASET, FINGERPRINT, STARTED_FROM, STEPS_DONE, Training, logged_model
from pipelines.models.versions import CHAMPION, DECISION, ENDED_BY, PAUSED, Versions
from pipelines.params import Params
from pipelines.records import ModelVersion
from pipelines.settings import Settings

logger = logging.getLogger(__name__)
_EVENT = "maskloop.event"  # of a version: what happened to it since the gate
_SERVED = "maskloop.served"  # of the model: numbers of the versions in the order in which they began to serve
_KEPT_SERVED = 500
_GATE_TABLE = "gate.md"
_LONGEST_TAG = 4000


class Registry(Versions):
    """MLflow's tracking and registry of one server, for one model name."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._attempts = Attempts(self.client, self.name)

    def begin_run(self, training: Training, params: Params) -> str:
        """Open the run of a training that is about to begin, and return its id; see `Attempts.begin`."""
        with self._explained():
            return self._attempts.begin(training, params)

    def note_result(self, run_id: str, training: Training) -> None:
        """Note in a run that its training is done, so that it is taken up even if it is not registered at once."""
        with self._explained():
            self.client.set_tag(run_id, FINGERPRINT, training.fingerprint)

    def end_failed_run(self, run_id: str) -> None:
        """Mark the run of a training that ended with an error."""
        with self._explained():
            self.client.set_terminated(run_id, "FAILED")

    def awaits_decision(self, training: Training) -> bool:
        """Tell whether the network in a training's folder is a version already that was never put before the gate."""
        found = self._search(f"tags.`{FINGERPRINT}` = '{training.fingerprint}'") if training.is_finished else []
        return bool(found) and not found[0].tags.get(DECISION)

    def register(self, training: Training, params: Params, photo: np.ndarray) -> ModelVersion:
        """Complete a training's run and register its model; gives the existing version when both were done before.

        Without a run of its own (MLflow was down when it began) the training gets one. `photo` is a (H, W, 3) uint8 RGB
        example.
        """
        wanted = f"tags.`{FINGERPRINT}` = '{training.fingerprint}'"
        if found := self._search(wanted):
            return self._describe(found[0])
        with self._explained():
            run_id = self._attempts.finished(training) or self._attempts.complete(training, params, photo)
            self._ensure_name()
            if not (found := self._search(wanted)):
                self._create_version(run_id, training)
                found = self._search(wanted)
            for double in found[1:]:  # a repeated request made it; the lowest number stays
                self.client.delete_model_version(self.name, str(double.version))
        version = self._describe(found[0])
        self._show(version)
        return version

    def promote(self, version: ModelVersion, reason: str, table: str = "") -> None:
        """Make a version champion because the gate says so; `table` is Markdown that MLflow shows with it."""
        if self._serve(version):
            self.note_decision(version, reason, table, promoted=True)  # last: without one it is compared once more

    def promote_by_hand(self, version: ModelVersion) -> None:
        """Make a version champion, or let a champion that is paused draw masks again."""
        if self._serve(version):
            self._show(version, event="promoted by hand")
            self._write_note()
        elif version.paused:
            self._clear(version, PAUSED)
            self._show(version)
            self._write_note()

    def pause(self, version: ModelVersion, reason: str) -> None:
        """Keep a champion from drawing masks for people until a version is promoted, or it is by hand."""
        self.tag(version, {PAUSED: reason[:_LONGEST_TAG]})
        self._show(version)
        self._write_note()

    def roll_back(self) -> tuple[ModelVersion | None, ModelVersion]:
        """Bring back the version that served before the champion; gives the one that left and the one that serves now.

        Doing it again goes back further. The champion may have been deleted: then none left. Raises ModelError when
        there is nothing to go back to.
        """
        leaving = self.champion()
        served = self._served_before(leaving)
        before = self.version(str(served[-1]))
        assert before is not None, "it was there a moment ago"
        self._clear(before, PAUSED)
        self._note_served(served)  # first: a kill between the two leaves a champion that is not in it, and is noted
        with self._explained():
            self.client.set_registered_model_alias(self.name, CHAMPION, str(before.version))
        if leaving:
            self._show(leaving, event=f"rolled back to {before.served_as} by hand")
        gone = f"{leaving.served_as} was rolled back" if leaving else "the version after it was deleted"
        self._show(before, event=f"champion again because {gone}")
        self._write_note()
        return leaving, before

    def note_decision(self, version: ModelVersion, reason: str, table: str = "", *, promoted: bool = False) -> None:
        """Write why a challenger became champion or did not; `table` is Markdown that MLflow shows with the version."""
        with self._explained():
            if table:
                self.client.log_text(version.run_id, table, _GATE_TABLE)
        verdict = "promoted" if promoted else "not promoted" if version.is_complete else "cut short"
        self.tag_run(version.run_id, {GATE: f"{verdict}: {reason}"[:_LONGEST_TAG]})
        self._show(version)
        self._write_note()

    def tag_run(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags of a run."""
        with self._explained():
            for name, value in tags.items():
                self.client.set_tag(run_id, name, value)

    def _serve(self, version: ModelVersion) -> bool:
        """Point the alias at a version and note that it serves; False, and nothing is done, when it does already."""
        before = self.champion()
        if before and before.version == version.version:
            return False
        served = self._served(before)
        self._clear(version, PAUSED)
        with self._explained():
            self.client.set_registered_model_alias(self.name, CHAMPION, str(version.version))
        self._note_served([*served, version.version])
        if before:
            self._show(before, event=f"replaced by {version.served_as}")
        return True

    def _served(self, champion: ModelVersion | None) -> list[int]:
        """Return the versions that served, the champion last even if somebody set the alias by other means."""
        with self._explained():
            tags = self.client.get_registered_model(self.name).tags if champion or self._search() else {}
        served = [int(number) for number in json.loads(tags.get(_SERVED, "[]"))]
        if champion and served[-1:] != [champion.version]:
            served.append(champion.version)
        return served

    def _served_before(self, leaving: ModelVersion | None) -> list[int]:
        """Return the versions that served up to the last one before the champion that is still there.

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
        with self._explained():
            self.client.set_registered_model_tag(self.name, _SERVED, json.dumps(served[-_KEPT_SERVED:]))

    def _show(self, version: ModelVersion, *, event: str | None = None) -> None:
        """Write what is true of a version now: its description and decision, and the name and tags of its run."""
        if event is not None:
            self.tag(version, {_EVENT: event})
        shown, table = self._shown(version), self._text(version.run_id, _GATE_TABLE)
        with self._explained():
            self.client.update_model_version(self.name, str(version.version), shown.description(table))
            self.client.update_run(version.run_id, name=shown.run_name)
        decided = shown.sentence[:_LONGEST_TAG]
        self.tag_run(version.run_id, {overview.VERSION: shown.served_as, overview.DECISION: decided})
        if shown.decision:
            self.tag(version, {DECISION: shown.decision[:_LONGEST_TAG]})

    def _shown(self, version: ModelVersion) -> Shown:
        with self._explained():
            tags = self.client.get_model_version(self.name, str(version.version)).tags
            run = self.client.get_run(version.run_id)
        verdict, _, reason = run.data.tags.get(GATE, "").partition(": ")
        return Shown(version.served_as, run, verdict, reason, tags.get(_EVENT, ""), tags.get(PAUSED, ""))

    def _write_note(self) -> None:
        champion = self.champion()
        with self._explained():
            runs = self._attempts.newest(overview.SHOWN_RUNS)
            note = experiment_note(self.name, self._shown(champion) if champion else None, runs)
            self.client.set_experiment_tag(self._attempts.experiment(), "mlflow.note.content", note)

    def _clear(self, version: ModelVersion, tag: str) -> None:
        with self._explained():
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
